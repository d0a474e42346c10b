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
from functools import partial
from pathlib import Path
from typing import Any

import torch

from hrm_engine import errors
from hrm_engine.bundles.implant import starting_point
from hrm_engine.bundles.student import student_core
from hrm_engine.config import (
    CoreConfig,
    ExpertTrainConfig,
    PuzzleTrainConfig,
    TextTrainConfig,
    TrainConfig,
    kinds,
    resolve_core,
    resolve_puzzle_core,
)
from hrm_engine.data.puzzles.embedded import EMBEDDED, build_embedded
from hrm_engine.data.puzzles.format import open_dataset
from hrm_engine.data.text.tokenizer import Tokenizer
from hrm_engine.errors import ConfigError, HRMError, OutOfMemoryError
from hrm_engine.models.core import RecurrentCore
from hrm_engine.models.flops import StepFlops, step_flops
from hrm_engine.store.files import clean_temporaries, read_json, temporary_folder, write_json
from hrm_engine.store.paths import Workspace
from hrm_engine.training.attached import with_attached
from hrm_engine.training.estimating.stages import Stage, stages
from hrm_engine.training.estimating.step_memory import Memory, step_memory
from hrm_engine.training.estimating.trial import Request, Trial
from hrm_engine.training.setup import hardware
from hrm_engine.training.task import task_of

TIME_LIMIT_S = 20.0
_KILLED = -9


@dataclass(frozen=True)
class Parameters:
    """Numbers that are learned, by part. ``puzzle_embedding`` has an optimizer of its own."""

    embeddings: int
    high_level: int
    low_level: int
    head: int
    halting: int
    puzzle_embedding: int
    active: int
    """Of the total, those that one token uses: of the experts of a layer, the ones it is sent to."""

    @property
    def total(self) -> int:
        """All but the puzzle embedding, as a run's ``start`` row counts them."""
        return self.embeddings + self.high_level + self.low_level + self.head + self.halting


@dataclass(frozen=True)
class Estimate:
    """What a training will take. ``measured`` is None where no trial was made."""

    kind: str
    core: CoreConfig
    device: str
    dtype: str
    num_threads: int
    steps: int
    rows_per_step: int
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
        for name in ("parameters", "flops", "memory"):
            content[name]["total"] = getattr(self, name).total
        return content


def estimate(
    config: TrainConfig, *, workspace: Workspace | None = None, measure: bool = True, limit_s: float = TIME_LIMIT_S
) -> Estimate:
    """Estimate a training of text or puzzles. It leaves nothing in the workspace.

    What a training would build first (the embedded corpus, base model, puzzles) is built in a temporary folder.

    Args:
        measure: make a trial, which gives times and the memory of the process.
        limit_s: seconds that the trial may go on beginning steps. Reading the data comes before, and one evaluation, a
            checkpoint and a bundle after that.

    Raises:
        ConfigError, DataError, BundleError: as the training would. OutOfMemoryError: it would run out of memory.
    """
    if isinstance(config, ExpertTrainConfig):
        raise ConfigError("an estimate is of a whole network; leave out --expert-id")
    workspace = workspace or Workspace.find()
    with _aside(config, workspace) as (config, workspace, folder):
        config = task_of(config).resolve(config, workspace)
        core = _core(config, workspace)
        device, precision, _ = hardware(config)
        checkpointing = config.compute.gradient_checkpointing
        checkpointing = device.type != "cpu" if checkpointing is None else checkpointing
        rows = config.run.batch_size * config.run.gradient_accumulation_steps
        flops_of = partial(step_flops, core, rows=rows, checkpointing=checkpointing)
        num_segments, mean_segments = _segments(config)
        flops_of = partial(flops_of, num_segments=num_segments)
        plan = stages(config, core)
        per_run = sum(s.num_steps * flops_of(cycles=s.cycles, grad_calls=s.grad_calls).total for s in plan)
        measured = _trial(config, workspace, folder, limit_s) if measure else None
        return Estimate(
            kind=config.kind,
            core=core,
            device=str(device),
            dtype=str(precision.compute).removeprefix("torch."),
            num_threads=torch.get_num_threads(),
            steps=config.run.steps,
            rows_per_step=rows,
            parameters=_parameters(core),
            flops=flops_of(),
            flops_per_run=round(per_run * mean_segments / num_segments),
            memory=step_memory(config, core, device=device, precision=precision, checkpointing=checkpointing),
            measured=measured,
            run_s=None if measured is None else _run_s(config, plan, measured),
        )


def _segments(config: TrainConfig) -> tuple[int, float]:
    """Segments of a step of full depth, and of a step on average."""
    if not isinstance(config, TextTrainConfig):
        return 1, 1.0
    most = config.network.halt_max_steps
    return most, (1 + most) / 2 if config.depth.sample_segments else most


