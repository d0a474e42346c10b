"""From a configuration to a state that can be stepped: the first one of a run, or the one of a checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from hrm_engine.config import TrainConfig, leaves
from hrm_engine.config.training import Beginning
from hrm_engine.errors import CheckpointError, DataError
from hrm_engine.kernels.device import Precision, can_compile, choose_device, choose_precision
from hrm_engine.optim.registry import make_updater
from hrm_engine.optim.weights import MasterWeights, WeightAverage, Weights
from hrm_engine.reading import told_by
from hrm_engine.store.clock import now_iso
from hrm_engine.store.paths import Workspace
from hrm_engine.training.checkpoint import Checkpoint, environment_changes, prune_checkpoints, read_checkpoint
from hrm_engine.training.state import TrainState
from hrm_engine.training.task import Model, Task, task_of


class Setup:
    """All that steps, evaluations and saves work on."""

    from_checkpoint: Path | None = None
    """Where the state was read from; None: it is a first one."""
    is_saved = False
    """Whether that is a checkpoint of the run itself, and says all: not of a schedule that has been extended since."""

    def __init__(
        self,
        config: TrainConfig,
        device: torch.device,
        precision: Precision,
        task: Task,
        model: Model,
        state: TrainState,
        messages: list[str],
    ) -> None:
        """Bring a model with fp32 weights to the device, in the types it computes in, with its optimizer.

        Args:
            messages: sentences for the user, so far.
        """
        self.config, self.device, self.precision, self.task, self.state = config, device, precision, task, state
        optim, compiled, checkpointing = config.optim, config.compute.compile, config.compute.gradient_checkpointing
        frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
        first_weights = {name: tensor.clone() for name, tensor in model.state_dict().items() if name not in frozen}
        self.model = model.to(device=device, dtype=precision.compute)
        self.weights: Weights = MasterWeights(self.model, precision.master)
        self.weights.load(first_weights)
        scaling = precision.loss_scaling
        self.updater = make_updater(self.weights, config.optim_used, loss_scaling=scaling, decay_all=task.decay_all)
        self.messages = messages + self.updater.messages
        self.average: WeightAverage | None = None
        if optim.ema_decay:
            self.average = WeightAverage(self.weights, decay=optim.ema_decay, start_step=optim.ema_start_step)
        self.checkpointing = device.type != "cpu" if checkpointing is None else checkpointing
        if compiled is None and device.type == "cuda" and not can_compile(device):
            self.messages.append(
                "torch.compile needs Triton and a C compiler, which are not here: running without it, slower"
            )
            compiled = False
        if device.type == "cuda" if compiled is None else compiled:
            self.model.compile()
        task.begin(self.model, device, state)
        for name, row in task.frozen_rows():
            self.weights.freeze(name, row)


def first_setup(config: TrainConfig, workspace: Workspace) -> Setup:
    """The state before the first step.

    Raises:
        ConfigError, DataError, BundleError: the device, base model, data or initial weights cannot be had.
    """
    device, precision, messages = hardware(config)
    task, notes = task_of(config).first(config, workspace)
    model, parent = task.first_model(workspace)
    state = TrainState(
        micro_batch_size=config.run.batch_size,
        schedule_steps=config.run.steps,
        created=now_iso(),
        parent=parent,
        datasets=[dataset_record(task)],
    )
    task.fill(state)
    return Setup(config, device, precision, task, model, state, messages + notes)


def resumed_setup(config: TrainConfig, workspace: Workspace, folder: Path, how: Beginning) -> Setup:
    """The state of a run's own checkpoint, to go on from.

    Raises:
        CheckpointError: the checkpoint cannot be read, or does not fit.
        DataError: the data has changed, and ``how`` does not allow that.
    """
    checkpoint = read_checkpoint(folder)
    device, precision, messages = hardware(config)
    state, before = checkpoint.state, checkpoint.state.schedule_steps
    messages += _set_schedule(state, config.run.steps, extend=how.extend_schedule)
    task, notes = _resumed_task(config, workspace, checkpoint.path)
    messages += notes + _check_data(task, checkpoint, how.allow_changed_data)
    messages += environment_changes(checkpoint.environment, device)
    model = task.saved_model(checkpoint.path, checkpoint.weights)
    setup = Setup(config, device, precision, task, model, state, messages)
    setup.from_checkpoint, setup.is_saved = folder, state.schedule_steps == before
    with told_by(lambda why: CheckpointError(f"{folder} holds no state that this run can go on from: {why}")):
        setup.updater.load_state_tensors(checkpoint.optimizer)
        if setup.average is not None:
            setup.average.load_state_tensors(checkpoint.average)
        task.load_state_tensors(checkpoint.task)
    # a kill can have interrupted the removal of an old one
    prune_checkpoints(folder.parent.parent, keep_last=config.run.keep_last, newest_step=state.step)
    return setup


def _resumed_task(config: TrainConfig, workspace: Workspace, folder: Path) -> tuple[Task, list[str]]:
    try:
        return task_of(config).resumed(config, workspace, folder)
    except DataError as problem:
        places = [leaf for leaf in leaves(type(config)).values() if leaf.is_place_of_data and leaf.value(config)]
        gone = [leaf.flag for leaf in places if not workspace.resolve(leaf.value(config)).exists()]
        if not gone:
            raise
        raise DataError(f"{problem} If it has moved, name its new place: --resume {gone[0]} PATH") from problem


def _set_schedule(state: TrainState, steps: int, *, extend: bool) -> list[str]:
    """Make the schedule as long as the run where that is asked for; sentences where they differ."""
    before = state.schedule_steps
    if steps == before:
        unchanged = f"--extend-schedule changes nothing: the schedule is that of {steps} steps already"
        return [f"{unchanged}; give more --steps"] if extend else []
    if not extend:
        return [f"the schedule ends at step {before}: its last learning rate stays (--extend-schedule recomputes it)"]
    state.schedule_steps = steps
    return [f"from step {state.step + 1} on the schedule is that of a run of {steps} steps; it was of {before}"]


def hardware(config: TrainConfig) -> tuple[torch.device, Precision, list[str]]:
    """The device and the precision that are to be had, and sentences for the user. Raises ConfigError."""
    compute = config.compute
    device, device_note = choose_device(compute.device, strict=compute.strict)
    precision, precision_note = choose_precision(device, amp=compute.amp, model_dtype=compute.model_dtype)
    return device, precision, [note for note in (device_note, precision_note) if note]


def dataset_record(task: Task) -> dict[str, Any]:
    """What the history of a bundle says of the data."""
    return {"fingerprint": task.facts.fingerprint, **task.facts.history}


def _check_data(task: Task, checkpoint: Checkpoint, allow_changed_data: bool) -> list[str]:
    if not checkpoint.state.datasets:
        raise CheckpointError(f"{checkpoint.path} does not say on which data it was trained")
    last, dataset = checkpoint.state.datasets[-1], task.facts.history.get("dataset")
    if checkpoint.fingerprint == task.facts.fingerprint:
        before, last["dataset"] = last.get("dataset"), dataset
        return [] if before == dataset else [f"{dataset} holds the data that was {before}: its fingerprint is the same"]
    what = f"{task.facts.source} is not what it was when this run began (its fingerprint differs)"
    if not allow_changed_data:
        raise DataError(
            f"{what}: the batch order would differ. Restore the data, or continue on the new data with "
            "--allow-changed-data"
        )
    state = checkpoint.state
    last["rows"] = state.rows
    state.datasets.append(dataset_record(task))
    return [f"{what}: continuing on the new data"]
