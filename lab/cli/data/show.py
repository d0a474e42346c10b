"""``lab data show``: one row of a puzzle dataset, drawn in the terminal."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from hrm_engine.store.paths import Workspace
from lab.cli.console import PROXY, relative, say, show_facts, show_json
from lab.cli.parameters import Json

if TYPE_CHECKING:
    from hrm_engine.data.puzzles.format import PuzzleDataset


def show(
    dataset: Annotated[Path, Parameter(help="Folder of a puzzle dataset.")],
    /,
    *,
    index: Annotated[int, Parameter(help="Number of the row, from 0.")] = 0,
    split: Annotated[Literal["train", "test"], Parameter(help="Which part of the dataset.")] = "train",
    json: Json = False,
) -> int:
    """Draw one row: the puzzle beside its solution. In colour, what the puzzle gives is bold."""
    from hrm_engine.data.puzzles.board import extent
    from hrm_engine.data.puzzles.format import open_dataset
    from lab.cli.board_view import board_lines, side_by_side

    workspace = Workspace.find()
    opened = open_dataset(workspace.resolve(dataset), split, check_tokens=False)
    part, row = opened.row(index)
    inputs, labels = part.inputs[row], part.labels[row]
    facts, board = _facts(opened, index), opened.about.board
    if board.has_rules:
        facts["solution_is_valid"] = board.is_valid(inputs, labels)
    if json:
        boards = {"input": board.to_text(inputs), "solution": board.to_text(labels)}
        show_json({"dataset": str(opened.folder), **facts, **boards})
        return 0
    if opened.about.is_proxy:
        say(PROXY, style="yellow")
    shown = {
        name.replace("_", " "): value for name, value in facts.items() if value not in (None, "") and value is not False
    }
    show_facts([("dataset", relative(opened.folder, workspace)), *shown.items()])
    say()
    about, shape = opened.about, (opened.about.height, opened.about.width)
    region = extent([inputs, labels], *shape)
    side_by_side([board_lines(about.board, tokens, shape, region, given=inputs) for tokens in (inputs, labels)])
    return 0


def _facts(opened: PuzzleDataset, index: int) -> dict[str, Any]:
    import numpy as np

    part, row = opened.row(index)
    about = opened.about
    puzzle = int(np.searchsorted(part.puzzle_indices, row, side="right")) - 1
    group = int(np.searchsorted(part.group_indices, puzzle, side="right")) - 1
    identifier = int(part.puzzle_identifiers[puzzle])
    return {
        "kind": about.kind,
        "board": f"{about.height} x {about.width}",
        "description": about.description,
        "is_proxy": about.is_proxy,
        "split": opened.split,
        "set": part.name,
        "index": index,
        "rows": opened.num_rows,
        "puzzle": puzzle,
        "group": group,
        "variant": puzzle - int(part.group_indices[group]),
        "identifier": identifier if opened.identifiers is None else opened.identifiers[identifier],
        "rating": None if part.ratings is None else part.ratings[row].item(),
    }
