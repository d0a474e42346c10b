"""ARC grids as a kind of board. Tokens: 0 padding, 1 end of the grid, colour + 2."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np

from hrm_engine.data.puzzles.arc.augment import Augmentation, parse_identifier
from hrm_engine.data.puzzles.arc.grids import END, FIRST_COLOUR, NUM_CELLS, VOCAB_SIZE, crop, encode
from hrm_engine.data.puzzles.board import Board, Tokens
from hrm_engine.data.puzzles.symmetries import Numbers, Rows, Views
from hrm_engine.errors import ConfigError

# The ten colours in which ARC grids are usually shown.
ARC_COLOURS = (
    "#000000", "#0074d9", "#ff4136", "#2ecc40", "#ffdc00", "#aaaaaa", "#f012be", "#ff851b", "#7fdbff", "#870c25",
)  # fmt: skip


class ArcGrid(Board):
    """A grid of colours in the corner of a board of 30 x 30. No rule tells whether an answer is right."""

    kind, title, flag = "arc", "ARC grid", "--arc"
    characters = "?|0123456789"
    colours: Mapping[int, str] = MappingProxyType(dict(enumerate(ARC_COLOURS, start=FIRST_COLOUR)))
    shaded = END
    has_tasks = True

    def fits(self, vocab_size: int, num_cells: int) -> bool:
        return (vocab_size, num_cells) == (VOCAB_SIZE, NUM_CELLS)

    def is_right(self, answer: Tokens, expected: Tokens) -> bool:
        """Whether both hold the same grid, whatever surrounds it."""
        return np.array_equal(crop(answer), crop(expected))

    def task_views(self, names: Sequence[str], identifiers: Numbers, count: int) -> Views:
        return TaskViews(names, identifiers, count)


class TaskViews(Views):
    """Each start sees one of the augmentations under which the model was trained on the task of the board."""

    def __init__(self, names: Sequence[str], identifiers: Numbers, count: int) -> None:
        parsed = [parse_identifier(name) for name in names]
        numbers = np.unique(identifiers).tolist()
        variants: dict[str, list[tuple[int, Augmentation]]] = {parsed[number][0]: [] for number in numbers}
        for number, (task, augmentation) in enumerate(parsed):
            if task in variants:
                variants[task].append((number, augmentation))
        self._variants: dict[int, list[tuple[int, Augmentation]]] = {}
        for identifier in numbers:
            task, own = parsed[identifier]
            others = [variant for variant in variants[task] if variant[0] != identifier]
            if len(others) + 1 < count:
                raise ConfigError(
                    f"{count} starts: task {task} was trained on in {len(others) + 1} variants, its augmentations "
                    "among them; ask for fewer starts, or for starts from noise"
                )
            self._variants[identifier] = [(identifier, own), *others[: count - 1]]

    def look(self, boards: Rows, identifiers: Numbers, starts: Numbers) -> tuple[Rows, Numbers]:
        """The grids under the augmentations of the starts, at the upper left corner, and their identifiers."""
        seen, numbers = np.array(boards, dtype=np.uint8), identifiers.copy()
        for row in np.flatnonzero(starts):
            (_, own), (number, other) = self._pair(identifiers[row], starts[row])
            seen[row] = encode(other.apply(own.undo(crop(boards[row]))))
            numbers[row] = number
        return seen, numbers

    def undo(self, answers: Rows, identifiers: Numbers, starts: Numbers) -> Rows:
        """The grids at the upper left corner, brought back; what surrounds them is as it should be."""
        restored = np.zeros((len(answers), NUM_CELLS), dtype=np.uint8)
        for row, answer in enumerate(answers):
            (_, own), (_, other) = self._pair(identifiers[row], starts[row])
            grid = crop(answer)
            if grid.size:
                restored[row] = encode(np.ascontiguousarray(own.apply(other.undo(grid))))
        return restored

    def _pair(self, identifier: np.int64, start: np.int64) -> tuple[tuple[int, Augmentation], tuple[int, Augmentation]]:
        variants = self._variants[int(identifier)]
        return variants[0], variants[int(start)]
