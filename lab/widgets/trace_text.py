"""A trace as plain text: boards beside each other, for terminals, logs and notebooks that are read as text."""

from __future__ import annotations

from itertools import zip_longest

from hrm_engine.data.puzzles.board import Tokens, extent
from hrm_engine.data.puzzles.drawing import Cells
from hrm_engine.inference import Trace
from lab.cli.board_view import GAP, board_lines
from lab.widgets.trace_pictures import wrong_cells

WIDTH = 80


def trace_text(trace: Trace, *, solution: Tokens | None = None, width: int = WIDTH) -> str:
    """The puzzle, and the board after each segment until it halts; a star marks cells that the segment changed.

    ``solution`` (C,) lets wrong cells be counted. As many boards stand in a row as ``width`` characters allow, at least
    one; a board that is wider stays whole.
    """
    shown = trace.segments[: trace.halted_at]
    shape = (trace.height, trace.width)
    region = extent([trace.inputs, *(segment.prediction for segment in shown)], *shape)

    def lines(tokens: Tokens, changed: Cells | None = None) -> list[str]:
        return [line.plain for line in board_lines(trace.board, tokens, shape, region, changed=changed)]

    blocks = [["the puzzle", *lines(trace.inputs)]]
    for segment in shown:
        words = [f"{int(segment.changed.sum())} changed *"]
        if solution is not None:
            wrong = int(wrong_cells(segment, solution).sum())
            words.append(f"{wrong} wrong" if wrong else "all right")
        words.append(f"halt {segment.q_halt:.2f}")
        if segment.number == trace.halted_at:
            words.append("halts here")
        blocks.append([f"segment {segment.number}", *lines(segment.prediction, segment.changed), *words])
    return beside(blocks, width=width)


def beside(blocks: list[list[str]], *, width: int = WIDTH) -> str:
    """Blocks of lines beside each other, in as many rows as ``width`` characters ask for."""
    wide = max(len(line) for block in blocks for line in block)
    in_a_row = max(1, (width + len(GAP)) // (wide + len(GAP)))
    rows = (zip_longest(*blocks[at : at + in_a_row], fillvalue="") for at in range(0, len(blocks), in_a_row))
    return "\n\n".join("\n".join(GAP.join(part.ljust(wide) for part in line).rstrip() for line in row) for row in rows)
