"""A trace as plain text: boards beside each other, for terminals, logs and notebooks that are read as text."""

from __future__ import annotations

from itertools import zip_longest

from hrm_engine.data.puzzles.board import Tokens, extent
from hrm_engine.data.puzzles.drawing import Cells
from hrm_engine.inference import Segment, Trace
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
        board = lines(segment.prediction, segment.changed)
        blocks.append([f"segment {segment.number}", *board, *_words(trace, segment, solution)])
    return beside(blocks, width=width)


def beside(blocks: list[list[str]], *, width: int = WIDTH) -> str:
    """Blocks of lines beside each other, in as many rows as ``width`` characters ask for."""
    wide = max(len(line) for block in blocks for line in block)
    in_a_row = max(1, (width + len(GAP)) // (wide + len(GAP)))
    rows = [blocks[start : start + in_a_row] for start in range(0, len(blocks), in_a_row)]
    return "\n\n".join(_row(row, wide) for row in rows)


def _words(trace: Trace, segment: Segment, solution: Tokens | None) -> list[str]:
    words = [f"{int(segment.changed.sum())} changed *"]
    if solution is not None:
        wrong = int(wrong_cells(segment, solution).sum())
        words.append(f"{wrong} wrong" if wrong else "all right")
    return [*words, f"halt {segment.q_halt:.2f}", *(["halts here"] if segment.number == trace.halted_at else [])]


def _row(blocks: list[list[str]], wide: int) -> str:
    lines = zip_longest(*blocks, fillvalue="")
    return "\n".join(GAP.join(part.ljust(wide) for part in line).rstrip() for line in lines)
