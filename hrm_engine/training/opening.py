"""How a session begins: a run anew, with the checkpoint of another one, or where it stopped; and what it says first.

Whatever cannot begin is found before a folder is made for it, or an old one is moved away.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import torch

from hrm_engine.config import TrainConfig
from hrm_engine.errors import CheckpointError, ConfigError
from hrm_engine.store.paths import Workspace
from hrm_engine.training.checkpoint import newest_checkpoint
from hrm_engine.training.fork import forked_setup
from hrm_engine.training.journal import Journal
from hrm_engine.training.run_folder import RunFolder, claim_folder, planned_folder, saved_origin, write_args
from hrm_engine.training.setup import Setup, first_setup, resumed_setup


@dataclass(frozen=True, kw_only=True)
class Beginning:
    """What was asked for beside the settings. Raises ConfigError where it contradicts itself."""

    resume: bool = False
    fresh: bool = False
    from_checkpoint: Path | None = None
    allow_changed_data: bool = False
    extend_schedule: bool = False

    def __post_init__(self) -> None:
        if self.resume and self.from_checkpoint is not None:
            raise ConfigError(
                "--resume and --from-checkpoint exclude each other: the first goes on with a run, the second begins "
                "another one"
            )
        if self.extend_schedule and not self.resume:
            raise ConfigError("--extend-schedule is for --resume: a run that begins has the schedule of its --steps")


def open_run(
    config: TrainConfig, workspace: Workspace, beginning: Beginning, command_line: list[str] | None
) -> tuple[RunFolder, Setup]:
    """The locked folder of a run and the state that it begins or goes on with.

    Raises:
        HRMError: as :class:`~hrm_engine.training.trainer.Trainer` says; what was there before is as it was.
    """
    if beginning.resume:
        folder = claim_folder(config, workspace, resume=True, fresh=beginning.fresh)
        try:
            return folder, _resumed(config, workspace, folder.path, beginning)
        except BaseException:
            folder.lock.release()
            raise
    fresh = beginning.fresh or config.trains_further
    planned = planned_folder(config, workspace, resume=False, fresh=fresh)
    if beginning.from_checkpoint is None:
        setup = first_setup(config, workspace)
    else:
        setup = forked_setup(config, workspace, beginning.from_checkpoint)
        parent = setup.from_checkpoint
        if fresh and parent is not None and parent.resolve().is_relative_to(planned.resolve()):
            raise ConfigError(
                f"--from-checkpoint {parent}: a fork leaves its parent as it is, and would move {planned} away; "
                f"choose another {config.run.name_flag}"
            )
    folder = claim_folder(config, workspace, resume=False, fresh=fresh)
    try:
        origin = setup.state.parent if beginning.from_checkpoint is not None else None
        write_args(folder.path, config, command_line, forked_from=origin)
        setup.task.opened(folder.path)
    except BaseException:
        folder.lock.release()
        shutil.rmtree(folder.path, ignore_errors=True)
        raise
    return folder, setup


def announce(
    journal: Journal,
    setup: Setup,
    run_dir: Path,
    workspace: Workspace,
    *,
    messages: list[str],
    is_new: bool,
    command_line: list[str] | None,
) -> None:
    """The first rows of a session and the first lines of its log: what it works on, and the sentences for the user."""
    config, state, facts, checkpoint = setup.config, setup.state, setup.task.facts, setup.from_checkpoint
    messages = [*messages, *facts.messages]
    journal.write(
        "start" if is_new else "resume",
        state.step,
        kind=config.kind,
        run_dir=str(run_dir),
        total_steps=config.run.steps,
        num_parameters=sum(p.numel() for p in setup.model.parameters()),
        **facts.counts,
        device=str(setup.device),
        dtype=str(setup.precision.compute).removeprefix("torch."),
        num_threads=torch.get_num_threads(),
        from_checkpoint=None if checkpoint is None else _place(checkpoint, run_dir, workspace),
        command_line=command_line,
        messages=messages,
    )
    for message in messages:
        journal.say(message)
    before, lr = config.optim.lr, config.optim_used.lr
    if lr != before and is_new:
        journal.write("lr_adjustment", state.step, lr_before=before, lr=lr, reason=config.lr_reason)
        journal.say(f"learning rate {before:g} becomes {lr:g}: {config.lr_reason}")


def _place(checkpoint: Path, run_dir: Path, workspace: Workspace) -> str:
    """A checkpoint as rows name it: from the run folder, else from the workspace."""
    for root in (run_dir, workspace.root):
        if checkpoint.is_relative_to(root):
            return checkpoint.relative_to(root).as_posix()
    return checkpoint.as_posix()


def _resumed(config: TrainConfig, workspace: Workspace, run_dir: Path, beginning: Beginning) -> Setup:
    checkpoint, warnings = newest_checkpoint(run_dir)
    if checkpoint is not None:
        setup = resumed_setup(
            config,
            workspace,
            checkpoint,
            allow_changed_data=beginning.allow_changed_data,
            extend_schedule=beginning.extend_schedule,
        )
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
