"""One run, one step at a time.

:func:`hrm_engine.training.train` drives a :class:`Trainer` through a whole run; whoever wants a loop of their own calls
:meth:`Trainer.step` themselves and :meth:`Trainer.finish` at the end.
"""

from __future__ import annotations

import json
import math
import secrets
import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import torch

from hrm_engine.bundles.implant import starting_point
from hrm_engine.bundles.load import build_model, read_core_config
from hrm_engine.config import TextTrainConfig
from hrm_engine.data.text.tokenizer import Tokenizer
from hrm_engine.errors import (
    CheckpointError,
    ConfigError,
    DataError,
    HRMError,
    NonFiniteLossError,
    OutOfMemoryError,
)
from hrm_engine.inference import Evaluation
from hrm_engine.kernels.device import (
    choose_device,
    choose_precision,
    is_out_of_memory,
    keep_freed_memory,
    release_memory,
)
from hrm_engine.models.act import TextLosses
from hrm_engine.models.core import RecurrentCore
from hrm_engine.optim import MasterWeights, UpdateResult, learning_rate, make_updater
from hrm_engine.store.clock import now_iso
from hrm_engine.store.files import finite
from hrm_engine.store.paths import Workspace
from hrm_engine.store.status import State
from hrm_engine.training.checkpoint import (
    Checkpoint,
    environment_changes,
    newest_checkpoint,
    prune_checkpoints,
    save_checkpoint,
)
from hrm_engine.training.finish import finish_run, write_best
from hrm_engine.training.journal import Journal, Observer, PendingStep
from hrm_engine.training.monitor import Monitor
from hrm_engine.training.run_folder import claim_folder, planned_folder, write_args
from hrm_engine.training.state import TrainState
from hrm_engine.training.stopping import Stop, Stopper
from hrm_engine.training.tasks.text import TextTask

T = TypeVar("T")


