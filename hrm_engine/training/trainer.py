"""One run, one step at a time.

:func:`hrm_engine.training.train` drives a :class:`Trainer` through a whole run; whoever wants a loop of their own calls
:meth:`Trainer.step` themselves and :meth:`Trainer.finish` at the end.
"""

from __future__ import annotations

import math
import secrets
import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TypeVar

import torch

from hrm_engine.config import TextTrainConfig
from hrm_engine.errors import HRMError, NonFiniteLossError, OutOfMemoryError
from hrm_engine.inference import Evaluation
from hrm_engine.kernels.device import is_out_of_memory, keep_freed_memory, release_memory
from hrm_engine.models.act import TextLosses
from hrm_engine.optim import UpdateResult, learning_rate
from hrm_engine.store.files import finite
from hrm_engine.store.paths import Workspace
from hrm_engine.store.status import State
from hrm_engine.training.checkpoint import Checkpoint, prune_checkpoints, save_checkpoint
from hrm_engine.training.finish import finish_run, write_best
from hrm_engine.training.journal import Journal, Observer, PendingStep
from hrm_engine.training.monitor import Monitor
from hrm_engine.training.run_folder import claim_folder, planned_folder, saved_run_id, write_args
from hrm_engine.training.setup import first_setup, resumed_setup
from hrm_engine.training.stopping import Stop, Stopper

T = TypeVar("T")


@dataclass(frozen=True)
class StepReport:
    """One optimizer step. The numbers are still on the device; reading one waits for it."""

    step: int
    lr: float
    num_tokens: int
    losses: TextLosses
    update: UpdateResult[TextLosses]

    @property
    def loss(self) -> float:
        """Mean cross-entropy in nats per token over the segments."""
        return float(self.losses.ce_by_segment.mean()) / max(1, self.num_tokens)


