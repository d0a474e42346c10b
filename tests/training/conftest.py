"""Tiny real trainings."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.tiny_puzzles import PuzzleLab, puzzle_source
from tests.tiny_runs import lab, one_thread, source

__all__ = ["lab", "one_thread", "puzzle_lab", "puzzle_source", "source"]


@pytest.fixture
def puzzle_lab(workspace: Path, puzzle_source: Path) -> PuzzleLab:
    """A workspace with that dataset."""
    return PuzzleLab(workspace, puzzle_source)
