"""Which weights of a run are evaluated, which are kept as the best, and which become the bundle."""

from __future__ import annotations

import math
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hrm_engine.bundles.listing import metadata_problems
from hrm_engine.bundles.save import seal_bundle, write_model
from hrm_engine.bundles.weights import load_tensors, save_tensors
from hrm_engine.errors import StorageError
from hrm_engine.reading import LINK
from hrm_engine.store.clock import now_iso
from hrm_engine.store.files import finite, new_folder, readable_json, write_json
from hrm_engine.store.manifest import check_entries, check_manifest, write_manifest
from hrm_engine.store.paths import BEST_FOLDER, CHECKPOINTS_FOLDER, METADATA_FILE, STATE_FILE
from hrm_engine.store.processes import library_version
from hrm_engine.training.checkpoint import EMA_PREFIX, STATE_SCHEMA, environment
from hrm_engine.training.journal import Journal
from hrm_engine.training.run_folder import CommandLines, write_args
from hrm_engine.training.setup import Setup
from hrm_engine.training.task import Evaluated

EVALUATION_FOLDER = "evaluation"
EVALUATION_FILE = "evaluation.json"
LIBRARIES = ("torch", "numpy", "transformers", "tokenizers", "safetensors", "bitsandbytes")

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

    def save(self) -> Path:
        """Write the exact state after ``state.step``; one of the same step is replaced. Raises StorageError."""
        setup, master = self._setup, self._setup.precision.master
        weights = {n: t.to(torch.promote_types(t.dtype, master)) for n, t in setup.weights.tensors().items()}
        average = {} if setup.average is None else setup.average.state_tensors()
        optimizer = {**setup.updater.state_tensors(), **{EMA_PREFIX + name: t for name, t in average.items()}}
        folder = self._run_dir / CHECKPOINTS_FOLDER
        if folder.is_symlink():
            raise StorageError(f"cannot write in {folder}: {LINK}")
        path = folder / f"step_{setup.state.step:08d}"
        with new_folder(path, replace=True) as folder:
            self._write_model(folder, weights)
            save_tensors(folder, "optimizer", optimizer)
            if task := setup.task.state_tensors():
                save_tensors(folder, "task", task)
            write_args(folder, setup.config, CommandLines())
            content = {
                "schema_version": STATE_SCHEMA,
                "state": setup.state.as_json(),
                "dataset_fingerprint": setup.task.facts.fingerprint,
                "environment": environment(setup.device),
            }
            write_json(folder / STATE_FILE, content)
            write_manifest(folder)
        return path

    def keep_if_best(self, result: Evaluated) -> None:
        """Write ``best/`` where an evaluation is better than all before. Raises StorageError."""
        state = self._setup.state
        improved = state.best_score is None or result.score < state.best_score
        # What has not been trained yet is no result: a run stopped early keeps what it has learned so far.
        if state.step > 0 and improved and all(math.isfinite(part) for part in result.score):
            state.best_score, state.best_step, state.evals_since_best = result.score, state.step, 0
            self._write_best(self._weights(), state.last_eval or {})
        elif state.step > 0:
            state.evals_since_best += 1

    def check_best(self) -> list[str]:
        """Verify ``best/`` like a checkpoint; sentences for the user where it is damaged.

        The bundle of an earlier session may hold the same weights: then ``best/`` is made of them again. Without them
        the best evaluation is lost, and the next one counts as the best. Raises StorageError.
        """
        state, folder = self._setup.state, self._run_dir / BEST_FOLDER
        if state.best_step is None or not (problems := check_manifest(folder)):
            return []
        what = f"{BEST_FOLDER}/, the weights of step {state.best_step}, is damaged: {'; '.join(problems)}"
        metadata = readable_json(self._run_dir / METADATA_FILE)
        weights, files = metadata.get("weights"), metadata.get("files")
        which = (weights.get("which"), weights.get("step")) if isinstance(weights, dict) else None
        if which != ("best", state.best_step) or metadata_problems(self._run_dir, best=False):
            state.best_step, state.best_score = None, None
            return [f"{what}. There is no copy of them: from here on the best of the evaluations to come counts"]
        sealed = f"{BEST_FOLDER}/{EVALUATION_FILE}"
        evaluation: dict[str, Any] = {"step": state.best_step}
        if isinstance(files, dict) and not check_entries(self._run_dir, {sealed: files.get(sealed)}):
            evaluation = readable_json(folder / EVALUATION_FILE)
        name = self._setup.config.weights_name
        self._write_best(load_tensors(self._run_dir, name), evaluation)
        return [f"{what}. It was made again of {name}.safetensors, which holds the same weights"]

    def _write_best(self, weights: dict[str, Tensor], evaluation: dict[str, Any]) -> None:
        with new_folder(self._run_dir / BEST_FOLDER, replace=True) as folder:
            self._write_model(folder, weights)
            write_json(folder / EVALUATION_FILE, evaluation)
            write_manifest(folder)

    def write_bundle(self, measure: Measure | None, *, run_id: str, commands: CommandLines) -> None:
        """Write the weights of the best evaluation if there is one, else the last; ``metadata.json`` comes last.

        Args:
            measure: evaluates the model on all held-out data (``full=True``); None leaves that out.
        """
        setup, state, device = self._setup, self._setup.state, self._setup.device
        for message in self.check_best():
            self._journal.say(message, warning=True)
        which: dict[str, Any] = {"which": "best", "step": state.best_step}
        weights = self._best_weights()
        if weights is None:
            weights, which = self._weights(), {"which": "last", "step": state.step}
        measured = self.best_evaluation() or state.last_eval or {}
        if setup.average is not None:
            which["average"] = setup.config.optim.ema_decay
        if measure is not None:
            self._evaluate_fully(weights, measure, which["step"])
        files = self._write_model(self._run_dir, weights, setup.config.weights_name)
        write_args(self._run_dir, setup.config, commands)
        versions = {name: library_version(name) for name in LIBRARIES}
        facts = {
            "run_id": run_id,
            "created": state.created,
            "updated": now_iso(),
            "step": state.step,
            "planned_steps": setup.config.run.steps,
            "is_complete": measure is not None,
            "weights": which,
            "parent": state.parent,
            "code_version": library_version("hrm-lab"),
            "device": torch.cuda.get_device_name(device) if device.type == "cuda" else str(device),
            "library_versions": {
                "python": platform.python_version(),
                **{name: version for name, version in versions.items() if version is not None},
            },
            "dataset_history": state.datasets,
            "metrics": measured if measured.get("step") == which["step"] else None,
            "last_metrics": state.last_eval,
            "first_metrics": state.first_eval,
            "full_evaluation": state.full_eval,
            "trained_s": round(state.trained_s, 3),
            **setup.task.bundle_facts(),
        }
        seal_bundle(self._run_dir, setup.config.kind, files, facts)
        setup.task.finished(self._run_dir, state)

    def _evaluate_fully(self, weights: dict[str, Tensor], measure: Measure, weights_step: int | None) -> None:
        setup, started = self._setup, time.perf_counter()
        kept = {name: tensor.detach().clone() for name, tensor in setup.model.state_dict().items()}
        setup.model.load_state_dict(weights, strict=False)  # frozen ones are not among them
        try:
            result = measure(full=True)
        finally:
            setup.model.load_state_dict(kept)
        if result is None:
            return
        took = time.perf_counter() - started
        fields = {**result.fields, "full": True, "weights_step": weights_step}
        self._journal.write("eval", setup.state.step, **fields, eval_time_s=took)
        self._journal.say(f"the bundle (weights of step {weights_step}) on all held-out data: {result.summary}")
        setup.state.full_eval = finite({"step": weights_step, **result.fields})
        if result.write_files is not None:
            with new_folder(self._run_dir / EVALUATION_FOLDER, replace=True) as folder:
                result.write_files(folder)

    def _write_model(self, folder: Path, weights: dict[str, Tensor], name: str = "model") -> list[str]:
        kind, task = self._setup.config.kind, self._setup.task
        return write_model(folder, kind, task.core, weights, task.companions, weights_name=name)

    def best_evaluation(self) -> dict[str, Any] | None:
        """The evaluation of the weights in ``best/``; None where they are not those of this run's best one.

        After a kill, ``best/`` can be ahead of the checkpoint that the run was continued from.
        """
        best_step = self._setup.state.best_step
        evaluation = readable_json(self._run_dir / BEST_FOLDER / EVALUATION_FILE)
        return evaluation if best_step is not None and evaluation.get("step") == best_step else None

    def _best_weights(self) -> dict[str, Tensor] | None:
        return None if self.best_evaluation() is None else load_tensors(self._run_dir / BEST_FOLDER, "model")

    def _weights(self) -> dict[str, Tensor]:
        """What a bundle holds, copied: buffers are the model's own."""
        setup = self._setup
        source = setup.weights if setup.average is None else setup.average
        with setup.updater.evaluating():
            tensors = source.tensors().items()
            wide, stored = setup.task.keeps_wide, setup.precision.stored
            return {name: t.to(t.dtype if wide(name) else stored, copy=True) for name, t in tensors}
