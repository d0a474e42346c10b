"""One run, one step at a time.

:func:`hrm_engine.training.train` drives a :class:`Trainer` through a whole run; whoever wants a loop of their own calls
:meth:`Trainer.step` themselves and :meth:`Trainer.finish` at the end.
"""

from __future__ import annotations

import secrets
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TypeVar

from hrm_engine.config import TrainConfig
from hrm_engine.config.training import ANEW, Beginning
from hrm_engine.errors import HRMError, NonFiniteLossError, OutOfMemoryError
from hrm_engine.kernels.device import is_out_of_memory, keep_freed_memory, release_memory
from hrm_engine.optim.schedules import learning_rate
from hrm_engine.optim.updater import UpdateResult
from hrm_engine.store.files import finite
from hrm_engine.store.manifest import has_checkpoint
from hrm_engine.store.paths import Workspace
from hrm_engine.store.status import State
from hrm_engine.training.checkpoint import prune_checkpoints
from hrm_engine.training.journal import Journal, Observer, StepReport
from hrm_engine.training.keeping import Keeper
from hrm_engine.training.monitor import Monitor
from hrm_engine.training.opening import begin
from hrm_engine.training.run_folder import CommandLines, saved_command_lines, saved_run_id, write_args
from hrm_engine.training.setup import Setup
from hrm_engine.training.state import TrainState
from hrm_engine.training.stopping import Stop, Stopper
from hrm_engine.training.task import Evaluated, Measured, StepWork, Task, task_of

T = TypeVar("T")


@dataclass(frozen=True)
class Outcome:
    """How a session ended: the state in ``status.json``, a sentence, and the exit code of its process."""

    state: State
    message: str
    exit_code: int


