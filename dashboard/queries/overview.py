"""One run at this moment: its state, its latest numbers, and the time left."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dashboard.queries.fields import numbers_of, step_of
from hrm_engine.config import kinds
from hrm_engine.config.kinds import Kind
from hrm_engine.store.files import readable_json
from hrm_engine.store.manifest import check_entries, has_checkpoint
from hrm_engine.store.paths import METADATA_FILE
from hrm_engine.store.runs import printable
from hrm_engine.store.status import live_state, read_status

if TYPE_CHECKING:
    from dashboard.queries.folder import Parameters
    from dashboard.queries.metrics import RunMetrics

_SENTENCES = {
    "running": "Training.",
    "finished": "The training has reached its end.",
    "diverged": "The training has reached its end, and its validation is worse than at the start.",
    "stopped": "The training was stopped before its end.",
    "failed": "The training ended with an error; the log says more.",
    "dead": "The training says that it runs, but its process is gone.",
    "unknown": "There is no readable status.json, so the state is not known.",
}


_RESUMED = ("stopped", "failed", "dead")


def kind_of_run(parameters: Parameters, *rows: Mapping[str, Any]) -> Kind | None:
    """The kind of a run, as its parameters record it, and where these are lost as its rows tell it."""
    if (recorded := parameters.value("kind")) is not None:
        return kinds.named(recorded)
    return next((kind for row in rows if (kind := kinds.of_row(row)) is not None), None)


def has_experts(parameters: Parameters) -> bool:
    """Whether the parameters of a run ask for experts in the place of dense layers."""
    return parameters.value("use_moe") is True


@dataclass(frozen=True)
class Overview:
    """The header of the page of a run; None is not known."""

    kind: Kind | None
    state: str
    sentence: str
    step: int | None
    planned_steps: int | None
    train: Mapping[str, float | None]
    """Numbers of the last training row."""
    evaluated: Mapping[str, float | None]
    """Numbers of the last evaluation."""
    best: Mapping[str, float | None]
    """The same of the best one, which may be the last one."""
    eta_s: float | None
    duration_s: float | None
    notes: tuple[str, ...]

    @property
    def gain(self) -> float | None:
        """Validation loss minus the unigram model's; negative is good."""
        loss, unigram = self.evaluated.get("loss"), self.evaluated.get("unigram_loss")
        return None if loss is None or unigram is None else loss - unigram


def overview(run_dir: Path, metrics: RunMetrics, parameters: Parameters) -> Overview:
    """The overview of a run as its files are now."""
    metrics.refresh()
    status = read_status(run_dir)
    state = live_state(run_dir)
    train, (evaluated, best) = metrics.latest("train"), metrics.last_and_best()
    step = step_of(train.get("step"))
    if status is not None:
        step = max(status.step, step or 0)
    planned = step_of(parameters.value("steps"))
    pace = metrics.step_seconds()
    left = None if planned is None or step is None or pace is None else max(planned - step, 0.0) * pace
    message = printable(status.message) if status is not None else ""
    return Overview(
        kind=kind_of_run(parameters, metrics.latest("start"), evaluated),
        state=state,
        # What a dead run last said of itself is no longer true; "finished" beside "finished" says nothing.
        sentence=message if message not in ("", state) and state != "dead" else _sentence(run_dir, state),
        step=step,
        planned_steps=planned,
        train=numbers_of(train),
        evaluated=numbers_of(evaluated),
        best=numbers_of(best),
        eta_s=left,
        duration_s=metrics.duration_s(),
        notes=(*metrics.notes(), *_bundle_notes(run_dir, state)),
    )


def _sentence(run_dir: Path, state: str) -> str:
    """The sentence of a state; of a training that can go on, from where."""
    if state not in _RESUMED:
        return _SENTENCES[state]
    if has_checkpoint(run_dir):
        return f"{_SENTENCES[state]} --resume continues from the last checkpoint."
    return f"{_SENTENCES[state]} There is no checkpoint yet: --resume begins it again."


def _bundle_notes(run_dir: Path, state: str) -> tuple[str, ...]:
    """A note if the files of the bundle are not as its metadata describes them; only sizes are compared."""
    path = run_dir / METADATA_FILE
    if state == "running" or not path.is_file():
        return ()
    entries = readable_json(path).get("files")
    if not check_entries(run_dir, entries, hashes=False):
        return ()
    cure = " --resume builds it again from the newest valid checkpoint." if has_checkpoint(run_dir) else ""
    return (f"The bundle is not complete: its last save was interrupted, or a file was changed since.{cure}",)
