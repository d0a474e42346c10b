"""A trace written by hand: a 4x4 Sudoku that is right after its second segment, where the solver halts."""

from __future__ import annotations

import numpy as np
import torch

from hrm_engine.data.puzzles.kinds import BOARDS
from hrm_engine.inference import Segment, Trace

PUZZLE = "4..1.1433.1..2.4"
SOLUTION = BOARDS["sudoku"].to_tokens("4321214334121234")
FIRST = "4321214334121224"  # one cell is wrong


def sudoku_trace(*, halts: bool = True, num_segments: int = 3, states: bool = False) -> Trace:
    """Three segments: 7 cells, then the wrong one, then nothing."""
    inputs = BOARDS["sudoku"].to_tokens(PUZZLE).astype(np.int64)
    before, segments = inputs, []
    for number in range(1, num_segments + 1):
        board = BOARDS["sudoku"].to_tokens(FIRST).astype(np.int64) if number == 1 else SOLUTION.astype(np.int64)
        generator = torch.Generator().manual_seed(number)
        z_h, z_l = (torch.randn(5, 6, generator=generator) if states else None for _ in range(2))
        segments.append(
            Segment(
                number,
                board,
                board != before,
                q_halt=0.25 if number == 1 else 0.875,
                q_continue=None,
                wants_to_halt=halts and number > 1,
                residual=1 / number,
                z_h=z_h,
                z_l=z_l,
            )
        )
        before = board
    return Trace(BOARDS["sudoku"], 4, 4, inputs, tuple(segments))
