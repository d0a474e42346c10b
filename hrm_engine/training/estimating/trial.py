"""A few steps of a training, timed: ``python -m hrm_engine.training.estimating.trial FOLDER``, for :mod:`.estimate`.

The folder holds the request and takes the answer. A process of its own, because the largest memory that a process has
had says nothing about what came when.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import psutil
import torch

from hrm_engine.config import TrainConfig, build_config, kinds
from hrm_engine.errors import HRMError
from hrm_engine.store.files import read_json, write_json
from hrm_engine.store.paths import Workspace
from hrm_engine.training.costs import Stage
from hrm_engine.training.task import task_of
from hrm_engine.training.trainer import Trainer

STEPS_AT_ONCE = 4
"""Between two looks at the clock on a GPU, which would wait for nothing else."""
WARMUP_STEPS = 2
MOST_STEPS = 60
REQUEST_FILE, ANSWER_FILE = "request.json", "answer.json"


@dataclass(frozen=True)
class Trial:
    """Results of a trial. Seconds are wall time."""

    num_steps: int
    """Steps that were timed, warm-up excluded."""
    step_s: list[float]
    """Mean time of a step, for each stage of the run (one, but for a depth curriculum)."""
    first_step_s: float
    """What the first steps took beyond that (compilation, memory that is taken for the first time)."""
    start_s: float
    """From the command to the first step: imports, reading the data, the model."""
    evaluation_s: float
    """One periodic evaluation with its sample, and the best weights written."""
    save_s: float
    """One checkpoint."""
    finish_s: float
    """The bundle, and the evaluation of all held-out rows where there is one."""
    peak_bytes: int
    """Largest memory: of the process, or on a GPU of its tensors."""
    libraries_bytes: int
    """Of that, what the process had before it began; 0 on a GPU."""
    optimizer_bytes: int
    """State of the optimizer."""
    cpu_share: float
    """Processor time of the timed steps, of what their threads had had alone: less where others use the machine."""
    micro_batch_size: int
    """Smaller than ``--batch-size`` where memory ran out."""


def run_trial(config: TrainConfig, workspace: Workspace, *, limit_s: float, began: float) -> Trial:
    """Train a few steps in the run folder that ``config`` names, evaluate, save and finish. Raises what they raise."""
    before = psutil.Process().memory_info().rss
    with Trainer(task_of(config).for_trial(config), workspace=workspace) as trainer:
        start_s = time.time() - began
        device = trainer.setup.device
        _timed(device, lambda: None)
        plan = trainer.task.costs(trainer.config, trainer.task.core).stages(trainer.total_steps)
        until = time.perf_counter() + limit_s
        first = _timed(device, lambda: _make_steps(trainer, plan[0], WARMUP_STEPS))
        step_s, num_steps = [], 0
        stepping, cpu = time.perf_counter(), time.process_time()
        for number, stage in enumerate(plan):
            share = (until - time.perf_counter()) / (len(plan) - number)
            mean, count = _step_time(trainer, stage, max(0.0, share), warm=number > 0)
            step_s.append(mean)
            num_steps += count
        cpu_share = (time.process_time() - cpu) / (time.perf_counter() - stepping) / torch.get_num_threads()
        evaluation_s, full_s = _evaluation_times(trainer, config)
        save_s = _timed(device, trainer.save)
        optimizer = sum(tensor.nbytes for tensor in trainer.setup.updater.state_tensors().values())
        finish_s = _timed(device, trainer.finish)
        on_gpu = device.type == "cuda"
        return Trial(
            num_steps=num_steps,
            step_s=step_s,
            first_step_s=max(0.0, first - WARMUP_STEPS * step_s[0]),
            start_s=start_s,
            evaluation_s=evaluation_s,
            save_s=save_s,
            finish_s=finish_s + full_s,
            peak_bytes=torch.cuda.max_memory_allocated(device) if on_gpu else _peak_bytes(),
            libraries_bytes=0 if on_gpu else before,
            optimizer_bytes=optimizer,
            cpu_share=min(1.0, cpu_share),
            micro_batch_size=trainer.state.micro_batch_size,
        )


def _step_time(trainer: Trainer, stage: Stage, limit_s: float, *, warm: bool) -> tuple[float, int]:
    """Mean time of a step of a stage, and how many were timed: at least one."""
    if warm:
        _make_steps(trainer, stage, 1)
    device = trainer.setup.device
    spent, count, at_once = 0.0, 0, 1 if device.type == "cpu" else STEPS_AT_ONCE
    while not count or (spent * (count + at_once) / count < limit_s and count < MOST_STEPS):
        spent += _timed(device, lambda: _make_steps(trainer, stage, at_once))
        count += at_once
    return spent / count, count


def _make_steps(trainer: Trainer, stage: Stage, count: int) -> None:
    for _ in range(count):
        # within the stage, which may have fewer steps than are timed
        trainer.state.step = min(max(trainer.state.step, stage.first), stage.first + stage.num_steps - 1)
        trainer.step()


def _evaluation_times(trainer: Trainer, config: TrainConfig) -> tuple[float, float]:
    """Seconds of one periodic evaluation of full size, and of the one of all held-out rows at the end (0: none)."""
    task, device, rows = trainer.task, trainer.setup.device, trainer.state.micro_batch_size
    if task.evaluate(rows) is None:
        return 0.0, 0.0
    short = _timed(device, lambda: task.evaluate(rows))
    whole = _timed(device, trainer.evaluate)
    measured, _ = task.evaluation_rows(task.config)
    periodic, full = task.evaluation_rows(config)
    return max(0.0, whole - short) + short * periodic / measured, short * full / measured


def _timed(device: torch.device, work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - began


def _peak_bytes() -> int:
    """The largest resident memory of this process so far."""
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    info = psutil.Process().memory_info()
    if sys.platform == "win32":
        return int(info.peak_wset)
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def main() -> int:
    """Answer the request in the folder that the command line names."""
    folder = Path(sys.argv[1])
    request = read_json(folder / REQUEST_FILE)
    sys.path[:] = request["path"]
    import_module(request["module"])  # a kind that its task's module registers is one of the table now
    try:
        config = build_config(kinds.table()[request["kind"]].config, preset=request["parameters"])
        workspace = Workspace(Path(request["root"]))
        trial = run_trial(config, workspace, limit_s=request["limit_s"], began=request["began"])
        answer: dict[str, Any] = asdict(trial)
    except HRMError as problem:
        answer = {"error": type(problem).__name__, "message": str(problem)}
    write_json(folder / ANSWER_FILE, answer)
    return 0


if __name__ == "__main__":
    sys.exit(main())
