"""What a run tells: rows of metrics, lines of the log, and whoever watches.

Losses stay on the device until they are read, one interval later, so that a GPU is never waited for in the step. On a
CPU there is nothing to wait for and every step is read at once.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
import torch
from torch import Tensor

from hrm_engine.config import kinds
from hrm_engine.kernels.device import allocated_bytes
from hrm_engine.store.files import storage_error
from hrm_engine.store.metrics import MetricsWriter
from hrm_engine.store.paths import LOG_FILE, METRICS_FILE
from hrm_engine.training.state import SPIKE_WINDOW, TrainState
from hrm_engine.training.task import Measured, Task
from hrm_engine.training.tracker import Tracker

SPIKE_FACTOR = 10.0
# Puzzles that are nearly solved have a median of thousandths of a nat, and every fresh one may exceed ten times that.
SPIKE_FLOOR = 0.1
GPU_INTERVAL = 10

Observer = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class PendingStep:
    """One step whose numbers are still on the device."""

    step: int
    lr: float
    measured: Measured
    grad_norm: Tensor
    stepped: Tensor


class Journal:
    """Metrics file, log file and observer of one run."""

    def __init__(
        self,
        run_dir: Path,
        run_id: str,
        task: Task,
        *,
        copies: tuple[Path, ...],
        observer: Observer | None,
        tracker: Tracker | None,
        device: torch.device,
        loss_scaling: bool,
        log_every: int,
    ) -> None:
        self.metrics = MetricsWriter(run_dir / METRICS_FILE, run_id, copies)
        self.run_id = run_id
        self._task = task
        self.device = device
        self._loss_scaling = loss_scaling
        self._log_every = log_every
        self._observer = observer
        self._tracker = tracker
        self._interval = 1 if device.type == "cpu" else GPU_INTERVAL
        self._pending: list[PendingStep] = []
        self._since = time.perf_counter()
        self._process = psutil.Process()
        self._log_file = run_dir / LOG_FILE

    def write(self, event: str, step: int, **fields: Any) -> None:
        """Write a row to the metrics and hand it to the observer."""
        self.metrics.write(event, step, **fields)
        if self._tracker is not None:
            self._tracker.write(event, step, fields)
        if self._observer is not None:
            self._observer({"run_id": self.run_id, "event": event, "step": step, **fields})

    def say(self, message: str, *, warning: bool = False) -> None:
        """Write a line to ``run.log``. Raises StorageError."""
        line = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ} {'WARNING' if warning else 'INFO':<7} {message}\n"
        try:
            with self._log_file.open("a", encoding="utf8", errors="backslashreplace") as file:
                file.write(line)
        except OSError as problem:
            raise storage_error(problem, self._log_file, doing="append to") from problem

    def add(self, pending: PendingStep, state: TrainState) -> None:
        """Take the numbers of a step; they are read when an interval is full."""
        self._pending.append(pending)
        if len(self._pending) >= self._interval:
            self.read(state)

    @property
    def num_pending(self) -> int:
        """Steps whose numbers have not been read yet."""
        return len(self._pending)

    def read(self, state: TrainState) -> None:
        """Read all pending steps, write their rows, and count spikes and non-finite losses in ``state``."""
        if not self._pending:
            return
        pending, self._pending = self._pending, []
        numbers = torch.stack(
            [torch.cat((p.measured.numbers, torch.stack((p.grad_norm, p.stepped.float())))) for p in pending]
        ).tolist()
        step_time = (time.perf_counter() - self._since) / len(pending)
        self._since = time.perf_counter()
        state.trained_s += step_time * len(pending)
        for step, row in zip(pending, numbers, strict=True):
            self._write_step(step, row, step_time, state)

    def restart_clock(self) -> None:
        """Leave out of the next step's time what was done since the last one (evaluation, saving)."""
        self._since = time.perf_counter()

    def fail(self, state: TrainState, message: str, exit_code: int) -> None:
        """The last row of a run that ends by an error; the watcher, which may be what failed, is not told."""
        self._observer = None
        # A device that has failed gives nothing back; the numbers of its last steps are lost with it.
        with suppress(RuntimeError):
            self.read(state)
        self.write("stop", state.step, reason=message, exit_code=exit_code)
        self.say(message, warning=True)

    def close(self) -> None:
        """Bring the metrics to the disk and close them. Raises StorageError."""
        self.metrics.close()
        if self._tracker is not None:
            self._tracker.close()

    def _write_step(self, pending: PendingStep, row: list[float], step_time: float, state: TrainState) -> None:
        *numbers, grad_norm, stepped = row
        self._task.count(numbers, pending.measured.counts, state)
        described = self._task.describe(numbers, pending.measured.counts, step_time, state)
        step, loss = pending.step, described["loss"]
        fields = {
            **described,
            "lr": pending.lr,
            "grad_norm": grad_norm,
            "step_time_s": step_time,
            "memory_rss_bytes": self._process.memory_info().rss,
        }
        if (memory := allocated_bytes(self.device)) is not None:
            fields["memory_gpu_bytes"] = memory
        self.write("train", step, **fields)
        for event, more in self._task.events(step, numbers):
            self.write(event, step, **more)
        self._watch_for_trouble(step, loss, bool(stepped), state)
        if step % self._log_every == 0:
            name, unit = kinds.words_of(kinds.named(self._task.kind)).speed
            speed = f", {fields[name]:,.0f} {unit}" if name in fields else ""
            self.say(f"step {step}: loss {loss:.4f}{speed}")

    def _watch_for_trouble(self, step: int, loss: float, stepped: bool, state: TrainState) -> None:
        overflow_only = self._loss_scaling and math.isfinite(loss)
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
