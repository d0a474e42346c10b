"""Bundles that the Playground can use, as their small files describe them: text models, and solvers with puzzles.

No weights are read for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dashboard.queries.attachments import Version, attached, version
from dashboard.queries.fields import text_of, whole_number
from dashboard.queries.filecache import Signature, cached_json, signature
from hrm_engine.config import kinds
from hrm_engine.config.core import MAX_SEGMENTS
from hrm_engine.errors import DataError, HRMError
from hrm_engine.store.paths import ARGS_FILE, CONFIG_FILE, METADATA_FILE, Workspace
from hrm_engine.store.runs import printable, run_id

if TYPE_CHECKING:
    from hrm_engine.data.puzzles.board import Board, Puzzle
    from hrm_engine.data.puzzles.format import PuzzleDataset

_LARGEST_SIDE = 4096
DEFAULT_SEGMENTS = 16


@dataclass(frozen=True)
class Brain:
    """A bundle that writes text."""

    id: str
    path: Path
    arch: str
    segments: int
    """Segments at most in its training; with one there is no halting head."""
    context: int
    """Tokens of prompt and text together."""
    experts: tuple[str, ...]
    """Ids of attached experts."""
    version: Signature
    """Changes when the bundle is saved again."""


def brains(run_dirs: Sequence[Path], workspace: Workspace) -> list[Brain]:
    """Every complete bundle of text, the one saved last first."""
    bundles = [brain for path in run_dirs if (brain := brain_of(path, workspace)) is not None]
    return sorted(bundles, key=lambda brain: (-brain.version[1], brain.id))


def brain_of(run_dir: Path, workspace: Workspace) -> Brain | None:
    """The text model in a run folder; None if it is another kind of run, or has not been saved yet."""
    saved = signature(run_dir / METADATA_FILE)
    config = cached_json(run_dir / CONFIG_FILE)
    segments = whole_number(config.get("halt_max_steps"), MAX_SEGMENTS)
    context = whole_number(config.get("max_seq_len"), 1 << 24) or 0
    if saved is None or kinds.named(config.get("kind")) is not kinds.TEXT or not segments or context < 2:
        return None
    return Brain(
        id=run_id(run_dir, workspace),
        path=run_dir,
        arch=printable(str(config.get("arch")))[:40],
        segments=segments,
        context=context,
        experts=tuple(sorted({entry.expert_id for entry in attached(run_dir)})),
        version=saved,
    )


@dataclass(frozen=True)
class Solver:
    """A bundle that solves puzzles."""

    id: str
    path: Path
    kind: str
    """Of its boards."""
    height: int
    width: int
    segments: int
    """Segments at most in its training."""
    dataset: Path | None
    """The dataset it was trained on, if its parameters name one."""
    is_proxy: bool
    version: Version

    @property
    def board(self) -> Board:
        """The object of its board kind."""
        from hrm_engine.data.puzzles.kinds import BOARDS

        return BOARDS[self.kind]

    @property
    def solves(self) -> str:
        """Size and kind of its boards, in words."""
        return f"{self.height} x {self.width} {self.board.title}"


def solvers(run_dirs: Sequence[Path], workspace: Workspace) -> list[Solver]:
    """Every complete bundle with a puzzle card, the one saved last first."""
    bundles = [solver for path in run_dirs if (solver := solver_of(path, workspace)) is not None]
    return sorted(bundles, key=lambda solver: (-solver.version[0][1], solver.id))


def solver_of(run_dir: Path, workspace: Workspace) -> Solver | None:
    """The solver in a run folder; None if it is another kind of run, or has not been saved yet."""
    from hrm_engine.data.puzzles.kinds import BOARDS

    saved, card = version(run_dir, workspace), cached_json(run_dir / "puzzle.json")
    height, width = (whole_number(card.get(name), _LARGEST_SIDE) for name in ("height", "width"))
    if saved is None or height is None or width is None or text_of(card.get("puzzle")) not in BOARDS:
        return None
    segments = cached_json(run_dir / CONFIG_FILE).get("halt_max_steps")
    return Solver(
        id=run_id(run_dir, workspace),
        path=run_dir,
        kind=card["puzzle"],
        height=height,
        width=width,
        segments=whole_number(segments, MAX_SEGMENTS) or DEFAULT_SEGMENTS,
        dataset=_dataset(run_dir, workspace),
        is_proxy=card.get("is_proxy") is True,
        version=saved,
    )


def _dataset(run_dir: Path, workspace: Workspace) -> Path | None:
    parameters = cached_json(run_dir / ARGS_FILE).get("parameters")
    data = parameters.get("data") if isinstance(parameters, dict) else None
    name = data.get("data_path") if isinstance(data, dict) else None
    try:
        return workspace.resolve(name) if isinstance(name, str) and name else None
    except HRMError:
        return None


class TestSplit:
    """The test split of a dataset, opened without reading its arrays."""

    __test__ = False  # no test class of pytest

    def __init__(self, folder: Path) -> None:
        """Raises DataError: there is none, or it is damaged."""
        from hrm_engine.data.puzzles.format import open_dataset

        self._dataset: PuzzleDataset = open_dataset(folder, "test", check_tokens=False)
        about = self._dataset.about
        self.board, self.height, self.width = about.board, about.height, about.width
        self.num_rows = self._dataset.num_rows
        self.tasks = self._tasks() if self.board.has_tasks else {}

    def puzzle(self, index: int) -> Puzzle:
        """Row ``index``. Raises DataError if there is no such row."""
        return self._dataset.puzzle(index)

    def _tasks(self) -> dict[str, list[int]]:
        """Rows of each task as it is, without its augmentations; empty if the dataset has no names."""
        from hrm_engine.data.puzzles.arc.augment import parse_identifier

        names, tasks = self._dataset.identifiers or [], dict[str, list[int]]()
        plain = {number for number, name in enumerate(names) if parse_identifier(name)[0] == name}
        for row, identifier in enumerate(self._dataset.row_identifiers.tolist()):
            if identifier in plain:
                tasks.setdefault(printable(names[identifier]), []).append(row)
        return dict(sorted(tasks.items()))


def open_test_split(solver: Solver) -> TestSplit:
    """The puzzles that a solver was not trained on. Raises DataError whose message says what can be done instead."""
    if solver.dataset is None:
        raise DataError("its parameters name no dataset")
    split = TestSplit(solver.dataset)
    if (split.board, split.height, split.width) != (solver.board, solver.height, solver.width):
        raise DataError(
            f"{solver.dataset} now holds boards of {split.height} x {split.width} ({split.board.kind}), and this "
            f"solver takes {solver.height} x {solver.width} ({solver.kind})"
        )
    return split
