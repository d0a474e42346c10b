"""What a run tells: rows of metrics, lines of the log, and whoever watches.

Losses stay on the device until they are read, one interval later, so that a GPU is never waited for in the step. On a
CPU there is nothing to wait for and every step is read at once.
"""

from __future__ import annotations

import math
import re
import shlex
import statistics
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
import torch

from hrm_engine.config import flat, kinds
from hrm_engine.config.training import RunConfig
from hrm_engine.errors import missing_package
from hrm_engine.kernels.device import allocated_bytes
from hrm_engine.optim.updater import UpdateResult
from hrm_engine.reading import open_regular
from hrm_engine.store.files import storage_error
from hrm_engine.store.metrics import MetricsWriter
from hrm_engine.store.paths import LOG_FILE, METRICS_FILE, Workspace
from hrm_engine.training.setup import Setup
from hrm_engine.training.state import SPIKE_WINDOW
from hrm_engine.training.task import Evaluated, Measured

SPIKE_FACTOR = 10.0
# Puzzles that are nearly solved have a median of thousandths of a nat, and every fresh one may exceed ten times that.
SPIKE_FLOOR = 0.1
_PROGRAMS = ("lab", "aios")
GPU_INTERVAL = 10
TRACKED_EVENTS = ("train", "eval", "system")

Observer = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class StepReport:
    """One optimizer step. The numbers are still on the device; reading one waits for it."""

    step: int
    lr: float
    update: UpdateResult[Measured]

    @property
    def loss(self) -> float:
        """Loss of the step: for text the mean cross-entropy in nats per token over the segments."""
        return float(self.update.value.loss)


