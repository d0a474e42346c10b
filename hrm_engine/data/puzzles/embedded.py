"""Datasets that the lab can make by itself in seconds; the presets name them, and a training builds what is missing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType

from hrm_engine.data.puzzles.rated import BuildReport
from hrm_engine.data.puzzles.sudoku.build import build_sudokus

EMBEDDED: Mapping[str, Callable[..., BuildReport]] = MappingProxyType(
    {
        "sudoku-4x4": partial(build_sudokus, size=4, count=1000, test_count=500, blanks=9, seed=0),
        "sudoku-6x6": partial(build_sudokus, size=6, count=2000, test_count=500, blanks=21, seed=0),
    }
)
"""Builders by the names of their folders."""


def build_embedded(folder: Path, home: Path) -> BuildReport | None:
    """Build the dataset that ``folder`` names, if it is one of these in ``home`` and not there yet."""
    if folder.exists() or folder.parent.resolve() != home.resolve() or folder.name not in EMBEDDED:
        return None
    return EMBEDDED[folder.name](output_dir=folder)
