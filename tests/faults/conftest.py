"""Trainers in processes of their own, and small disks."""

from __future__ import annotations

from tests.store.conftest import small_disk
from tests.tiny_runs import forks, lab, one_thread, source

__all__ = ["forks", "lab", "one_thread", "small_disk", "source"]
