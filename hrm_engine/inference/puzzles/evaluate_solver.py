"""Evaluation of a finished solver on the test split of its own dataset, or of another one with the same boards."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hrm_engine.bundles.bundle import PuzzleBundle, checked
from hrm_engine.config.keywords import takes
from hrm_engine.config.solving import EffortConfig, PuzzleTestConfig
from hrm_engine.data.puzzles.format import PuzzleDataset, open_dataset
from hrm_engine.errors import DataError
from hrm_engine.inference.puzzles.arc import ArcScore, write_score
from hrm_engine.inference.puzzles.given import dataset_folder
from hrm_engine.inference.puzzles.held_out import HeldOut, Report
from hrm_engine.inference.puzzles.solve import Solutions, solve
from hrm_engine.models.slots import Objective
from hrm_engine.store.files import ensure_writable, finite
from hrm_engine.store.paths import Workspace

_NAMES_SHOWN = 3


@dataclass(frozen=True, eq=False)
class WithEffort:
    """The answers of several starts, or of one that has to be surer than usual."""

    exact_accuracy: float
    cell_accuracy: float
    segments_mean: float
    """Of all starts of a puzzle together, restarts included."""
    solved_by_verifier: float
    """Share of the puzzles that a restart answered after the rules had refused: not the solver's own achievement."""
    score: ArcScore | None


@dataclass(frozen=True, eq=False)
class SolverEvaluation:
    """An evaluation of a bundle: at every depth, where it halts by itself, and with more effort if requested."""

    source: str
    """The dataset."""
    messages: list[str]
    report: Report
    with_effort: WithEffort | None

    def write_files(self, folder: Path) -> None:
        """Write a line for each row, and for ARC the results and the submission, those of more effort if there was any.

        Raises:
            StorageError: the folder cannot be written.
        """
        ensure_writable(folder)
        self.report.write_files(folder)
        if self.with_effort is not None and self.with_effort.score is not None:
            write_score(self.with_effort.score, folder)

    def as_json(self) -> dict[str, Any]:
        """Plain values; numbers that are not finite are null."""
        effort = None
        if self.with_effort is not None:
            effort = {name: value for name, value in vars(self.with_effort).items() if name != "score"}
            if self.with_effort.score is not None:
                effort |= {f"pass_at_{k}": share for k, share in self.with_effort.score.pass_at.items()}
        content: dict[str, Any] = {"dataset": self.source, "messages": self.messages, **self.report.fields}
        content |= {"by_difficulty": self.report.by_difficulty(), "with_effort": effort}
        plain: dict[str, Any] = finite(content)
        return plain


@takes(PuzzleTestConfig)
def evaluate_solver(
    bundle: PuzzleBundle, *, workspace: Workspace | None = None, settings: PuzzleTestConfig
) -> SolverEvaluation:
    """Measure a solver as its training does, beside answers that need no model.

    Further starts, a choice among them, a halting probability that it needs, and restarts are measured beside that.
    The puzzles of an ARC dataset are the solver's where their names are.

    Raises:
        BundleError: the bundle is no solver.
        DataError: no dataset there, one without a test split or a puzzle, of other boards than the solver's, or with
            puzzles whose embedding it has not learned.
        ConfigError: effort that this kind of board does not allow.
    """
    bundle, workspace = checked(bundle, PuzzleBundle), workspace or Workspace.find()
    named = settings.data_path
    folder = dataset_folder(bundle, workspace) if named is None else workspace.resolve(named)
    if not folder.is_dir():
        raise DataError(f"{folder}: no such dataset; name the folder that has its test split with --data-path")
    test_set = open_dataset(folder, "test")
    _check_fits(test_set, bundle)
    messages = []
    train_set = open_dataset(folder, "train") if (folder / "train").is_dir() else None
    if train_set is None:
        messages.append("the dataset has no train split: there is no baseline of the most frequent answers")
    if test_set.about.is_proxy:
        messages.append("this dataset stands in for a published one: results are not comparable with published ones")
    identifiers, note = _own_identifiers(test_set, bundle)
    if note:
        messages.append(note)
    held_out = HeldOut(train_set, test_set, settings.eval_rows, identifiers=identifiers)
    card, effort = bundle.card, settings.effort
    report = held_out.evaluate(
        bundle.model,
        Objective(card.loss or "softmax", card.label_smoothing, ignore_label=test_set.info.ignore_label_id),
        batch_size=settings.batch_size,
        num_segments=effort.segments or bundle.config.halt_max_steps,
    )
    more = None
    if effort.model_copy(update={"segments": None}) != EffortConfig():
        given = None if not bundle.config.prefix_tokens and not card.board.has_tasks else held_out.identifiers
        boards = held_out.inputs.astype(np.int64)
        more = _scored(
            held_out, solve(bundle, boards, identifiers=given, batch_size=settings.batch_size, settings=effort)
        )
    return SolverEvaluation(str(folder), messages, report, more)


def _scored(held_out: HeldOut, solutions: Solutions) -> WithEffort:
    exact, cells = held_out.accuracies(solutions.answers)
    return WithEffort(
        exact,
        cells,
        held_out.mean(solutions.segments + solutions.restart_segments),
        held_out.mean(solutions.solved_by_verifier),
        held_out.votes(solutions.answers, solutions.confidence),
    )


def _check_fits(dataset: PuzzleDataset, bundle: PuzzleBundle) -> None:
    """Raise DataError where a dataset has other boards than the solver."""
    about, info, card = dataset.about, dataset.info, bundle.card
    facts = [
        (about.kind, card.puzzle),
        (f"{about.height} x {about.width} cells", f"{card.height} x {card.width} cells"),
        (f"{info.vocab_size} tokens", f"{card.vocab_size} tokens"),
    ]
    if wrong := [pair for pair in facts if pair[0] != pair[1]]:
        has, own = (", ".join(words) for words in zip(*wrong, strict=True))
        raise DataError(f"{dataset.folder} has boards of {has}; those of {bundle.path.name} are of {own}")


def _own_identifiers(dataset: PuzzleDataset, bundle: PuzzleBundle) -> tuple[npt.NDArray[np.int64] | None, str]:
    """The solver's identifier of each of the dataset's, None where they are the same, and a note on them."""
    known, used, folder = bundle.card.identifiers, np.unique(dataset.row_identifiers), dataset.folder
    if not bundle.config.prefix_tokens or tuple(dataset.identifiers or ()) == (known or ()):
        return None, ""
    if dataset.identifiers is None or known is None:
        if used.size and used.max() >= bundle.config.num_identifiers:
            raise DataError(
                f"{folder} has puzzle identifiers up to {used.max()}, {bundle.path.name} has learned "
                f"{bundle.config.num_identifiers}: it was trained on another dataset"
            )
        if bundle.card.board.has_tasks:
            return None, "identifiers are taken by their numbers: not both, dataset and solver, name them"
        return None, ""
    place = {name: number for number, name in enumerate(known)}
    if unknown := [name for name in (dataset.identifiers[number] for number in used.tolist()) if name not in place]:
        shown = ", ".join(unknown[:_NAMES_SHOWN]) + (", ..." if len(unknown) > _NAMES_SHOWN else "")
        raise DataError(
            f"{folder} has {len(unknown):,} puzzles that {bundle.path.name} has learned no embedding for ({shown}): a "
            "solver of named puzzles knows those of its own dataset alone"
        )
    return np.array([place.get(name, 0) for name in dataset.identifiers], dtype=np.int64), ""
