"""Trainers in processes of their own, and small disks."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.store.conftest import small_disk
from tests.tiny_runs import Forks, lab, one_thread, source

__all__ = ["lab", "one_thread", "small_disk", "source"]


@pytest.fixture(scope="session")
def forks() -> Iterator[Forks]:
    """Runs command lines of ``lab`` in processes of their own."""
    if not hasattr(os, "fork"):
        pytest.skip("this system cannot fork")
    server = Forks()
    yield server
    server.close()
