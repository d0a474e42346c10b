"""How a session begins: a run anew, with the checkpoint of another one, or where it stopped.

Whatever cannot begin is found before a folder is made for it, or an old one is moved away.

A fork, a run that begins with the checkpoint of another one, goes on at the step of the checkpoint: with its weights,
the state of its optimizer and moving average, its place in the data, its counters. Settings may differ from there on;
with none that does, it ends in the bits of its parent. Best evaluation and first evaluation are its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from hrm_engine.bundles.listing import parent_record
from hrm_engine.config import Config, TrainConfig, build_config, flat, kinds, leaves
from hrm_engine.config.base import given_leaves
from hrm_engine.config.training import Beginning
from hrm_engine.errors import CheckpointError, ConfigError
from hrm_engine.optim.updater import SCALE_NAMES
from hrm_engine.reading import told_by
from hrm_engine.store.clock import now_iso
from hrm_engine.store.locks import FolderLock
from hrm_engine.store.manifest import check_manifest
from hrm_engine.store.paths import MANIFEST_FILE, STATE_FILE, Workspace
from hrm_engine.store.runs import find_run
from hrm_engine.training.checkpoint import Checkpoint, newest_checkpoint, read_checkpoint
from hrm_engine.training.run_folder import claim_folder, planned_folder, resumed_config, saved_config, saved_origin
from hrm_engine.training.setup import Setup, dataset_record, first_setup, hardware, resumed_setup
from hrm_engine.training.side_files import check_side_files
from hrm_engine.training.state import TrainState
from hrm_engine.training.task import Task, task_of

C = TypeVar("C", bound=TrainConfig)

OF_THE_RULE = ("optimizer", "use_8bit_optimizer", "model_dtype")
"""Settings by which the optimizer's state is another one."""


def settle(
    kind: type[C],
    given: Mapping[str, Any],
    how: Beginning,
    workspace: Workspace,
    *,
    preset: Mapping[str, Any] | None = None,
) -> C:
    """The settings of a session.

    Args:
        given: what the user set, by leaf name. A run that goes on has its saved settings, which these must equal but
            for the few that may change; a fork has those of its checkpoint, with these on top, and a name of its own.
        preset: nested settings below these.

    Raises:
        ConfigError: values that are wrong, or that may not change.
        BundleError, CheckpointError: there is no such run or checkpoint, or it is of another kind.
    """
    if not how.has_saved_settings:
        return build_config(kind, preset=preset, overrides=given)
    given = {**given_leaves(kind, preset or {}), **given}
    if how.from_checkpoint is None:
        return resumed_config(kind, given, workspace)
    checkpoint, _ = parent_checkpoint(how.from_checkpoint, workspace)
    saved, known, run = saved_config(checkpoint, kind), leaves(kind), kinds.of(kind).run
    before = flat(saved)
    own = {name: known[name].default for name in (run.name_leaf, *run.not_inherited)}
    own |= {name: before[name] for name, leaf in known.items() if leaf.belongs_to}  # measured as its parent is
    config = build_config(kind, preset=saved.model_dump(mode="json"), overrides={**own, **given})
    after = flat(config)
    for name, why in (("model", "the tokenizer is"), ("student_init", "the weights are")):
        if name in known and before[name] != after[name]:
            raise ConfigError(
                f"{known[name].flag} {after[name]}: not with --from-checkpoint, {why} that of the checkpoint"
            )
    resolved: C = task_of(kind).in_steps(config, workspace)
    return resolved


def begin(config: TrainConfig, workspace: Workspace, how: Beginning, stack: ExitStack) -> tuple[FolderLock, Setup]:
    """The lock of a run's folder, which the ``stack`` releases, and the state that it begins or goes on with.

    Raises:
        HRMError: as :class:`~hrm_engine.training.trainer.Trainer` says; what was there before is as it was.
    """
    fresh = how.fresh or (config.trains_further and not how.resume)
    planned = planned_folder(config, workspace, resume=how.resume, fresh=fresh)
    is_taken = not how.resume and not fresh and planned.exists()  # the run will have another name
    check_side_files(config, workspace, None if is_taken else planned)
    if how.resume:
        lock, notes = claim_folder(config, workspace, resume=True, fresh=how.fresh, take_over=how.take_over)
        stack.callback(lock.release)
        setup = _resumed(config, workspace, lock.folder, how)
        setup.messages += notes
        return lock, setup
    if how.from_checkpoint is None:
        setup = first_setup(config, workspace)
    else:
        setup = forked_setup(config, workspace, how.from_checkpoint)
        parent = setup.from_checkpoint
        if fresh and parent is not None and parent.resolve().is_relative_to(planned.resolve()):
            raise ConfigError(
                f"--from-checkpoint {parent}: a fork leaves its parent as it is, and would move {planned} away; "
                f"choose another {config.run.name_flag}"
            )
    lock, notes = claim_folder(config, workspace, resume=False, fresh=fresh)
    stack.callback(lock.release)
    setup.messages += notes
    return lock, setup


