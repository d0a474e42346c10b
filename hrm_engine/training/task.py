"""What differs between trainings, as the trainer sees it.

A task owns its data, its model's first weights, its losses and its evaluation. It knows nothing of optimizers, files of
the run, stopping or resuming: those are written once, in the trainer.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor

from hrm_engine.config import Config, kinds
from hrm_engine.config.training import TrainConfig
from hrm_engine.optim.updater import Backward
from hrm_engine.store.paths import Workspace
from hrm_engine.training.state import TrainState


@dataclass(frozen=True)
class DataFacts:
    """What is worth telling about the data, and what identifies it."""

    fingerprint: str
    source: str
    """What the user named, for messages and the dataset history."""
    counts: dict[str, int]
    """Fields of the ``start`` row: ``num_rows`` and what else there is to count."""
    history: dict[str, Any] = field(default_factory=dict)
    """What else the dataset history of the bundle keeps."""
    messages: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Measured:
    """Results of one step; the task knows what they are."""

    numbers: Tensor
    """(n,) on the device, without graph: sums over the rows of this process, so that those of a whole step add up."""
    loss: Tensor
    """Scalar without graph: this process's share of the loss, in the unit of the metrics."""
    counts: dict[str, int] = field(default_factory=dict)
    """Counts that the host knows without waiting for the device, of the whole step."""


class StepWork(Protocol):
    """One optimizer step, not yet made; may be thrown away and prepared anew with a smaller micro-batch."""

    def run(self, backward: Backward) -> Measured:
        """Forward and backward passes of all micro-batches."""
        ...

    def commit(self, stepped: Tensor, schedule_share: float) -> None:
        """Keep what follows from an update: carried states, cursors, and weights with a rule of their own.

        Args:
            stepped: scalar bool on the device, of the whole step: whether it was finite, so that the update was made.
            schedule_share: value of the learning-rate schedule in this step, 0 to 1.
        """
        ...


@dataclass(frozen=True)
class Evaluated:
    """One evaluation."""

    fields: dict[str, Any]
    """Of the ``eval`` row."""
    score: list[float]
    """Lower is better; later entries decide between equals."""
    summary: str
    """One line for the log."""
    write_files: Callable[[Path], None] | None = None
    """Writes what a full evaluation leaves in ``evaluation/`` of the run folder."""


class Companions(Protocol):
    """What a bundle holds beside configuration and weights: a tokenizer, a puzzle card."""

    def save_to(self, folder: Path) -> None:
        """Write the files."""
        ...


class Task(ABC):
    """Data, model, losses and evaluation of one training."""

    kind: ClassVar[str]
    """Of the bundles it leaves."""
    facts: DataFacts
    core: Config
    companions: Companions
    attached: Sequence[dict[str, Any]] = ()
    """Experts attached to what a new run starts from: see :mod:`hrm_engine.training.attached`."""
    decay_all: ClassVar[bool] = False
    """Whether weight decay is on all weights, or on matrices that are no embedding."""

    @classmethod
    def resolve(cls, config: Any, workspace: Workspace) -> Any:
        """The configuration of a new run with every default written out that depends on steps or data."""
        return config.resolved()

    @classmethod
    @abstractmethod
    def first(cls, config: Any, workspace: Workspace) -> tuple[Task, list[str]]:
        """The task of a new run, and sentences for the user.

        Raises:
            ConfigError, DataError, BundleError: the data or what the model starts from cannot be had.
        """

    @classmethod
    @abstractmethod
    def resumed(cls, config: Any, workspace: Workspace, checkpoint: Path) -> tuple[Task, list[str]]:
        """The task of a run that is continued from the folder of a checkpoint, and sentences for the user."""

    @abstractmethod
    def first_model(self, workspace: Workspace) -> tuple[Any, dict[str, str] | None]:
        """A model with its first weights, fp32, on the CPU; and the bundle or file they came from, with its hash."""

    @abstractmethod
    def saved_model(self, folder: Path, weights: dict[str, Tensor]) -> Any:
        """The model of a checkpoint with its weights, on the CPU. Raises CheckpointError where they do not fit."""

    @abstractmethod
    def begin(self, model: Any, device: torch.device, state: TrainState) -> None:
        """The model is on its device in the types it computes in: make what steps need beside it."""

    @abstractmethod
    def work(self, state: TrainState, micro_batch: int, *, checkpointing: bool) -> StepWork:
        """The step after ``state.step``, in parts of ``micro_batch`` rows."""

    @abstractmethod
    def describe(
        self, numbers: list[float], counts: Mapping[str, int], step_time: float, state: TrainState
    ) -> dict[str, Any]:
        """Fields of a ``train`` row from what :class:`Measured` holds; counts rows and tokens in ``state``.

        ``loss`` must be among them. Called once for each step, in order, when the numbers have been read.
        """

    def events(self, step: int, numbers: list[float]) -> list[tuple[str, dict[str, Any]]]:
        """Rows of other events that a step leaves behind its ``train`` row, with their fields."""
        return []

    @abstractmethod
    def speed(self, fields: Mapping[str, Any]) -> str:
        """Throughput in words, from a ``train`` row."""

    @abstractmethod
    def evaluate(self, micro_batch: int, *, full: bool = False) -> Evaluated | None:
        """Measure the model on held-out data, all of it if ``full``; None where evaluation is off."""

    def sample(self) -> dict[str, str] | None:
        """Fields of a ``sample`` row, where the model can show what it does in a few words."""
        return None

    def stop_reason(self, state: TrainState) -> str | None:
        """Why the task has nothing more to gain, if so."""
        return None

    def must_read(self, state: TrainState, num_pending: int) -> bool:
        """Whether pending numbers must be read before another step can be prepared."""
        return False

    def opened(self, run_dir: Path) -> None:
        """A new run has its folder."""
        return

    def bundle_facts(self) -> dict[str, Any]:
        """What ``metadata.json`` holds beside what every bundle tells of itself."""
        return {}

    def finished(self, run_dir: Path, state: TrainState) -> None:
        """The bundle has been written: tell whoever keeps account of it."""
        return

    def close(self) -> None:
        """The training is over, well or not: end what the task keeps running beside it."""
        return

    def state_tensors(self) -> dict[str, Tensor]:
        """What of the task itself must be in a checkpoint."""
        return {}

    def load_state_tensors(self, tensors: dict[str, Tensor]) -> None:
        """Restore what :meth:`state_tensors` gave, after :meth:`begin`."""
        if tensors:
            raise ValueError(f"this task keeps no tensors, and the checkpoint has {sorted(tensors)}")

    def load_forked_tensors(self, tensors: dict[str, Tensor], *, is_same_data: bool) -> list[str]:
        """The same in a fork, whose settings or data may be others: as far as they fit, and what is left out."""
        self.load_state_tensors(tensors)
        return []


def task_of(config: TrainConfig | type[TrainConfig]) -> type[Task]:
    """The task of a configuration's kind."""
    module, name = kinds.of(config).task.split(":")
    task: type[Task] = getattr(import_module(module), name)
    return task
