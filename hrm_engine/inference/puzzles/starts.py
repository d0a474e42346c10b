"""Several looks at one board: symmetries and augmentations that the model sees, and the exact way back.

Start 0 is always the board as it was given. Which symmetry a later start sees depends on its number alone.

Shapes: n boards, C cells.
"""

from __future__ import annotations

from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

from hrm_engine.bundles import PuzzleBundle
from hrm_engine.data.puzzles.arc.augment import Augmentation, parse_identifier
from hrm_engine.data.puzzles.arc.grids import NUM_CELLS, crop, encode
from hrm_engine.data.puzzles.dihedral import NUM_DIHEDRAL, dihedral_cells
from hrm_engine.data.puzzles.sudoku import symmetries
from hrm_engine.errors import ConfigError
from hrm_engine.inference.puzzles.thinking import Boards

StartsFrom = Literal["symmetries", "noise"]
Numbers = npt.NDArray[np.int64]

_SEED = 0


class Looks(Protocol):
    """What the starts of a board look at."""

    def look(self, boards: Boards, identifiers: Numbers, starts: Numbers) -> tuple[Boards, Numbers]:
        """Boards (n, C) and identifiers (n,) as the starts (n,) see them."""
        ...

    def undo(self, answers: Boards, identifiers: Numbers, starts: Numbers) -> Boards:
        """Answers (n, C) of those starts as answers to the boards as they were given."""
        ...


class SameBoard:
    """Every start sees the board as it is; starts differ by their first states."""

    def look(self, boards: Boards, identifiers: Numbers, starts: Numbers) -> tuple[Boards, Numbers]:
        """The boards themselves."""
        return boards, identifiers

    def undo(self, answers: Boards, identifiers: Numbers, starts: Numbers) -> Boards:
        """The answers themselves."""
        return answers


class SymmetricBoards:
    """Each start sees the board under a symmetry of Sudoku or of the square (maze)."""

    def __init__(self, kind: str, side: int, vocab_size: int, num_starts: int) -> None:
        numbers = np.arange(num_starts)
        tokens = np.arange(max(vocab_size, side + 2), dtype=np.uint8)
        digits = np.tile(tokens, (num_starts, 1))
        if kind == "sudoku":
            drawn = _distinct(side, num_starts)
            cells, digits[:, : side + 2] = drawn.cells, drawn.digits
        else:
            cells = dihedral_cells(side)[numbers]
        self._there = symmetries.Symmetries(cells, digits)
        self._back = self._there.inverse()

    def look(self, boards: Boards, identifiers: Numbers, starts: Numbers) -> tuple[Boards, Numbers]:
        """The boards under the symmetries of the starts."""
        return _chosen(self._there, starts).apply(boards), identifiers

    def undo(self, answers: Boards, identifiers: Numbers, starts: Numbers) -> Boards:
        """The answers under their inverses."""
        return _chosen(self._back, starts).apply(answers)


class AugmentedTasks:
    """Each start of an ARC board is one of the augmentations under which the model was trained on its task."""

    def __init__(self, names: tuple[str, ...], identifiers: Numbers, num_starts: int) -> None:
        parsed = [parse_identifier(name) for name in names]
        wanted = {parsed[identifier][0]: int(identifier) for identifier in np.unique(identifiers)}
        found: dict[str, list[tuple[int, Augmentation]]] = {task: [] for task in wanted}
        for number, (task, augmentation) in enumerate(parsed):
            if task in found:
                found[task].append((number, augmentation))
        self._variants: dict[int, list[tuple[int, Augmentation]]] = {}
        for identifier in np.unique(identifiers).tolist():
            task, own = parsed[identifier]
            others = [variant for variant in found[task] if variant[0] != identifier]
            if len(others) + 1 < num_starts:
                raise ConfigError(
                    f"{num_starts} starts: task {task} was trained on in {len(others) + 1} variants, its augmentations "
                    "among them; ask for fewer starts, or for starts from noise"
                )
            self._variants[identifier] = [(identifier, own), *others[: num_starts - 1]]

    def look(self, boards: Boards, identifiers: Numbers, starts: Numbers) -> tuple[Boards, Numbers]:
        """The grids under the augmentations of the starts, at the upper left corner, and their identifiers."""
        seen, numbers = np.array(boards, dtype=np.uint8), identifiers.copy()
        for row in np.flatnonzero(starts):
            own, other = self._pair(identifiers[row], starts[row])
            seen[row] = encode(other[1].apply(own[1].undo(crop(boards[row]))))
            numbers[row] = other[0]
        return seen, numbers

    def undo(self, answers: Boards, identifiers: Numbers, starts: Numbers) -> Boards:
        """The grids at the upper left corner, brought back; what lies around them is as it should be."""
        found = np.zeros((len(answers), NUM_CELLS), dtype=np.uint8)
        for row, answer in enumerate(answers):
            own, other = self._pair(identifiers[row], starts[row])
            grid = crop(answer)
            if grid.size:
                found[row] = encode(np.ascontiguousarray(own[1].apply(other[1].undo(grid))))
        return found

    def _pair(self, identifier: np.int64, start: np.int64) -> tuple[tuple[int, Augmentation], tuple[int, Augmentation]]:
        variants = self._variants[int(identifier)]
        return variants[0], variants[int(start)]


def looks(bundle: PuzzleBundle, identifiers: Numbers, starts_from: StartsFrom, num_starts: int) -> Looks:
    """What ``num_starts`` starts of boards with these identifiers (N,) look at.

    Raises:
        ConfigError: symmetries of a kind of board that has none, or more variants of an ARC task than there are.
    """
    card = bundle.card
    if num_starts == 1 or starts_from == "noise":
        return SameBoard()
    if card.puzzle in ("sudoku", "maze") and card.height == card.width:
        if card.puzzle == "maze" and num_starts > NUM_DIHEDRAL:
            raise ConfigError(
                f"{num_starts} starts, restarts included: a maze has {NUM_DIHEDRAL} symmetries; ask for fewer starts, "
                "or for starts from noise"
            )
        return SymmetricBoards(card.puzzle, card.height, card.vocab_size, num_starts)
    if card.puzzle == "arc" and card.identifiers is not None:
        return AugmentedTasks(card.identifiers, identifiers, num_starts)
    raise ConfigError(
        f"starts from symmetries are known for Sudoku, square mazes and ARC tasks with names, not for the "
        f"{card.puzzle} boards of {bundle.path.name}: use --starts-from noise"
    )


def _distinct(side: int, count: int) -> symmetries.Symmetries:
    """The identity and the first symmetries drawn that differ from all before. Raises ConfigError for too many."""
    drawn = symmetries.draw(side, seed=_SEED, row_numbers=np.arange(2 * count + 16), name="start-symmetry")
    cells, digits = drawn.cells.copy(), drawn.digits.copy()
    cells[0], digits[0] = np.arange(side * side), np.arange(side + 2)
    _, first = np.unique(np.concatenate([cells, digits], axis=1), axis=0, return_index=True)
    if len(first) < count:
        raise ConfigError(
            f"{count} starts, restarts included: only {len(first)} different symmetries were found; ask for fewer "
            "starts, or for starts from noise"
        )
    kept = np.sort(first)[:count]
    return symmetries.Symmetries(cells[kept], digits[kept])


def _chosen(drawn: symmetries.Symmetries, starts: Numbers) -> symmetries.Symmetries:
    return symmetries.Symmetries(drawn.cells[starts], drawn.digits[starts])
