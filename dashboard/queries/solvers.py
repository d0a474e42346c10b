"""Puzzle solvers of a workspace and puzzles for them; no model is loaded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dashboard.queries.attachments import Attachments, Version
from dashboard.queries.fields import text_of, whole_number
from dashboard.queries.filecache import FileCache
from hrm_engine.config.core import MAX_SEGMENTS
from hrm_engine.errors import DataError, HRMError
from hrm_engine.store.files import readable_json
from hrm_engine.store.paths import ARGS_FILE, CONFIG_FILE, Workspace
from hrm_engine.store.runs import printable, run_id

if TYPE_CHECKING:
    from hrm_engine.data.puzzles.board import Board, Puzzle
    from hrm_engine.data.puzzles.format import PuzzleDataset

_KEPT = 512
_LARGEST_SIDE = 4096
DEFAULT_SEGMENTS = 16


@dataclass(frozen=True)
class Solver:
    """A bundle that solves puzzles, as its small files describe it. No weights are read for this."""

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


class Solvers:
    """The solvers of one workspace; their files are read once for each state of them. Safe to share."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        self._attachments = Attachments(workspace)
        self._files: FileCache[dict[str, Any]] = FileCache(readable_json, 3 * _KEPT)

    def all(self, run_dirs: Sequence[Path]) -> list[Solver]:
        """Every complete bundle with a puzzle card, the one saved last first."""
        solvers = [solver for path in run_dirs if (solver := self.of(path)) is not None]
        return sorted(solvers, key=lambda solver: (-solver.version[0][1], solver.id))

    def of(self, run_dir: Path) -> Solver | None:
        """The solver in a run folder; None if it is another kind of run, or has not been saved yet."""
        from hrm_engine.data.puzzles.kinds import BOARDS

        version = self._attachments.version(run_dir)
        card = self._files.get(run_dir / "puzzle.json") or {}
        height, width = whole_number(card.get("height"), _LARGEST_SIDE), whole_number(card.get("width"), _LARGEST_SIDE)
        if version is None or height is None or width is None or text_of(card.get("puzzle")) not in BOARDS:
            return None
        config = self._files.get(run_dir / CONFIG_FILE) or {}
        return Solver(
            id=run_id(run_dir, self.workspace),
            path=run_dir,
            kind=card["puzzle"],
            height=height,
            width=width,
            segments=whole_number(config.get("halt_max_steps"), MAX_SEGMENTS) or DEFAULT_SEGMENTS,
            dataset=self._dataset(run_dir),
            is_proxy=card.get("is_proxy") is True,
            version=version,
        )

    def _dataset(self, run_dir: Path) -> Path | None:
        parameters = (self._files.get(run_dir / ARGS_FILE) or {}).get("parameters")
        data = parameters.get("data") if isinstance(parameters, dict) else None
        named = data.get("data_path") if isinstance(data, dict) else None
        if not isinstance(named, str) or not named:
            return None
        try:
            return self.workspace.resolve(named)
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