class Trainer:
    """Context manager around a run folder: claims it, restores or starts the state, steps, saves.

    The settings are those of :func:`~hrm_engine.training.opening.settle`, where a run goes on or is forked.

    Raises on entering:
        ConfigError, DataError, BundleError, CheckpointError: what was asked for cannot be done.
        LockedError: another trainer is at work there. StorageError: the folder cannot be written.
    """

    setup: Setup
    """Model, weights, optimizer and state: everything that a step works on."""
    journal: Journal
    keeper: Keeper
    monitor: Monitor
    outcome: Outcome
    """After :meth:`finish`."""
    _saved_step: int | None

    def __init__(
        self,
        config: TrainConfig,
        how: Beginning = ANEW,
        *,
        command_line: Sequence[str] | None = None,
        workspace: Workspace | None = None,
        observer: Observer | None = None,
    ) -> None:
        self.workspace = workspace or Workspace.find()
        self.config = config.resolved() if how.has_saved_settings else task_of(config).resolve(config, self.workspace)
        self.how = how
        self._command_line = None if command_line is None else list(command_line)
        self._commands = CommandLines(self._command_line)
        self._observer = observer
        self._stack = ExitStack()
        self._new_folder: Path | None = None
        self._finished = False

    def __enter__(self) -> Trainer:
        try:
            self._open()
        except BaseException:
            self._withdraw()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._finished:
            return
        if error is None:
            self._end("stopped", f"left at step {self.state.step} without finish()")
        else:
            self._fail(error)

    @property
    def task(self) -> Task:
        """Data, losses and evaluation."""
        return self.setup.task

    @property
    def state(self) -> TrainState:
        """Counters, and everything else that a checkpoint keeps beside tensors."""
        return self.setup.state

    @property
    def total_steps(self) -> int:
        """Optimizer steps of the whole run."""
        return self.config.run.steps

    @property
    def step_number(self) -> int:
        """Optimizer steps done."""
        return self.state.step

    def step(self) -> StepReport:
        """Make one optimizer step on the next rows.

        Raises:
            NonFiniteLossError: ``nan_patience`` losses in a row were not finite.
            OutOfMemoryError: not even a micro-batch of one row fits. StorageError: the metrics cannot be written.
        """
        if self.monitor.failure is not None:
            raise self.monitor.failure
        state, optim = self.state, self.config.optim_used
        number = state.step + 1
        schedule_share = learning_rate(
            number,
            peak=1.0,
            total_steps=state.schedule_steps,
            warmup_steps=optim.warmup_steps or 0,
            schedule=optim.lr_scheduler,
            min_ratio=optim.lr_min_ratio,
        )
        update = self._update(schedule_share)
        state.step = number
        report = StepReport(number, optim.lr * schedule_share, update)
        self.journal.add(report)
        self._check_losses()
        return report

    def evaluate(self) -> Evaluated | None:
        """Measure on held-out data, write the row, a sample, and ``best/`` where it is the best so far."""
        state = self.state
        with self._between_steps("evaluating") as started:
            with self.keeper.usable_weights():
                result = self._measure()
                if result is None:
                    return None
                self.journal.write("eval", state.step, **result.fields, eval_time_s=time.perf_counter() - started)
                if state.first_eval is None and result.baselines:
                    self.journal.say(result.baselines)
                self.journal.say(f"step {state.step}: {result.summary}")
                state.last_eval = finite({"step": state.step, **result.fields})
                state.first_eval = state.first_eval or state.last_eval
                self.journal.compare_with_start(result)
                started = time.perf_counter()
                if (sample := self.task.sample()) is not None:
                    state.last_sample = "".join(sample.values())
                    self.journal.write("sample", state.step, **sample, sample_time_s=time.perf_counter() - started)
            self.keeper.keep_if_best(result)
        return result

    def save(self) -> Path:
        """Write a checkpoint of this moment and drop the ones beyond ``keep_last``. Raises StorageError."""
        with self._between_steps("saving") as started:
            self.journal.metrics.flush()
            path = self.keeper.save()
            self.journal.write(
                "checkpoint",
                self.state.step,
                path=path.relative_to(self.run_dir).as_posix(),
                bytes=sum(file.stat().st_size for file in path.iterdir()),
                save_time_s=time.perf_counter() - started,
            )
            prune_checkpoints(self.run_dir, keep_last=self.config.run.keep_last, newest_step=self.state.step)
            self._saved_step = self.state.step
        return path

    def finish(self, stop: Stop | None = None) -> None:
        """Save what is not saved yet and write the bundle; ``stop`` is why the run ends early."""
        if self.state.step > 0 and self._saved_step != self.state.step:
            self.save()
        self.journal.read()
        self._check_losses()
        self.outcome = self._outcome(stop)
        message = self.outcome.message
        if self.state.step > 0:
            self.monitor.say("writing the bundle")
            self.state.datasets[-1]["rows"] = self.state.rows
            self.keeper.write_bundle(
                self._measure if stop is None or stop.is_complete else None,
                run_id=self.run_id,
                commands=self._commands,
            )
        if stop is None:
            self.journal.write("final", self.state.step, message=message, loss=(self.state.last_eval or {}).get("loss"))
        else:
            self.journal.write("stop", self.state.step, reason=message, exit_code=stop.exit_code)
        self.journal.say(f"step {self.state.step}: {message}")
        self.journal.metrics.flush()
        self._finished = True
        self._end(self.outcome.state, message)

    def check_stop(self) -> Stop | None:
        """Why the run should stop now, if there is a reason."""
        if (stop := self.stopper.check()) is not None:
            return stop
        reason, patience = self.task.stop_reason(self.state), self.config.patience
        if patience is not None and self.state.evals_since_best >= patience:
            reason = f"no better evaluation in {patience} (--early-stopping)"
        return None if reason is None else Stop(reason, 0, is_complete=True)

    @contextmanager
    def _between_steps(self, doing: str) -> Iterator[float]:
        """Work on what all steps so far have left, whose time is no step's; yields when it began."""
        self.journal.read()
        self._check_losses()
        self.monitor.say(doing)
        yield time.perf_counter()
        self.monitor.say("training")
        self.journal.restart_clock()

    def _open(self) -> None:
        keep_freed_memory()
        config, workspace = self.config, self.workspace
        self.stopper = Stopper(
            stop_file=None if config.run.stop_file is None else workspace.resolve(config.run.stop_file),
            max_minutes=config.run.max_minutes,
        )
        self._lock, self.setup = begin(config, workspace, self.how, self._stack)
        self.run_dir = self._lock.folder
        setup = self.setup
        self._stack.callback(setup.task.close)
        if self.how.resume:
            self._commands = saved_command_lines(self.run_dir).and_then(self._command_line)
        else:
            self._new_folder = self.run_dir
            origin = None if self.how.from_checkpoint is None else setup.state.parent
            write_args(self.run_dir, config, self._commands, forked_from=origin)
            setup.task.opened(self.run_dir)
        self._saved_step = self.state.step if setup.is_saved else None
        self.run_id = saved_run_id(self.run_dir) or f"{self.run_dir.name}-{secrets.token_hex(4)}"
        self.journal = Journal(self.run_dir, self.run_id, setup, workspace, self._observer)
        self._stack.callback(self.journal.close)
        self.keeper = Keeper(self.run_dir, setup, self.journal)
        setup.messages += self.keeper.check_best()
        self.journal.announce(is_new=not self.how.resume, command_line=self._command_line)
        self.monitor = Monitor(self._lock, setup.device, step=lambda: self.state.step, write=self.journal.write)
        self._stack.enter_context(self.monitor)
        self._stack.enter_context(self.stopper)
        self.monitor.say("training")
        self.journal.restart_clock()

    def _update(self, schedule_share: float) -> UpdateResult[Measured]:
        setup = self.setup

        def attempt(micro_batch: int) -> tuple[UpdateResult[Measured], StepWork]:
            work = self.task.work(
                self.state, micro_batch, checkpointing=setup.checkpointing, num_pending=self.journal.num_pending
            )
            return setup.updater.update(work.run, schedule_share=schedule_share), work

        update, work = self._halving(attempt)
        work.commit(update.stepped, schedule_share)
        if setup.average is not None:
            setup.average.update(self.state.step + 1, update.stepped)
        return update

    def _measure(self, *, full: bool = False) -> Evaluated | None:
        return self._halving(lambda rows: self.task.evaluate(rows, full=full))

    def _halving(self, work: Callable[[int], T]) -> T:
        """``work(micro_batch)``, with half the micro-batch after each time that memory ran out."""
        state = self.state
        while True:
            try:
                return work(state.micro_batch_size)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                if state.micro_batch_size == 1:
                    raise OutOfMemoryError(
                        "memory ran out with a micro-batch of one row; use a smaller model or shorter rows, "
                        "--gradient-checkpointing, or --use-8bit-optimizer"
                    ) from error
            # outside of the handler, where the failed attempt's tensors are still alive
            self.setup.weights.zero_grad()
            release_memory(self.setup.device)
            state.micro_batch_size //= 2
            message = f"memory ran out: the micro-batch is {state.micro_batch_size} rows now, same effective batch"
            self.journal.write("oom", state.step, micro_batch_size=state.micro_batch_size, message=message)
            self.journal.say(message, warning=True)

    def _check_losses(self) -> None:
        """Stop where too many losses in a row were not finite; called whenever losses have been read."""
        in_a_row, patience = self.state.nonfinite_in_a_row, self.config.run.nan_patience
        if in_a_row >= patience:
            raise NonFiniteLossError(
                f"the loss was not finite {in_a_row} times in a row up to step {self.state.step} "
                f"(--nan-patience {patience}). {self._checkpoints_left()}; try a smaller --lr"
            )

    def _checkpoints_left(self) -> str:
        return "Checkpoints are intact" if has_checkpoint(self.run_dir) else "There is no checkpoint yet"

    def _outcome(self, stop: Stop | None) -> Outcome:
        advice = f"{self.journal.divergence()}; try a smaller --lr" if self.state.is_diverged else None
        if stop is not None:
            return Outcome("stopped", "; ".join(filter(None, (stop.reason, advice))), stop.exit_code)
        return Outcome("finished", "finished", 0) if advice is None else Outcome("diverged", advice, 0)

    def _withdraw(self) -> None:
        """Nothing has begun: the name of a new run stays free, and one that was to be resumed is as it was."""
        try:
            self._stack.close()
        finally:
            if self._new_folder is not None:
                shutil.rmtree(self._new_folder, ignore_errors=True)

    def _fail(self, error: BaseException) -> None:
        """Leave a word about the failure; the failure itself goes on to the caller."""
        message = str(error) or type(error).__name__
        if not self._lock.is_ours():  # what happens in the folder is another process's word
            self._stack.close()
            return
        try:
            # a full disk may be what failed
            with suppress(HRMError):
                self.journal.fail(message, getattr(error, "exit_code", 1))
        finally:
            with suppress(HRMError):
                self._end("failed", message)

    def _end(self, state: State, message: str) -> None:
        """The last word in ``status.json``, then everything is released."""
        try:
            self.monitor.close(state, message)
        finally:
            self._stack.close()
