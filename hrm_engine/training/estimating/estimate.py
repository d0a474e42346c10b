"""What a training will take, before it begins: parameters, arithmetic, memory, and time on this machine.

Parameters and arithmetic follow from the configuration. What lies in memory at the peak is counted on tensors without
content, of the very model and step. Time is not calculated: a trial of a few steps, an evaluation, a checkpoint and a
bundle, of the real trainer on the real data, is timed in a process of its own (:mod:`.trial`).
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from hrm_engine import errors
from hrm_engine.config import Config, TrainConfig, kinds, leaves
from hrm_engine.config.training import TrialConfig
from hrm_engine.errors import DataError, HRMError, OutOfMemoryError
from hrm_engine.models.flops import StepFlops
from hrm_engine.store.files import clean_temporaries, read_json, temporary_folder, write_json
from hrm_engine.store.paths import Workspace
from hrm_engine.training.costs import Parameters, Stage
from hrm_engine.training.estimating.step_memory import Memory, shapes_only, step_memory
from hrm_engine.training.estimating.trial import ANSWER_FILE, REQUEST_FILE, Trial
from hrm_engine.training.setup import hardware
from hrm_engine.training.task import task_of

TIME_LIMIT_S = TrialConfig().limit_s
_KILLED = -9


@dataclass(frozen=True)
class Estimate:
    """What a training will take. ``measured`` is None where no trial was made."""

    kind: str
    core: Config
    """The network: what ``config.json`` of a bundle holds."""
    device: str
    dtype: str
    num_threads: int
    steps: int
    rows_per_step: int
    tokens_per_step: int | None
    """Of full rows; None where rows are no texts."""
    parameters: Parameters
    flops: StepFlops
    """Of a step of full depth."""
    flops_per_run: int
    """All steps, as deep as each of them is; evaluations not."""
    memory: Memory
    measured: Trial | None
    run_s: float | None
    """Seconds of the whole run on this machine as it was in the trial, from the command to its end."""

    def as_json(self) -> dict[str, Any]:
        """Plain values, totals included."""
        measured = None if self.measured is None else asdict(self.measured)
        content = asdict(self) | {"core": self.core.model_dump(mode="json"), "measured": measured}
        for name in ("flops", "memory"):
            content[name]["total"] = getattr(self, name).total
        content["memory"]["process"] = self.memory.process if self.device == "cpu" else None
        return content | {"parameters": self.parameters.as_json()}


def estimate(
    config: TrainConfig, *, workspace: Workspace | None = None, measure: bool = True, limit_s: float = TIME_LIMIT_S
) -> Estimate:
    """Estimate a training. It leaves nothing in the workspace.

    What a training would build first (the embedded corpus, base model, puzzles) is built in a temporary folder.

    Args:
        measure: make a trial, which gives times and the memory of the process.
        limit_s: seconds that the trial may go on beginning steps. Reading the data comes before, and one evaluation, a
            checkpoint and a bundle after that.

    Raises:
        ConfigError, DataError, BundleError: as the training would. OutOfMemoryError: it would run out of memory.
    """
    workspace, task = workspace or Workspace.find(), task_of(config)
    with _aside(config, workspace) as (config, workspace, folder):
        config = task.resolve(config, workspace)
        network = task.network_for(config, workspace)
        costs = task.costs(config, network)
        device, precision, _ = hardware(config)
        checkpointing = config.compute.gradient_checkpointing
        checkpointing = device.type != "cpu" if checkpointing is None else checkpointing
        plan = costs.stages(config.run.steps)
        with shapes_only(task, network, device, precision) as model:
            parameters = costs.parameters(model)
            dry = task.dry_step(config, network, model, device, checkpointing=checkpointing)
            if costs.flops is None:
                full = dry.flops(config.run.gradient_accumulation_steps)
                flops_per_run = config.run.steps * full.total
            else:
                full = costs.flops(None, checkpointing)
                flops_per_run = sum(s.num_steps * costs.flops(s.setting, checkpointing).total for s in plan)
            memory = step_memory(model, dry, costs, config.optim, precision)
        measured = _trial(config, workspace, folder, limit_s) if measure else None
        return Estimate(
            kind=config.kind,
            core=network,
            device=str(device),
            dtype=str(precision.compute).removeprefix("torch."),
            num_threads=torch.get_num_threads(),
            steps=config.run.steps,
            rows_per_step=config.run.rows_per_step,
            tokens_per_step=costs.tokens_per_step,
            parameters=parameters,
            flops=full,
            flops_per_run=round(flops_per_run * costs.mean_share),
            memory=memory,
            measured=measured,
            run_s=None if measured is None else _run_s(config, plan, measured),
        )


def _run_s(config: TrainConfig, plan: list[Stage], measured: Trial) -> float:
    """Seconds of a whole run: its steps, evaluations and checkpoints, and what comes before and after them."""
    steps = config.run.steps
    eval_every, save_every = config.eval_every or steps, config.run.save_every or steps
    evaluations = 1 + -(-steps // eval_every)
    saves = -(-steps // save_every)
    stepping = sum(stage.num_steps * step_s for stage, step_s in zip(plan, measured.step_s, strict=True))
    rest = evaluations * measured.evaluation_s + saves * measured.save_s + measured.finish_s
    return measured.start_s + measured.first_step_s + stepping + rest


@contextmanager
def _aside(config: TrainConfig, workspace: Workspace) -> Iterator[tuple[TrainConfig, Workspace, Path]]:
    """The same training with its run folder in a temporary one, which is yielded too and removed at the end.

    It lies on the disk of the real one, so that saving takes as long. Where something must be built first, the
    workspace is a temporary one as well.
    """
    home = workspace.artifacts if workspace.artifacts.is_dir() else Path(tempfile.gettempdir())
    clean_temporaries(home, own=False)
    with temporary_folder(home / "estimate") as folder:
        run = {config.run.name_leaf: None, "bundle_dir": folder / "runs", "wandb": "off"}
        run |= {"log_file": None, "stop_file": None, "max_minutes": None}
        changes: dict[str, Any] = {"run": config.run.model_copy(update=run)}
        built = task_of(config).built_first(workspace)
        builds = False
        for leaf in leaves(type(config)).values():
            group, value = leaf.path[0], leaf.value(config)
            if group == "run" or not (isinstance(value, Path) or (isinstance(value, str) and "/" in value)):
                continue
            path, new = workspace.resolve(value), value
            if path.exists():
                new = type(value)(path)
            elif any(path.is_relative_to(place) for place in built):
                builds = True
                new = type(value)(path.relative_to(workspace.root.absolute()))
            elif leaf.is_place_of_data:
                raise DataError(f"{leaf.flag}: {path} does not exist")
            changes[group] = changes.get(group, getattr(config, group)).model_copy(update={leaf.name: new})
        yield config.model_copy(update=changes), Workspace(folder) if builds else workspace, folder


def _trial(config: TrainConfig, workspace: Workspace, folder: Path, limit_s: float) -> Trial:
    """Make a trial in a process of its own, whose memory is that of the training alone."""
    root = str(workspace.root.absolute())
    request = {
        "kind": config.kind,
        "module": kinds.of(config).task.partition(":")[0],
        "path": sys.path,
        "parameters": config.model_dump(mode="json"),
        "root": root,
        "limit_s": limit_s,
        "began": time.time(),
    }
    write_json(folder / REQUEST_FILE, request)
    command = [sys.executable, "-m", "hrm_engine.training.estimating.trial", str(folder)]
    environment = {**os.environ, "HRM_LAB_ROOT": root}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, errors="replace")
    answer = read_json(folder / ANSWER_FILE) if (folder / ANSWER_FILE).is_file() else {}
    if "error" in answer:
        raise getattr(errors, answer["error"])(answer["message"])
    if done.returncode == _KILLED:
        raise OutOfMemoryError(
            "the trial was killed, as a system does where memory runs out: use a smaller model, "
            "shorter rows or a smaller --batch-size"
        )
    if done.returncode or not answer:
        raise HRMError(f"the trial ended with code {done.returncode}: {done.stderr.strip()[-2000:]}")
    return Trial(**answer)
