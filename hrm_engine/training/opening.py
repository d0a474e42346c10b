"""How a session begins: a run anew, with the checkpoint of another one, or where it stopped.

Whatever cannot begin is found before a folder is made for it, or an old one is moved away.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from hrm_engine.config import TrainConfig, build_config
from hrm_engine.config.base import given_leaves
from hrm_engine.config.beginning import Beginning
from hrm_engine.errors import CheckpointError, ConfigError
from hrm_engine.store.paths import Workspace
from hrm_engine.training.checkpoint import newest_checkpoint
from hrm_engine.training.fork import forked_config, forked_setup
from hrm_engine.training.run_folder import (
    RunFolder,
    claim_folder,
    planned_folder,
    resumed_config,
    saved_origin,
    write_args,
)
from hrm_engine.training.setup import Setup, first_setup, resumed_setup

C = TypeVar("C", bound=TrainConfig)


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
            for the few that may change; a fork has those of its checkpoint, with these on top.
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
    return forked_config(kind, given, how.from_checkpoint, workspace)


def begin(
    config: TrainConfig, workspace: Workspace, how: Beginning, command_line: list[str] | None
) -> tuple[RunFolder, Setup]:
    """The locked folder of a run and the state that it begins or goes on with.

    Raises:
        HRMError: as :class:`~hrm_engine.training.trainer.Trainer` says; what was there before is as it was.
    """
    if how.resume:
        folder = claim_folder(config, workspace, resume=True, fresh=how.fresh)
        try:
            return folder, _resumed(config, workspace, folder.path, how)
        except BaseException:
            folder.lock.release()
            raise
    fresh = how.fresh or config.trains_further
    planned = planned_folder(config, workspace, resume=False, fresh=fresh)
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
    folder = claim_folder(config, workspace, resume=False, fresh=fresh)
    try:
        origin = setup.state.parent if how.from_checkpoint is not None else None
        write_args(folder.path, config, command_line, forked_from=origin)
        setup.task.opened(folder.path)
    except BaseException:
        folder.lock.release()
        shutil.rmtree(folder.path, ignore_errors=True)
        raise
    return folder, setup


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