def _run_s(config: TrainConfig, plan: list[Stage], measured: Trial) -> float:
    """Seconds of a whole run: its steps, evaluations and checkpoints, and what comes before and after them."""
    steps = config.run.steps
    eval_every, save_every = config.eval_every or steps, config.run.save_every or steps
    evaluations = 1 + -(-steps // eval_every)
    saves = -(-steps // save_every)
    stepping = sum(stage.num_steps * step_s for stage, step_s in zip(plan, measured.step_s, strict=True))
    rest = evaluations * measured.evaluation_s + saves * measured.save_s + measured.finish_s
    return measured.start_s + measured.first_step_s + stepping + rest


def _core(config: TrainConfig, workspace: Workspace) -> CoreConfig:
    """The network that will be trained; the data itself is not read."""
    if isinstance(config, PuzzleTrainConfig):
        folder = workspace.resolve(config.data.data_path)
        build_embedded(folder, workspace.puzzles)
        info = open_dataset(folder, "train", check_tokens=False).info
        core = resolve_puzzle_core(
            config.network,
            vocab_size=info.vocab_size,
            seq_len=info.seq_len,
            num_identifiers=info.num_puzzle_identifiers,
            moe=config.moe,
        )
        return with_attached(core, config.start.student_init, workspace)
    assert isinstance(config, TextTrainConfig)
    model = workspace.resolve(config.start.model)
    if (model / "tokenizer.json").is_file():
        tokenizer = Tokenizer.load(model)
    else:
        hidden_size = config.network.hidden_size
        tokenizer = starting_point(config.start.model, hidden_size=hidden_size, workspace=workspace).tokenizer
    core = resolve_core(
        config.network, vocab_size=tokenizer.vocab_size, max_seq_len=config.data.max_seq_len, moe=config.moe
    )
    core = student_core(core, config.start.student_init, workspace)
    return with_attached(core, config.start.student_init, workspace)


def _parameters(core: CoreConfig) -> Parameters:
    with torch.device("meta"):
        model = RecurrentCore(core)
    parts = {"embed": 0, "H_module": 0, "L_module": 0, "lm_head": 0, "halting": 0}
    for name, parameter in model.named_parameters():
        part = next((part for part in parts if name.startswith(part)), "halting")
        parts[part] += parameter.numel()
    idle = sum(
        tensor.numel() * (moe.num_experts - moe.experts_per_token) // moe.num_experts
        for moe in model.experts.values()
        for tensor in (moe.gate_proj, moe.up_proj, moe.down_proj)
    )
    return Parameters(
        embeddings=parts["embed"],
        high_level=parts["H_module"],
        low_level=parts["L_module"],
        head=parts["lm_head"],
        halting=parts["halting"],
        puzzle_embedding=0 if model.puzzle_embedding is None else model.puzzle_embedding.weight.numel(),
        active=sum(parts.values()) - idle,
    )


@contextmanager
def _aside(config: TrainConfig, workspace: Workspace) -> Iterator[tuple[TrainConfig, Workspace, Path]]:
    """The same training with its run folder in a temporary one, which is yielded too and removed at the end.

    It lies on the disk of the real one, so that saving takes as long. Where something must be built first, the
    workspace is a temporary one as well.
    """
    home = workspace.artifacts if workspace.artifacts.is_dir() else Path(tempfile.gettempdir())
    clean_temporaries(home, own=False)
    with temporary_folder(home, "estimate") as folder:
        run = {config.run.name_leaf: None, "bundle_dir": folder / "runs", "wandb": "off"}
        run |= {"log_file": None, "stop_file": None, "max_minutes": None}
        changes: dict[str, Any] = {"run": config.run.model_copy(update=run)}
        built = [workspace.base_model, workspace.embedded_corpus, *(workspace.puzzles / name for name in EMBEDDED)]
        builds = False
        places = {
            "data": ("dataset_file", "data_path"),
            "evaluation": ("eval_file",),
            "start": ("student_init", "model"),
        }
        for group, names in places.items():
            values = getattr(config, group)
            new: dict[str, Any] = {}
            for name in names:
                value = getattr(values, name, None)
                if value is None:
                    continue
                path = workspace.resolve(value)
                if path.exists():
                    new[name] = type(value)(path) if isinstance(value, str) else path
                elif any(path.is_relative_to(place) for place in built):
                    builds = True
                    new[name] = type(value)(path.relative_to(workspace.root.absolute()))
            changes[group] = values.model_copy(update=new)
        yield config.model_copy(update=changes), Workspace(folder) if builds else workspace, folder


def _trial(config: TrainConfig, workspace: Workspace, folder: Path, limit_s: float) -> Trial:
    """Make a trial in a process of its own, whose memory is that of the training alone."""
    request = Request(
        kind=config.kind,
        module=kinds.of(config).task.partition(":")[0],
        path=sys.path,
        parameters=config.model_dump(mode="json"),
        root=str(workspace.root.absolute()),
        limit_s=limit_s,
        began=time.time(),
    )
    write_json(folder / Request.FILE, asdict(request))
    command = [sys.executable, "-m", "hrm_engine.training.estimating.trial", str(folder)]
    environment = {**os.environ, "HRM_LAB_ROOT": request.root}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, errors="replace")
    answer = read_json(folder / Trial.FILE) if (folder / Trial.FILE).is_file() else {}
    if "error" in answer:
        kind = getattr(errors, answer["error"])
        raise kind(answer["message"])
    if done.returncode == _KILLED:
        raise OutOfMemoryError(
            "the trial was killed, as a system does where memory runs out: use a smaller model, "
            "shorter rows or a smaller --batch-size"
        )
    if done.returncode or not answer:
        raise HRMError(f"the trial ended with code {done.returncode}: {done.stderr.strip()[-2000:]}")
    return Trial(**answer)