class Journal:
    """Metrics file, log file and observer of one run, and its copy at Weights & Biases."""

    def __init__(
        self, run_dir: Path, run_id: str, setup: Setup, workspace: Workspace, observer: Observer | None
    ) -> None:
        run, log_file = setup.config.run, setup.config.run.log_file
        copies = () if log_file is None else (workspace.resolve(log_file),)
        self._tracker = None if run.wandb == "off" else WandbTracker(run, run_dir, run_id, flat(setup.config))
        self.metrics = MetricsWriter(run_dir / METRICS_FILE, run_id, copies)
        self.run_id = run_id
        self._setup = setup
        self._workspace = workspace
        self._run_dir = run_dir
        self._log_every = max(1, run.steps // 50)
        self._observer = observer
        self._interval = 1 if setup.device.type == "cpu" else GPU_INTERVAL
        self._pending: list[StepReport] = []
        self._since = time.perf_counter()
        self._process = psutil.Process()

    def announce(self, *, is_new: bool, command_line: list[str] | None) -> None:
        """The first row of a session and the first lines of its log: what it works on, and sentences for the user."""
        setup, state, checkpoint = self._setup, self._setup.state, self._setup.from_checkpoint
        config, facts = setup.config, setup.task.facts
        for root in (self._run_dir, self._workspace.root):  # of a checkpoint elsewhere the whole path is written
            if checkpoint is not None and checkpoint.is_relative_to(root):
                checkpoint = checkpoint.relative_to(root)
        messages = [*setup.messages, *facts.messages]
        self.write(
            "start" if is_new else "resume",
            state.step,
            kind=config.kind,
            run_dir=str(self._run_dir),
            total_steps=config.run.steps,
            num_parameters=sum(p.numel() for p in setup.model.parameters()),
            **facts.counts,
            device=str(setup.device),
            dtype=str(setup.precision.compute).removeprefix("torch."),
            num_threads=torch.get_num_threads(),
            from_checkpoint=None if checkpoint is None else checkpoint.as_posix(),
            command_line=command_line,
            messages=messages,
        )
        how = "begins" if is_new else f"goes on from step {state.step}"
        self.say(f"training {how}: {_as_typed(command_line)}")
        for message in messages:
            self.say(message)
        before, lr = config.optim.lr, config.optim_used.lr
        if lr != before and is_new:
            self.write("lr_adjustment", state.step, lr_before=before, lr=lr, reason=config.lr_reason)
            self.say(f"learning rate {before:g} becomes {lr:g}: {config.lr_reason}")

    def write(self, event: str, step: int, **fields: Any) -> None:
        """Write a row to the metrics and hand it to the observer."""
        self.metrics.write(event, step, **fields)
        while self.metrics.messages:
            self.say(self.metrics.messages.pop(), warning=True)
        if self._tracker is not None:
            self._tracker.write(event, step, fields)
        if self._observer is not None:
            try:
                self._observer({"run_id": self.run_id, "event": event, "step": step, **fields})
            except Exception as problem:  # a training outlives whatever shows it
                self._observer = None
                why = " ".join(str(problem).split()) or "no message"
                self.say(f"nothing shows this training from here on: {type(problem).__name__}: {why}", warning=True)

    def say(self, message: str, *, warning: bool = False) -> None:
        """Write a line to ``run.log``. Raises StorageError."""
        line = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ} {'WARNING' if warning else 'INFO':<7} {message}\n"
        path = self._run_dir / LOG_FILE
        try:
            with open_regular(path, "ab", follow=False) as file:
                file.write(line.encode("utf8", errors="backslashreplace"))
        except OSError as problem:
            raise storage_error(problem, path, doing="append to") from problem

    def add(self, report: StepReport) -> None:
        """Take the numbers of a step; they are read when an interval is full."""
        self._pending.append(report)
        if len(self._pending) >= self._interval:
            self.read()

    @property
    def num_pending(self) -> int:
        """Steps whose numbers have not been read yet."""
        return len(self._pending)

    def read(self) -> None:
        """Read all pending steps, write their rows, and count non-finite losses in the state."""
        if not self._pending:
            return
        pending, self._pending = self._pending, []
        updates = [report.update for report in pending]
        numbers = torch.stack(
            [torch.cat((u.value.numbers, torch.stack((u.grad_norm, u.stepped.float())))) for u in updates]
        ).tolist()
        step_time = (time.perf_counter() - self._since) / len(pending)
        self._since = time.perf_counter()
        self._setup.state.trained_s += step_time * len(pending)
        for report, row in zip(pending, numbers, strict=True):
            self._write_step(report, row, step_time)

    def compare_with_start(self, result: Evaluated) -> None:
        """Watch the evaluations: the first one that is worse than at the start is told."""
        state = self._setup.state
        was_diverged, is_finite = state.is_diverged, all(math.isfinite(part) for part in result.score)
        if state.first_score is None and is_finite:
            state.first_score = result.score
        # A score that is no number is worse than any that is one.
        state.is_diverged = state.first_score is not None and not (is_finite and result.score <= state.first_score)
        if state.is_diverged and not was_diverged:
            message = self.divergence()
            last, first = state.last_eval or {}, state.first_eval or {}
            self.write("diverged", state.step, loss=last["loss"], first_loss=first["loss"], message=message)
            self.say(message, warning=True)

    def divergence(self) -> str:
        """A sentence about the last evaluation that is worse than the first one."""
        last, first = (_compared(row or {}) for row in (self._setup.state.last_eval, self._setup.state.first_eval))
        return f"validation is worse than at the start: {last} now, {first} then"

    def restart_clock(self) -> None:
        """Leave out of the next step's time what was done since the last one (evaluation, saving)."""
        self._since = time.perf_counter()

    def fail(self, message: str, exit_code: int) -> None:
        """The last row of a run that ends by an error; the watcher, which may be what failed, is not told."""
        self._observer = None
        # A device that has failed gives nothing back; the numbers of its last steps are lost with it.
        with suppress(RuntimeError):
            self.read()
        self.write("stop", self._setup.state.step, reason=message, exit_code=exit_code)
        self.say(message, warning=True)

    def close(self) -> None:
        """Bring the metrics to the disk and close them. Raises StorageError."""
        self.metrics.close()
        if self._tracker is not None:
            self._tracker.close()

    def _write_step(self, report: StepReport, row: list[float], step_time: float) -> None:
        *numbers, grad_norm, stepped = row
        task, state = self._setup.task, self._setup.state
        step, counts = report.step, report.update.value.counts
        task.count(numbers, counts, state)
        described = task.describe(numbers, counts, step_time, state)
        loss = described["loss"]
        fields = {
            **described,
            "lr": report.lr,
            "grad_norm": grad_norm,
            "step_time_s": step_time,
            "memory_rss_bytes": self._process.memory_info().rss,
        }
        if (memory := allocated_bytes(self._setup.device)) is not None:
            fields["memory_gpu_bytes"] = memory
        self.write("train", step, **fields)
        for event, more in task.events(step, numbers):
            self.write(event, step, **more)
        self._watch_for_trouble(step, loss, bool(stepped))
        if step % self._log_every == 0:
            name, unit = kinds.words_of(kinds.named(task.kind)).speed
            speed = f", {fields[name]:,.0f} {unit}" if name in fields else ""
            self.say(f"step {step}: loss {loss:.4f}{speed}")

    def _watch_for_trouble(self, step: int, loss: float, stepped: bool) -> None:
        state, overflow_only = self._setup.state, self._setup.precision.loss_scaling and math.isfinite(loss)
        if not math.isfinite(loss) or (not stepped and not overflow_only):
            state.nonfinite_in_a_row += 1
            what = "loss" if not math.isfinite(loss) else "gradient"
            self.write("nan", step, what=what, in_a_row=state.nonfinite_in_a_row)
            self.say(f"step {step}: the {what} is not finite; the update was skipped", warning=True)
            return
        state.nonfinite_in_a_row = 0
        recent = state.recent_losses
        if len(recent) == SPIKE_WINDOW and loss > max(SPIKE_FLOOR, SPIKE_FACTOR * statistics.median(recent)):
            self.write("spike", step, loss=loss, median=statistics.median(recent))
            self.say(f"step {step}: the loss {loss:.4f} is above 10 times the recent median", warning=True)
        state.recent_losses = [*recent, loss][-SPIKE_WINDOW:]


