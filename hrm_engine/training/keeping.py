"""Which weights of a run are evaluated, which are kept as the best, and which become the bundle."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch

from hrm_engine.store.files import finite, new_folder
from hrm_engine.training.checkpoint import EMA_PREFIX
from hrm_engine.training.finish import best_weights, finish_run, write_best
from hrm_engine.training.journal import Journal
from hrm_engine.training.setup import Setup
from hrm_engine.training.task import Evaluated

EVALUATION_FOLDER = "evaluation"

Measure = Callable[..., Evaluated | None]


class Keeper:
    """Works on one run's setup: its weights, their moving average if there is one, and its state."""

    def __init__(self, run_dir: Path, setup: Setup, journal: Journal) -> None:
        self._run_dir = run_dir
        self._setup = setup
        self._journal = journal

    @contextmanager
    def usable_weights(self) -> Iterator[None]:
        """The model has the weights to evaluate: those that the rule says, or their moving average."""
        setup = self._setup
        with setup.updater.evaluating(), nullcontext() if setup.average is None else setup.average.applied():
            yield

    def checkpoint_tensors(self) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
        """Exact weights, and the state of optimizer and moving average."""
        setup = self._setup
        average = {} if setup.average is None else setup.average.state_tensors()
        master = setup.precision.master
        weights = {n: t.to(torch.promote_types(t.dtype, master)) for n, t in setup.weights.tensors().items()}
        return weights, {**setup.updater.state_tensors(), **{EMA_PREFIX + name: t for name, t in average.items()}}

    def keep_if_best(self, result: Evaluated) -> None:
        """Write ``best/`` where an evaluation is better than all before. Raises StorageError."""
        setup, state = self._setup, self._setup.state
        improved = state.best_score is None or result.score < state.best_score
        # What has not been trained yet is no result: a run stopped early keeps what it has learned so far.
        if state.step > 0 and improved and all(math.isfinite(part) for part in result.score):
            state.best_score, state.best_step, state.evals_since_best = result.score, state.step, 0
            write_best(self._run_dir, setup.config.kind, setup.task.core, self._weights(), setup.task.companions, state)
        elif state.step > 0:
            state.evals_since_best += 1

    def write_bundle(self, measure: Measure | None, *, run_id: str, command_line: list[str] | None) -> None:
        """Seal the weights of the best evaluation if there is one, else the last. Raises StorageError.

        Args:
            measure: evaluates the model on all held-out data (``full=True``); None leaves that out.
        """
        setup, state = self._setup, self._setup.state
        which: dict[str, Any] = {"which": "best", "step": state.best_step}
        weights = best_weights(self._run_dir, state)
        if weights is None:
            weights, which = self._weights(), {"which": "last", "step": state.step}
        if setup.average is not None:
            which["average"] = setup.config.optim.ema_decay
        if measure is not None:
            self._evaluate_fully(weights, measure)
        finish_run(
            self._run_dir,
            core=setup.task.core,
            config=setup.config,
            command_line=command_line,
            weights=weights,
            which=which,
            companions=setup.task.companions,
            state=state,
            run_id=run_id,
            device=setup.device,
            facts=setup.task.bundle_facts(),
        )
        setup.task.finished(self._run_dir, state)

    def _evaluate_fully(self, weights: dict[str, torch.Tensor], measure: Measure) -> None:
        setup, started = self._setup, time.perf_counter()
        kept = {name: tensor.detach().clone() for name, tensor in setup.model.state_dict().items()}
        setup.model.load_state_dict(weights, strict=False)  # frozen ones are not among them
        try:
            result = measure(full=True)
        finally:
            setup.model.load_state_dict(kept)
        if result is None:
            return
        self._journal.write(
            "eval", setup.state.step, **result.fields, full=True, eval_time_s=time.perf_counter() - started
        )
        self._journal.say(f"the bundle on all held-out data: {result.summary}")
        setup.state.full_eval = finite(result.fields)
        if result.write_files is not None:
            with new_folder(self._run_dir / EVALUATION_FOLDER, replace=True) as folder:
                result.write_files(folder)

    def _weights(self) -> dict[str, torch.Tensor]:
        """What a bundle holds, copied: buffers are the model's own."""
        setup = self._setup
        source = setup.weights if setup.average is None else setup.average
        with setup.updater.evaluating():
            tensors = source.tensors().items()
            wide, stored = setup.task.keeps_wide, setup.precision.stored
            return {name: t.to(t.dtype if wide(name) else stored, copy=True) for name, t in tensors}
