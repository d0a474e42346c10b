"""Tiny real trainings."""

from tests.tiny_runs import lab, one_thread, source

__all__ = ["lab", "one_thread", "source"]
