"""The one table of board kinds. A new kind is an object in a module of its own, and a row here."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated

from pydantic import AfterValidator

from hrm_engine.data.puzzles.arc.board import ArcGrid
from hrm_engine.data.puzzles.board import Board
from hrm_engine.data.puzzles.maze.board import Maze
from hrm_engine.data.puzzles.sudoku.board import Sudoku

BOARDS: Mapping[str, Board] = MappingProxyType({board.kind: board for board in (Sudoku(), Maze(), ArcGrid(), Board())})
"""Board kinds by their names in files; the last one takes what is none of the others."""


def _known(kind: str) -> str:
    if kind not in BOARDS:
        raise ValueError(f"{kind!r} is no board kind; known are {', '.join(BOARDS)}")
    return kind


BoardKind = Annotated[str, AfterValidator(_known)]
"""Name of a board kind, as a field of a model."""
