"""Tiny real trainings, and notebooks to run."""

from tests.tiny_runs import lab, one_thread, source

__all__ = ["lab", "one_thread", "source"]