def _resumed(config: TrainConfig, workspace: Workspace, run_dir: Path, how: Beginning) -> Setup:
    checkpoint, warnings = newest_checkpoint(run_dir)
    if checkpoint is not None:
        setup = resumed_setup(config, workspace, checkpoint, how)
    elif (origin := saved_origin(run_dir)) is None:
        setup = first_setup(config, workspace)
        warnings.append("--resume: no checkpoint yet, starting at step 0")
    else:
        setup = forked_setup(config, workspace, Path(origin["path"]))
        if (setup.state.parent or {}).get("sha256") != origin["sha256"]:
            raise CheckpointError(
                f"--resume: no checkpoint yet, and {origin['path']}, with which this run began, is another one now; "
                "begin again with --fresh --from-checkpoint"
            )
        warnings.append(f"--resume: no checkpoint yet, starting again from {origin['path']}")
    setup.messages = [*warnings, *setup.messages]
    return setup


def parent_checkpoint(source: Path, workspace: Workspace) -> tuple[Path, list[str]]:
    """The checkpoint that ``--from-checkpoint`` means: the folder of a whole one, or the newest of a run; and warnings.

    Raises:
        BundleError: there is no such folder. CheckpointError: it has no exact state, or a damaged one.
    """
    path = find_run(str(source), workspace)
    if (path / STATE_FILE).is_file():
        if problems := check_manifest(path):
            raise CheckpointError(
                f"--from-checkpoint {path} is damaged: {'; '.join(problems)}. Take another checkpoint of that run"
            )
        return path, []
    if (path / MANIFEST_FILE).is_file():
        raise CheckpointError(
            f"--from-checkpoint {path} has weights, and no state of an optimizer: take a folder "
            "checkpoints/step_... of that run, or begin with these weights alone by --student-init"
        )
    newest, warnings = newest_checkpoint(path)
    if newest is None:
        raise CheckpointError(
            f"--from-checkpoint {path} has no checkpoint; weights alone are what --student-init begins with"
        )
    return newest, warnings


def forked_setup(config: TrainConfig, workspace: Workspace, source: Path) -> Setup:
    """The state of a checkpoint as the first one of a new run.

    Raises:
        BundleError, CheckpointError: it cannot be read.
        ConfigError, DataError: the network or the data that is asked for does not fit its weights; nothing is left to
            train; or what every start raises.
    """
    folder, warnings = parent_checkpoint(source, workspace)
    checkpoint, saved = read_checkpoint(folder), saved_config(folder, type(config))
    step = checkpoint.state.step
    if config.run.steps <= step:
        raise ConfigError(
            f"--from-checkpoint {folder} is at step {step}, where a fork goes on: --steps {config.run.steps} leaves "
            "nothing to train; give a larger --steps"
        )
    device, precision, messages = hardware(config)
    task, notes = task_of(config).resumed(config, workspace, folder)
    model, about_network = task.forked_model(folder, checkpoint.weights, saved)
    state, about_state = _state(task, checkpoint, config, saved, workspace)
    messages = [*warnings, f"a fork of {folder}, from step {step} on", *messages, *notes, *about_network, *about_state]
    setup = Setup(config, device, precision, task, model, state, messages)
    setup.from_checkpoint = folder
    is_same_data = checkpoint.fingerprint == task.facts.fingerprint
    with told_by(lambda why: CheckpointError(f"{folder} holds no state that this run can go on from: {why}")):
        setup.messages += _load_optimizer(setup, checkpoint, saved)
        setup.messages += task.load_forked_tensors(checkpoint.task, is_same_data=is_same_data)
    return setup


def _state(
    task: Task, checkpoint: Checkpoint, config: TrainConfig, saved: TrainConfig, workspace: Workspace
) -> tuple[TrainState, list[str]]:
    """The counters of the checkpoint; what tells of evaluations is the fork's own."""
    before, messages = checkpoint.state, list[str]()
    state = replace(
        before,
        best_step=None,
        best_score=None,
        evals_since_best=0,
        first_score=None,
        is_diverged=False,
        first_eval=None,
        last_eval=None,
        full_eval=None,
        last_sample=None,
        created=now_iso(),
        parent={**parent_record(checkpoint.path), "step": before.step},
    )
    if config.run.steps != saved.run.steps:
        state.schedule_steps = config.run.steps
    if config.run.batch_size != saved.run.batch_size:
        state.micro_batch_size = config.run.batch_size
    if checkpoint.fingerprint != task.facts.fingerprint:
        state.datasets[-1]["rows"] = state.rows
        state.datasets.append(dataset_record(task))
        messages += task.other_data(saved)
    messages += task.forked_state(state, checkpoint.path, saved, workspace)
    return state, messages


def _load_optimizer(setup: Setup, checkpoint: Checkpoint, saved: Config) -> list[str]:
    """Optimizer and moving average go on where they are the same ones, else begin anew; sentences say which."""
    messages, updater, average = list[str](), setup.updater, setup.average
    before, now = flat(saved), flat(setup.config)
    changed = [name for name in OF_THE_RULE if before[name] != now[name]]
    if changed:
        flags = leaves(type(setup.config))
        what = ", ".join(f"{flags[name].flag} is {now[name]} and was {before[name]}" for name in changed)
        messages.append(f"the optimizer's state begins anew: {what}")
    else:
        tensors = dict(checkpoint.optimizer)
        if before["amp"] != now["amp"] or before["device"] != now["device"]:  # gradients may be scaled otherwise
            tensors |= {name: updater.state_tensors()[name] for name in SCALE_NAMES}
        updater.load_state_tensors(tensors)
    if average is not None and checkpoint.average:
        average.load_state_tensors(checkpoint.average)
    elif average is not None:
        messages.append("the moving average begins with the weights of the checkpoint")
    elif checkpoint.average:
        messages.append("the moving average of the checkpoint is left out (--ema-decay 0)")
    return messages
