"""What differs between trainings, as the trainer sees it.

A task owns its data, its model's first weights, its losses and its evaluation. It knows nothing of optimizers, files of
the run, stopping or resuming: those are written once, in the trainer.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self

import torch
from torch import Tensor, nn

from hrm_engine.bundles.save import Companions
from hrm_engine.bundles.weights import check_shapes
from hrm_engine.config import Config, kinds
from hrm_engine.config.training import TrainConfig
from hrm_engine.errors import CheckpointError
from hrm_engine.optim.updater import Backward
from hrm_engine.optim.weights import Trainable
from hrm_engine.store.paths import Workspace
from hrm_engine.training.costs import Costs, DryStep
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
    baselines: str = ""
    """The same of answers without a model, which the log has once."""
    write_files: Callable[[Path], None] | None = None
    """Writes what a full evaluation leaves in ``evaluation/`` of the run folder."""


class NoCompanions:
    """Of a bundle that is configuration and weights alone."""

    def save_to(self, folder: Path) -> list[str]:
        """Nothing to write."""
        return []


class Model(Trainable, Protocol):
    """What a training needs of a model; a module of torch has all of it."""

    def parameters(self) -> Iterator[nn.Parameter]: ...

    def state_dict(self) -> dict[str, Tensor]: ...

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any: ...

    def to(self, *, device: torch.device, dtype: torch.dtype) -> Self: ...

    def compile(self) -> None: ...


class Task(ABC):
    """Data, model, losses and evaluation of one training."""

    kind: ClassVar[str]
    """Of the bundles it leaves."""
    config: Any
    facts: DataFacts
    core: Config
    companions: Companions = NoCompanions()
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
    def resumed(cls, config: Any, workspace: Workspace, checkpoint: Path) -> tuple[Task, list[str]]:
        """The task of a run that is continued from the folder of a checkpoint, and sentences for the user."""
        return cls.first(config, workspace)

    @classmethod
    def in_steps(cls, config: Any, workspace: Workspace) -> Any:
        """The configuration of a fork with its length in steps, and every default that depends on it written out."""
        return config.resolved()

    @classmethod
    @abstractmethod
    def network_for(cls, config: Any, workspace: Workspace) -> Config:
        """What a new run with this configuration trains: ``config.json`` of its bundle. No more is read than it takes.

        Raises:
            ConfigError, DataError, BundleError: as :meth:`first`.
        """

    @classmethod
    @abstractmethod
    def build(cls, network: Any) -> Any:
        """A :class:`Model` of these settings, with any weights; on the device ``meta`` too."""

    @classmethod
    @abstractmethod
    def dry_step(cls, config: Any, network: Any, model: Any, device: torch.device, *, checkpointing: bool) -> DryStep:
        """A step on made-up rows, for estimates."""

    @classmethod
    def costs(cls, config: Any, network: Any) -> Costs:
        """What is known of the costs of a step beyond what a dry step tells."""
        return Costs()

    @classmethod
    def built_first(cls, workspace: Workspace) -> list[Path]:
        """Places that a new run fills by itself where they are missing."""
        return []

    @classmethod
    def for_trial(cls, config: Any) -> Any:
        """The same training with evaluations of a few batches, whose time grows with their rows."""
        return config

    def evaluation_rows(self, config: Any) -> tuple[int, int]:
        """Rows of a periodic evaluation and of the one at the end under these settings, for their times to compare."""
        return 1, 0

    def first_model(self, workspace: Workspace) -> tuple[Any, dict[str, str] | None]:
        """A model with its first weights, fp32, on the CPU; and the bundle or file they came from, with its hash."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.config.run.seed)
            return self.build(self.core), None

    def saved_model(self, folder: Path, weights: dict[str, Tensor]) -> Any:
        """The model of a checkpoint with its weights, on the CPU. Raises CheckpointError where they do not fit."""
        model = self.build(self.core)
        load_checked(model, weights, folder)
        return model

    def forked_model(self, folder: Path, weights: dict[str, Tensor], saved: Any) -> tuple[Any, list[str]]:
        """The model of a fork: the checkpoint's weights, and settings that may be others; sentences on what differs.

        Args:
            saved: configuration of the checkpoint.

        Raises:
            ConfigError: the weights do not fit the network that is asked for.
        """
        return self.saved_model(folder, weights), []

    def forked_state(self, state: TrainState, folder: Path, saved: Any, workspace: Workspace) -> list[str]:
        """Change what a fork has otherwise in the state of the checkpoint in ``folder``; sentences for the user."""
        return []

    def other_data(self, saved: Any) -> list[str]:
        """What to say where the data of a fork is not that of its parent."""
        return [f"{self.facts.source} is not what was trained on up to here"]

    @abstractmethod
    def begin(self, model: Any, device: torch.device, state: TrainState) -> None:
        """The model is on its device in the types it computes in: make what steps need beside it."""

    def fill(self, state: TrainState) -> None:
        """Keep in the first state of a run what it must go on with, whatever happens outside of it."""
        return

    def frozen_rows(self) -> list[tuple[str, int]]:
        """Parameters, by name, and which of their rows stay as they are; asked after :meth:`begin`."""
        return []

    def keeps_wide(self, name: str) -> bool:
        """Whether a bundle keeps a weight in the type that it is updated in, whatever the rest is stored in."""
        return False

    @abstractmethod
    def work(self, state: TrainState, micro_batch: int, *, checkpointing: bool, num_pending: int = 0) -> StepWork:
        """The step after ``state.step``, in parts of ``micro_batch`` rows.

        Args:
            num_pending: last steps whose numbers have not been read yet: :meth:`count` does not know of them.
        """

    def count(self, numbers: list[float], counts: Mapping[str, int], state: TrainState) -> None:
        """Count a step's rows and tokens in ``state``; once for each step, in order, when its numbers are read."""
        state.rows += counts.get("rows", 0)
        state.tokens += counts.get("num_tokens", 0)
        state.token_segments += counts.get("token_segments", 0)

    @abstractmethod
    def describe(
        self, numbers: list[float], counts: Mapping[str, int], step_time: float, state: TrainState
    ) -> dict[str, Any]:
        """Fields of a ``train`` row, ``loss`` among them, from what :class:`Measured` holds; after :meth:`count`."""

    def events(self, step: int, numbers: list[float]) -> list[tuple[str, dict[str, Any]]]:
        """Rows of other events that a step leaves behind its ``train`` row, with their fields."""
        return []

    @abstractmethod
    def evaluate(self, micro_batch: int, *, full: bool = False) -> Evaluated | None:
        """Measure the model on held-out data, all of it if ``full``; None where evaluation is off."""

    def sample(self) -> dict[str, str] | None:
        """Fields of a ``sample`` row, where the model can show what it does in a few words."""
        return None

    def stop_reason(self, state: TrainState) -> str | None:
        """Why the task has nothing more to gain, if so."""
        return None

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


def load_checked(model: Model, weights: dict[str, Tensor], folder: Path) -> None:
    """Load the weights of a checkpoint. Raises CheckpointError where they do not fit."""
    if problems := check_shapes(weights, model.state_dict(), where=folder):
        raise CheckpointError(f"{folder}: {'; '.join(problems)}")
    model.load_state_dict(weights)


def task_of(config: TrainConfig | type[TrainConfig]) -> type[Task]:
    """The task of a configuration's kind."""
    module, name = kinds.of(config).task.split(":")
    task: type[Task] = getattr(import_module(module), name)
    return task
