"""A whole training run: the outer loop."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hrm_engine.config import TrainConfig, flat, leaves
from hrm_engine.config.keywords import takes
from hrm_engine.config.training import Beginning
from hrm_engine.store.files import readable_json
from hrm_engine.store.paths import METADATA_FILE, Workspace
from hrm_engine.store.status import read_status
from hrm_engine.training.ended import is_done
from hrm_engine.training.journal import Observer
from hrm_engine.training.opening import settle
from hrm_engine.training.run_folder import existing_run
from hrm_engine.training.trainer import Trainer


@dataclass(frozen=True)
class TrainResult:
    """How a run ended and what it left."""

    kind: str
    run_dir: Path
    state: str
    step: int
    exit_code: int
    message: str
    first_eval: dict[str, Any] | None
    last_eval: dict[str, Any] | None
    best_eval: dict[str, Any] | None
    """Of the weights that the bundle holds, with its step; None where it holds the last ones."""
    sample: str | None


@takes(Beginning)
def train(
    config: TrainConfig,
    *,
    settings: Beginning,
    given: Mapping[str, Any] | None = None,
    command_line: Sequence[str] | None = None,
    workspace: Workspace | None = None,
    observer: Observer | None = None,
) -> TrainResult:
    """Train to ``config.run.steps``, evaluating and saving on the way.

    Of a fork the settings of its checkpoint hold where ``given`` says nothing else.

    Args:
        given: the leaf values that must equal the saved ones on resuming, and that differ from those of the checkpoint
            in a fork; by default all that are not defaults.
        observer: is handed every metrics row as it is written.

    Raises:
        HRMError: its subclasses and their exit codes are in :mod:`hrm_engine.errors`.
    """
    workspace = workspace or Workspace.find()
    how = settings
    if how.has_saved_settings:
        if given is None:
            known = leaves(type(config))
            given = {name: value for name, value in flat(config).items() if value != known[name].default}
        place = {config.run.name_leaf: config.run.name, "bundle_dir": config.run.bundle_dir} if how.resume else {}
        config = settle(type(config), {**place, **given}, how, workspace)
    return drive(Trainer(config, how, command_line=command_line, workspace=workspace, observer=observer))


def drive(trainer: Trainer) -> TrainResult:
    """Train to the last step, evaluating and saving on the way. Raises as :func:`train`."""
    run, steps = trainer.config.run, trainer.total_steps
    eval_every, save_every = trainer.config.eval_every or steps, run.save_every or steps
    if (result := _done_before(trainer)) is not None:
        return result
    with trainer:
        stop = trainer.check_stop()
        if stop is None and trainer.state.first_eval is None:
            trainer.evaluate()
        while stop is None and trainer.step_number < steps:
            step = trainer.step().step
            stop = trainer.check_stop()
            # No evaluation because of a stop: the interrupted and the uninterrupted run must leave the same rows.
            if step % eval_every == 0 or step == steps:
                trainer.evaluate()
            if step % save_every == 0:
                trainer.save()
        trainer.finish(stop)
    state, outcome = trainer.state, trainer.outcome
    return TrainResult(
        kind=trainer.config.kind,
        run_dir=trainer.run_dir,
        state=outcome.state,
        step=state.step,
        exit_code=outcome.exit_code,
        message=outcome.message,
        first_eval=state.first_eval,
        last_eval=state.last_eval,
        best_eval=trainer.keeper.best_evaluation(),
        sample=state.last_sample,
    )


def _done_before(trainer: Trainer) -> TrainResult | None:
    """The result of a run that is to go on and has nothing left to do: nothing in its folder changes."""
    run = trainer.config.run
    if not trainer.how.resume or trainer.how.fresh:
        return None
    run_dir = existing_run(run.name, trainer.workspace.resolve(run.bundle_dir), run)
    if not is_done(run_dir, run.steps):
        return None
    metadata, status = readable_json(run_dir / METADATA_FILE), read_status(run_dir)
    assert status is not None
    before = "" if status.message == status.state else f"{status.message}. "
    return TrainResult(
        kind=trainer.config.kind,
        run_dir=run_dir,
        state=status.state,
        step=status.step,
        exit_code=0,
        message=f"{before}Nothing is left to do; --resume with more --steps trains it further",
        first_eval=metadata.get("first_metrics"),
        last_eval=metadata.get("last_metrics"),
        best_eval=metadata.get("metrics"),
        sample=None,
    )