class Trainer:
    """Context manager around a run folder: claims it, restores or starts the state, steps, saves.

    To resume, give it what :func:`~hrm_engine.training.run_folder.resumed_config` made of the saved configuration.

    Raises on entering:
        ConfigError, DataError, BundleError, CheckpointError: what was asked for cannot be done.
        LockedError: another trainer is at work there. StorageError: the folder cannot be written.
    """

    def __init__(
        self,
        config: TextTrainConfig,
        *,
        resume: bool = False,
        fresh: bool = False,
        allow_changed_data: bool = False,
        command_line: Sequence[str] | None = None,
        workspace: Workspace | None = None,
        observer: Observer | None = None,
    ) -> None:
        self.workspace = workspace or Workspace.find()
        self.config = config.resolved()
        self._resume = resume
        self._fresh = fresh
        self._allow_changed_data = allow_changed_data
        self._command_line = None if command_line is None else list(command_line)
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
    def total_steps(self) -> int:
        """Optimizer steps of the whole run."""
        return self.config.run.steps

    @property
    def step_number(self) -> int:
        """Optimizer steps done."""
        return self.state.step

    @property
    def rows_per_step(self) -> int:
        """Effective batch size: rows of an optimizer step, accumulation included."""
        return self.config.run.batch_size * self.config.run.gradient_accumulation_steps

    @property
    def eval_every(self) -> int:
        """Steps between evaluations."""
        return self.config.evaluation.eval_every or self.total_steps

    @property
    def save_every(self) -> int:
        """Steps between checkpoints."""
        return self.config.run.save_every or self.total_steps

    def step(self) -> StepReport:
        """Make one optimizer step on the next rows.

        Raises:
            NonFiniteLossError: ``nan_patience`` losses in a row were not finite; checkpoints are intact.
            OutOfMemoryError: not even a micro-batch of one row fits. StorageError: the metrics cannot be written.
        """
        if self.monitor.failure is not None:
            raise self.monitor.failure
        state, config = self.state, self.config
        number = state.step + 1
        lr = learning_rate(
            number,
            peak=config.optim.lr,
            total_steps=state.schedule_steps,
            warmup_steps=config.optim.warmup_steps or 0,
            schedule=config.optim.lr_scheduler,
            min_ratio=config.optim.lr_min_ratio,
        )
        update, num_tokens = self._update(lr)
        losses = update.value
        state.step = number
        state.rows += self.rows_per_step
        state.tokens += num_tokens
        state.token_segments += num_tokens * self.task.num_segments
        counters = {
            "step": number,
            "lr": lr,
            "rows": state.rows,
            "tokens": state.tokens,
            "token_segments": state.token_segments,
            "effective_batch_size": self.rows_per_step,
            "dataset_position": (self.task.order.start_offset + state.rows) % len(self.task.rows),
            "epoch": self.task.order.epoch(state.rows),
        }
        self.journal.add(PendingStep(losses, update.grad_norm, update.stepped, num_tokens, counters), state)
        self._check_losses()
        return StepReport(number, lr, num_tokens, losses, update)

    def evaluate(self) -> Evaluation | None:
        """Measure on held-out text, write the row, a sample, and ``best/`` where it is the best so far."""
        self.journal.read(self.state)
        self._check_losses()
        if self.task.unigram_loss is None:
            return None
        self.monitor.say("evaluating")
        started = time.perf_counter()
        state = self.state
        result = self._halving(lambda rows: self.task.evaluate(self.model, rows, self.device))
        if result is None:
            return None
        fields = {
            "loss": result.loss,
            "perplexity": result.perplexity,
            "token_accuracy": result.token_accuracy,
            "loss_by_segment": result.loss_by_segment,
            "token_accuracy_by_segment": result.token_accuracy_by_segment,
            "num_tokens": result.num_tokens,
            "unigram_loss": self.task.unigram_loss,
        }
        self.journal.write("eval", state.step, **fields, eval_time_s=time.perf_counter() - started)
        self.journal.say(f"step {state.step}: validation loss {result.loss:.4f} (unigram {self.task.unigram_loss:.4f})")
        state.last_eval = finite({"step": state.step, **fields})
        state.first_eval = state.first_eval or state.last_eval
        if (sample := self.task.sample(self.model, self.core)) is not None:
            state.last_sample = sample.prompt + sample.text
            self.journal.write("sample", state.step, prompt=sample.prompt, text=sample.text)
        improved = state.best_loss is None or result.loss < state.best_loss
        # What has not been trained yet is no result: a run stopped early keeps what it has learned so far.
        if state.step > 0 and improved and math.isfinite(result.loss):
            state.best_loss, state.best_step = result.loss, state.step
            write_best(self.run_dir, self.core, self._weights(self.precision.stored), self.tokenizer, state)
        self.monitor.say("training")
        self.journal.restart_clock()
        return result

    def save(self) -> Path:
        """Write a checkpoint of this moment and drop the ones beyond ``keep_last``. Raises StorageError."""
        self.journal.read(self.state)
        self._check_losses()
        self.journal.metrics.flush()
        self.monitor.say("saving")
        started = time.perf_counter()
        path = save_checkpoint(
            self.run_dir,
            core=self.core,
            config=self.config,
            tokenizer=self.tokenizer,
            weights=self._weights(self.precision.master),
            optimizer=self.updater.state_tensors(),
            state=self.state,
            fingerprint=self.task.facts.fingerprint,
            device=self.device,
        )
        self.journal.write(
            "checkpoint",
            self.state.step,
            path=path.relative_to(self.run_dir).as_posix(),
            bytes=sum(file.stat().st_size for file in path.iterdir()),
            save_time_s=time.perf_counter() - started,
        )
        prune_checkpoints(self.run_dir, keep_last=self.config.run.keep_last, newest_step=self.state.step)
        self._saved_step = self.state.step
        self.monitor.say("training")
        self.journal.restart_clock()
        return path

    def finish(self, stop: Stop | None = None) -> None:
        """Save what is not saved yet and write the bundle; ``stop`` is why the run ends early."""
        if self.state.step > 0 and self._saved_step != self.state.step:
            self.save()
        self.journal.read(self.state)
        self._check_losses()
        message = "finished" if stop is None else stop.reason
        if self.state.step > 0:
            self.monitor.say("writing the bundle")
            self.state.datasets[-1]["rows"] = self.state.rows
            finish_run(
                self.run_dir,
                core=self.core,
                config=self.config,
                command_line=self._command_line,
                weights=self._weights(self.precision.stored),
                tokenizer=self.tokenizer,
                state=self.state,
                run_id=self.run_id,
                device=self.device,
            )
        if stop is None:
            self.journal.write("final", self.state.step, message=message, loss=(self.state.last_eval or {}).get("loss"))
        else:
            self.journal.write("stop", self.state.step, reason=message, exit_code=stop.exit_code)
        self.journal.say(f"step {self.state.step}: {message}")
        self.journal.metrics.flush()
        self._finished = True
        self._end("finished" if stop is None else "stopped", message)

    def check_stop(self) -> Stop | None:
        """Why the run should stop now, if there is a reason."""
        return self.stopper.check()

    def _open(self) -> None:
        keep_freed_memory()
        config, workspace = self.config, self.workspace
        self.stopper = Stopper(
            stop_file=None if config.run.stop_file is None else workspace.resolve(config.run.stop_file),
            max_minutes=config.run.max_minutes,
        )
        if self._resume:
            folder = claim_folder(config, workspace, resume=True, fresh=self._fresh)
            self._stack.callback(folder.lock.release)
            setup = resumed_setup(config, workspace, folder.path, allow_changed_data=self._allow_changed_data)
        else:
            # Whatever cannot start is found before a folder is made for it, or an old one is moved away.
            planned_folder(config, workspace, resume=False, fresh=self._fresh)
            setup = first_setup(config, workspace)
            folder = claim_folder(config, workspace, resume=False, fresh=self._fresh)
            self._stack.callback(folder.lock.release)
            self._new_folder = folder.path
            write_args(folder.path, config, self._command_line)
        self.run_dir = folder.path
        self.device, self.precision, self.checkpointing = setup.device, setup.precision, setup.checkpointing
        self.task, self.tokenizer, self.core = setup.task, setup.task.tokenizer, setup.core
        self.model, self.masters, self.updater, self.state = setup.model, setup.masters, setup.updater, setup.state
        self._saved_step = self.state.step
        self.run_id = saved_run_id(self.run_dir) or f"{self.run_dir.name}-{secrets.token_hex(4)}"
        self._begin_journal(setup.checkpoint, [*setup.messages, *folder.messages])

    def _begin_journal(self, checkpoint: Checkpoint | None, messages: list[str]) -> None:
        config = self.config
        log_file = config.run.log_file
        self.journal = Journal(
            self.run_dir,
            self.run_id,
            copies=() if log_file is None else (self.workspace.resolve(log_file),),
            observer=self._observer,
            device=self.device,
            loss_scaling=self.precision.loss_scaling,
            log_every=max(1, config.run.steps // 50),
        )
        self._stack.callback(self.journal.close)
        facts = self.task.facts
        self.journal.write(
            "resume" if self._resume else "start",
            self.state.step,
            run_dir=str(self.run_dir),
            total_steps=config.run.steps,
            num_parameters=sum(p.numel() for p in self.model.parameters()),
            num_rows=facts.num_rows,
            num_documents=facts.num_documents,
            num_held_out_documents=facts.num_held_out,
            device=str(self.device),
            dtype=str(self.precision.compute).removeprefix("torch."),
            num_threads=torch.get_num_threads(),
            from_checkpoint=None if checkpoint is None else checkpoint.path.relative_to(self.run_dir).as_posix(),
            command_line=self._command_line,
            messages=[*messages, *facts.messages],
        )
        for message in (*messages, *facts.messages):
            self.journal.say(message)
        self.monitor = Monitor(self.run_dir, self.device, step=lambda: self.state.step, write=self.journal.write)
        self._stack.enter_context(self.monitor)
        self._stack.enter_context(self.stopper)
        self.monitor.say("training")
        self.journal.restart_clock()

    def _update(self, lr: float) -> tuple[UpdateResult[TextLosses], int]:
        def attempt(micro_batch: int) -> tuple[UpdateResult[TextLosses], int]:
            rows = self.task.rows_of_step(self.state.rows, self.rows_per_step, micro_batch, self.device)
            result = self.updater.update(
                lambda backward: self.task.losses(self.model, rows, backward, checkpointing=self.checkpointing), lr=lr
            )
            return result, rows.num_tokens

        return self._halving(attempt)

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
                        "memory ran out with a micro-batch of one row; use a smaller --max-seq-len or model, "
                        "--gradient-checkpointing, or --use-8bit-optimizer"
                    ) from error
            # outside of the handler, where the failed attempt's tensors are still alive
            self.masters.zero_grad()
            release_memory(self.device)
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
                f"(--nan-patience {patience}). Checkpoints are intact; try a smaller --lr"
            )

    def _weights(self, dtype: torch.dtype) -> dict[str, torch.Tensor]:
        return {name: tensor.to(dtype) for name, tensor in self.masters.tensors().items()}

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
        try:
            # a full disk may be what failed
            with suppress(HRMError):
                self.journal.fail(self.state, message, getattr(error, "exit_code", 1))
        finally:
            with suppress(HRMError):
                self._end("failed", message)

    def _end(self, state: State, message: str) -> None:
        """The last word in ``status.json``, then everything is released."""
        try:
            self.monitor.close(state, message)
        finally:
            self._stack.close()
