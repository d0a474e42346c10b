"""Exact states on disk: ``checkpoints/step_00000200/``, each complete in itself.

A checkpoint is written under another name and renamed when it is whole, with the hashes of its files inside. Only
whole ones are ever chosen; the others are named.
"""

from __future__ import annotations

import platform
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hrm_engine.bundles.weights import load_tensors
from hrm_engine.errors import CheckpointError
from hrm_engine.kernels import native
from hrm_engine.reading import told_by
from hrm_engine.store.manifest import check_manifest, checkpoint_folders, list_checkpoints, read_versioned
from hrm_engine.store.paths import STATE_FILE
from hrm_engine.training.state import TrainState

STATE_SCHEMA = 1
EMA_PREFIX = "ema/"
"""Of the moving average's tensors in the file of the optimizer."""


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint in memory, tensors on the CPU."""

    path: Path
    weights: dict[str, Tensor]
    optimizer: dict[str, Tensor]
    average: dict[str, Tensor]
    """The moving average of the weights; empty where there is none."""
    task: dict[str, Tensor]
    """What the task carries from step to step; empty where it carries nothing."""
    state: TrainState
    fingerprint: str
    environment: dict[str, Any]


def newest_checkpoint(run_dir: Path) -> tuple[Path | None, list[str]]:
    """The newest whole checkpoint, and a warning for each damaged one that was passed over; None if there is none yet.

    Raises:
        CheckpointError: there are checkpoints, and none is whole or of a version that can be read.
    """
    warnings: list[str] = []
    for info in reversed(list_checkpoints(run_dir, hashes=False)):
        problems = info.problems or check_manifest(info.path)
        if not problems:
            return info.path, warnings
        warnings.append(f"checkpoint {info.path.name} is damaged and was passed over: {'; '.join(problems)}")
    if warnings:
        raise CheckpointError(
            f"no checkpoint in {run_dir} can be used: {'; '.join(warnings)}. Restore one, or begin again with --fresh"
        )
    return None, []


def read_checkpoint(path: Path) -> Checkpoint:
    """Read one checkpoint. Raises CheckpointError."""
    content = read_versioned(path / STATE_FILE, known=STATE_SCHEMA, error=CheckpointError)
    tensors = load_tensors(path, "optimizer", error=CheckpointError)
    average = {name.removeprefix(EMA_PREFIX): t for name, t in tensors.items() if name.startswith(EMA_PREFIX)}
    with told_by(lambda why: CheckpointError(f"{path / STATE_FILE} is not the state of a training: {why}")):
        return Checkpoint(
            path=path,
            weights=load_tensors(path, "model", error=CheckpointError),
            optimizer={name: t for name, t in tensors.items() if not name.startswith(EMA_PREFIX)},
            average=average,
            task=load_tensors(path, "task", error=CheckpointError) if (path / "task.safetensors").is_file() else {},
            state=TrainState.from_json(content["state"]),
            fingerprint=content["dataset_fingerprint"],
            environment=dict(content["environment"]),
        )


def prune_checkpoints(run_dir: Path, *, keep_last: int, newest_step: int) -> None:
    """Remove all but the last ``keep_last`` checkpoints up to the newest, which has just been written."""
    folders = [path for step, path in checkpoint_folders(run_dir) if step <= newest_step]
    for path in folders[:-keep_last]:
        shutil.rmtree(path, ignore_errors=True)


def environment(device: torch.device) -> dict[str, Any]:
    """What bit-identical arithmetic depends on."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "num_threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "processor": platform.machine(),
        "compiled kernels": device.type == "cpu" and native.load() is None,
    }


def environment_changes(then: dict[str, Any], device: torch.device) -> list[str]:
    """One warning for each difference that can change the last bits of the result."""
    now = environment(device)
    return [
        f"{name} was {then.get(name, False)} before and is {value} now: the continuation may differ in the last bits"
        for name, value in now.items()
        if then.get(name, False) != value
    ]