@dataclass(frozen=True)
class StepReport:
    """One optimizer step. The numbers are still on the device; reading one waits for it."""

    step: int
    lr: float
    num_tokens: int
    losses: TextLosses
    update: UpdateResult[tuple[TextLosses, int]]

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
        update = self._update(lr)
        losses, num_tokens = update.value
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
        if state.nonfinite_in_a_row >= config.run.nan_patience:
            raise NonFiniteLossError(
                f"the loss was not finite {state.nonfinite_in_a_row} times in a row up to step {number} "
                f"(--nan-patience {config.run.nan_patience}). Checkpoints are intact; try a smaller --lr"
            )
        return StepReport(number, lr, num_tokens, losses, update)

    def evaluate(self) -> Evaluation | None:
        """Measure on held-out text, write the row, a sample, and ``best/`` where it is the best so far."""
        self.journal.read(self.state)
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
        config = self.config
        self.device, device_note = choose_device(config.compute.device, strict=config.compute.strict)
        self.precision, precision_note = choose_precision(
            self.device, amp=config.compute.amp, model_dtype=config.compute.model_dtype
        )
        self.stopper = Stopper(
            stop_file=None if config.run.stop_file is None else self.workspace.resolve(config.run.stop_file),
            max_minutes=config.run.max_minutes,
        )
        messages = [note for note in (device_note, precision_note) if note]
        checkpoint = None
        if self._resume:
            folder = claim_folder(config, self.workspace, resume=True, fresh=self._fresh)
            self._stack.callback(folder.lock.release)
            messages += folder.messages
            checkpoint = self._restore(folder.path, messages)
        else:
            # Whatever cannot start is found before a folder is made for it, or an old one is moved away.
            planned_folder(config, self.workspace, resume=False, fresh=self._fresh)
            self._begin(messages)
            folder = claim_folder(config, self.workspace, resume=False, fresh=self._fresh)
            self._stack.callback(folder.lock.release)
            self._new_folder = folder.path
            messages += folder.messages
            write_args(folder.path, config, self._command_line)
        self.run_dir = folder.path
        self.tokenizer = self.task.tokenizer
        self._saved_step = self.state.step
        self.run_id = _first_run_id(self.run_dir) or f"{self.run_dir.name}-{secrets.token_hex(4)}"
        self._begin_journal(checkpoint, messages)

    def _begin(self, messages: list[str]) -> None:
        """The state before the first step."""
        config = self.config
        start = starting_point(config.start.model, hidden_size=config.network.hidden_size, workspace=self.workspace)
        messages += start.messages
        self.task = TextTask(config, start.tokenizer, self.workspace)
        self.core = self.task.core_config(start)
        model, parent = self.task.new_model(self.core, start, self.workspace)
        self.state = TrainState(
            micro_batch_size=config.run.batch_size,
            schedule_steps=config.run.steps,
            created=now_iso(),
            parent=parent,
            datasets=[self._dataset()],
        )
        self._prepare(model)

    def _restore(self, run_dir: Path, messages: list[str]) -> Checkpoint | None:
        """The state of the newest whole checkpoint, which is returned; without one, the state before the first step."""
        checkpoint, warnings = newest_checkpoint(run_dir)
        messages += warnings
        if checkpoint is None:
            messages.append("--resume: no checkpoint yet, starting at step 0")
            self._begin(messages)
            return None
        self.state = checkpoint.state
        if self.state.step > self.total_steps:
            raise ConfigError(
                f"--resume: {checkpoint.path.name} is beyond the saved --steps {self.total_steps}; "
                f"give --steps {self.state.step} or more"
            )
        self.task = TextTask(self.config, Tokenizer.load(checkpoint.path), self.workspace)
        self._check_data(checkpoint, messages)
        messages += environment_changes(checkpoint.environment, self.device)
        self.core = read_core_config(checkpoint.path)
        self._prepare(build_model(self.core, checkpoint.weights, where=checkpoint.path, error=CheckpointError))
        self.updater.load_state_tensors(checkpoint.optimizer)
        # a kill can have interrupted the removal of an old one
        prune_checkpoints(run_dir, keep_last=self.config.run.keep_last, newest_step=self.state.step)
        return checkpoint

    def _prepare(self, model: RecurrentCore) -> None:
        """Bring a model with fp32 weights to the device, in the types it computes in, with its optimizer."""
        config = self.config
        first_weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        self.model = model.to(device=self.device, dtype=self.precision.compute)
        self.masters = MasterWeights(self.model, self.precision.master)
        self.masters.load(first_weights)
        self.updater = make_updater(self.masters, config.optim, loss_scaling=self.precision.loss_scaling)
        checkpointing = config.compute.gradient_checkpointing
        self.checkpointing = self.device.type != "cpu" if checkpointing is None else checkpointing
        wants_compile = config.compute.compile
        if self.device.type == "cuda" if wants_compile is None else wants_compile:
            self.model.compile()

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
            self.journal.say(message, warning=True)
        self.monitor = Monitor(self.run_dir, self.device, step=lambda: self.state.step, write=self.journal.write)
        self._stack.enter_context(self.monitor)
        self._stack.enter_context(self.stopper)
        self.monitor.say("training")
        self.journal.restart_clock()

    def _update(self, lr: float) -> UpdateResult[tuple[TextLosses, int]]:
        def attempt(micro_batch: int) -> UpdateResult[tuple[TextLosses, int]]:
            batches = self.task.batches(self.state.rows, self.rows_per_step, micro_batch, self.device)
            return self.updater.update(
                lambda backward: self.task.losses(self.model, batches, backward, checkpointing=self.checkpointing),
                lr=lr,
            )

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

    def _weights(self, dtype: torch.dtype) -> dict[str, torch.Tensor]:
        return {name: tensor.to(dtype) for name, tensor in self.masters.tensors().items()}

    def _dataset(self) -> dict[str, Any]:
        facts = self.task.facts
        return {
            "dataset": str(self.config.data.dataset_file),
            "fingerprint": facts.fingerprint,
            "documents": facts.num_documents,
        }

    def _check_data(self, checkpoint: Checkpoint, messages: list[str]) -> None:
        if checkpoint.fingerprint == self.task.facts.fingerprint:
            return
        what = f"{self.config.data.dataset_file} is not what it was when this run began (its fingerprint differs)"
        if not self._allow_changed_data:
            raise DataError(
                f"{what}: the batch order would differ. Restore the data, or continue on the new data with "
                "--allow-changed-data"
            )
        messages.append(f"{what}: continuing on the new data")
        self.state.datasets[-1]["rows"] = self.state.rows
        self.state.datasets.append(self._dataset())

    def _withdraw(self) -> None:
        """Nothing has begun: the name of a new run stays free, and one that was to be resumed is as it was."""
        self._stack.close()
        if self._new_folder is not None:
            shutil.rmtree(self._new_folder, ignore_errors=True)

    def _fail(self, error: BaseException) -> None:
        """Leave a word about the failure; the failure itself goes on to the caller."""
        message = str(error) or type(error).__name__
        # a full disk may be what failed
        with suppress(HRMError):
            self.journal.fail(self.state, message, getattr(error, "exit_code", 1))
        with suppress(HRMError):
            self._end("failed", message)

    def _end(self, state: State, message: str) -> None:
        """The last word in ``status.json``, then everything is released."""
        try:
            self.monitor.close(state, message)
        finally:
            self._stack.close()


def _first_run_id(run_dir: Path) -> str | None:
    """The id under which the rows of a run stand; None where it has none yet."""
    try:
        with (run_dir / "metrics.jsonl").open(encoding="utf8") as file:
            row = json.loads(file.readline())
    except (OSError, ValueError):
        return None
    run_id = row.get("run_id") if isinstance(row, dict) else None
    return run_id if isinstance(run_id, str) else None
