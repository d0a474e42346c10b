"""Tiny real trainings."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.tiny_puzzles import PuzzleLab, make_puzzles
from tests.tiny_runs import lab, one_thread, source

__all__ = ["lab", "one_thread", "puzzle_lab", "puzzle_source", "source"]


@pytest.fixture(scope="session")
def puzzle_source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A puzzle dataset, built once."""
    return make_puzzles(tmp_path_factory.mktemp("puzzles") / "tiny")


@pytest.fixture
def puzzle_lab(workspace: Path, puzzle_source: Path) -> PuzzleLab:
    """A workspace with that dataset."""
    return PuzzleLab(workspace, puzzle_source)