def _as_typed(command_line: list[str] | None) -> str:
    if not command_line:
        return "called from Python"
    program = Path(command_line[0]).stem
    words = shlex.join([program if program in _PROGRAMS else _PROGRAMS[0], *command_line[1:]])
    return " ".join(words.split())


def _compared(row: Mapping[str, Any]) -> str:
    """The figures of an evaluation by which it is compared with the first one."""
    exact, loss = row.get("exact_accuracy"), row.get("loss")
    loss_text = "a loss that is not finite" if loss is None else f"loss {loss:.4g}"
    return loss_text if exact is None else f"{100 * exact:.1f} % exact, {loss_text}"


class WandbTracker:
    """The same rows in a run of Weights & Biases, in ``wandb/`` of the run folder; ``wandb sync`` uploads it later."""

    def __init__(self, run: RunConfig, run_dir: Path, run_id: str, config: dict[str, Any]) -> None:
        try:
            import wandb
        except ImportError as error:
            raise missing_package(f"--wandb {run.wandb}", "wandb") from error
        self._run = wandb.init(
            project=run.wandb_project,
            name=run_dir.name,
            id=re.sub(r"[^A-Za-z0-9_-]", "-", run_id),
            resume="allow",
            mode="online" if run.wandb == "online" else "offline",
            dir=run_dir,
            config=config,
            settings=wandb.Settings(silent=True, console="off", x_disable_stats=True),
        )

    def write(self, event: str, step: int, fields: dict[str, Any]) -> None:
        """Log the numbers of a row under ``event/name``; lists become one number each."""
        if event not in TRACKED_EVENTS:
            return
        numbers: dict[str, float] = {}
        for name, value in fields.items():
            parts = enumerate(value, 1) if isinstance(value, list) else [("", value)]
            for place, part in parts:
                if isinstance(part, int | float) and not isinstance(part, bool):
                    numbers[f"{event}/{name}/{place}" if place else f"{event}/{name}"] = part
        self._run.log(numbers, step=step)

    def close(self) -> None:
        """Finish the run's files."""
        self._run.finish()
