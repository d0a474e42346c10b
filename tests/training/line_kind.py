"""A kind of training: a small network that learns the last column of a table of numbers from the others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from hrm_engine.config import Config
from hrm_engine.config.kinds import Kind, Words, register
from hrm_engine.config.training import ComputeConfig, EvaluationConfig, NamedRunConfig, OptimConfig, TrainConfig
from hrm_engine.store.files import sha256_file
from hrm_engine.training.costs import DryStep
from hrm_engine.training.task import DataFacts, Evaluated, Measured, Task


class LineNetwork(Config):
    """What rebuilds the model: ``config.json`` of a bundle."""

    inputs: int = Field(ge=1, description="Columns that it reads.")
    width: int = Field(ge=1, description="Hidden units.")


class LineNetworkConfig(Config):
    """Size of the network."""

    width: int = Field(16, ge=1, le=4096, description="Hidden units.")


class LineDataConfig(Config):
    """Which numbers."""

    data_file: Path = Field(description="Table of numbers (.npy); the last column is learned.")


class LineTrainConfig(TrainConfig):
    """All settings; the leaves are the flags."""

    kind = "line"

    network: LineNetworkConfig = LineNetworkConfig()
    data: LineDataConfig
    optim: OptimConfig = OptimConfig()
    compute: ComputeConfig = ComputeConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    run: NamedRunConfig = NamedRunConfig()


def squares(model: Any, rows: Tensor) -> Tensor:
    """(B,) squared errors of rows of the table."""
    rows = rows.to(next(model.parameters()))
    return (model(rows[:, :-1])[:, 0] - rows[:, -1]).float().square()


class LineStep:
    """The next rows, in micro-batches."""

    def __init__(self, model: Any, parts: list[Tensor]) -> None:
        self.model, self.parts, self.num_rows = model, parts, sum(map(len, parts))

    def run(self, backward: Any) -> Measured:
        """Forward and backward passes."""
        losses = []
        for part in self.parts:
            loss = squares(self.model, part).sum() / self.num_rows
            backward(loss)
            losses.append(loss.detach())
        total = torch.stack(losses).sum()
        return Measured(total[None], total, {"rows": self.num_rows})

    def commit(self, stepped: Tensor, schedule_share: float) -> None:
        """Nothing is carried from step to step."""


class LineTask(Task):
    """Data, model, loss and evaluation."""

    kind = "line"

    def __init__(self, config: LineTrainConfig, core: LineNetwork, file: Path) -> None:
        self.config, self.core = config, core
        table = torch.from_numpy(np.load(file)).float()
        self.held_out, self.table = table[: len(table) // 10], table[len(table) // 10 :]
        source = str(config.data.data_file)
        self.facts = DataFacts(sha256_file(file), source, {"num_rows": len(self.table)}, {"dataset": source})

    @classmethod
    def network_for(cls, config: Any, workspace: Any) -> LineNetwork:
        """As many inputs as the table has columns before the last."""
        columns = np.load(workspace.resolve(config.data.data_file), mmap_mode="r").shape[1]
        return LineNetwork(inputs=columns - 1, width=config.network.width)

    @classmethod
    def first(cls, config: Any, workspace: Any) -> tuple[Task, list[str]]:
        """The task of a run that begins or goes on; there is nothing to say."""
        return cls(config, cls.network_for(config, workspace), workspace.resolve(config.data.data_file)), []

    @classmethod
    def build(cls, network: Any) -> nn.Module:
        """One hidden layer."""
        return nn.Sequential(nn.Linear(network.inputs, network.width), nn.GELU(), nn.Linear(network.width, 1))

    @classmethod
    def dry_step(cls, config: Any, network: Any, model: Any, device: torch.device, *, checkpointing: bool) -> DryStep:
        """Zeros have the shapes of rows."""
        rows = torch.zeros(config.run.batch_size, network.inputs + 1, device=device)
        return DryStep(LineStep(model, [rows]).run)

    def begin(self, model: Any, device: torch.device, state: Any) -> None:
        """Keep the model."""
        self.model, self.device = model, device

    def work(self, state: Any, micro_batch: int, *, checkpointing: bool, num_pending: int = 0) -> LineStep:
        """The rows that follow, from the beginning again at the end."""
        count = self.config.run.rows_per_step
        first = state.rows + num_pending * count
        rows = self.table[torch.arange(first, first + count) % len(self.table)]
        return LineStep(self.model, list(rows.to(self.device).split(micro_batch)))

    def describe(self, numbers: Any, counts: Any, step_time: float, state: Any) -> dict[str, Any]:
        """The fields of a ``train`` row."""
        return {"loss": numbers[0], "rows": state.rows, "rows_per_s": counts["rows"] / step_time}

    @torch.no_grad()
    def evaluate(self, micro_batch: int, *, full: bool = False) -> Evaluated | None:
        """The mean of the squared errors on held-out rows, and the largest one."""
        if full:
            return None
        errors = squares(self.model, self.held_out.to(self.device))
        loss = float(errors.mean())
        return Evaluated({"loss": loss, "largest_error": float(errors.max())}, [loss], f"validation loss {loss:.4f}")


register(
    Kind(
        config=LineTrainConfig,
        task=f"{__name__}:LineTask",
        network=LineNetwork,
        about="Train a small network on a table of numbers.\n\n    --data-file FILE is all it needs.",
        words=Words(makes="a model of a table", data="{num_rows:,} rows of the table"),
    )
)
