"""Tiny real trainings."""

from tests.bundles.brains import brain
from tests.tiny_runs import lab, one_thread, source

__all__ = ["brain", "lab", "one_thread", "source"]
