"""Puzzles in the published CSV form."""

from __future__ import annotations

from hrm_engine.data.puzzles.kinds import BOARDS
from hrm_engine.data.puzzles.rated import Puzzles

HEADER = "source,question,answer,rating\n"
SUDOKU = BOARDS["sudoku"]


def written(puzzles: Puzzles) -> str:
    lines = [
        f"made,{SUDOKU.to_text(inputs)},{SUDOKU.to_text(labels)},{rating}\n"
        for inputs, labels, rating in zip(puzzles.inputs, puzzles.labels, puzzles.ratings, strict=True)
    ]
    return HEADER + "".join(lines)
