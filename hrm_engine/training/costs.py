"""What a training costs, asked of its task before it begins. What no formula says is counted in a dry step."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from hrm_engine.config import Config
from hrm_engine.config.training import TrainConfig
from hrm_engine.models.flops import StepFlops
from hrm_engine.optim.updater import Backward


@dataclass(frozen=True)
class DryStep:
    """The forward and backward pass of one micro-batch, on tensors that need no content."""

    run: Callable[[Backward], object]
    carry: int = 0
    """Bytes that it keeps from step to step."""


@dataclass(frozen=True)
class Parameters:
    """Numbers that are learned, by part."""

    total: int
    """All but those beside the rest, as a run's ``start`` row counts them."""
    active: int
    """Of the total, those that one example uses: of the experts of a layer, the ones it is sent to."""
    parts: dict[str, int] = field(default_factory=dict)
    beside: dict[str, int] = field(default_factory=dict)
    """Those that have an optimizer of their own."""

    def as_json(self) -> dict[str, int]:
        """All numbers by name."""
        return {**self.parts, **self.beside, "active": self.active, "total": self.total}


class Costs:
    """Of a training with this configuration and network. Kinds that know more than a dry step tells override it."""

    def __init__(self, config: TrainConfig, network: Config) -> None:
        self.config, self.network = config, network
        self.rows = config.run.rows_per_step

    @property
    def tokens_per_step(self) -> int | None:
        """Tokens of full rows; None where rows are no texts."""
        return None

    @property
    def mean_share(self) -> float:
        """Arithmetic of a step on average, as a share of that of one of full depth."""
        return 1.0

    def parameters(self, model: nn.Module) -> Parameters:
        """What is learned."""
        total = sum(parameter.numel() for parameter in model.parameters())
        return Parameters(total, total)

    def has_gradient(self, name: str) -> bool:
        """Whether a loss reaches the parameter of that name."""
        return True

    def setting_of(self) -> Callable[[int], Hashable] | None:
        """What makes a step, given the number of steps before it, cost what it costs; None: all are alike."""
        return None

    def flops(self, dry: DryStep, setting: Hashable, *, checkpointing: bool) -> StepFlops:
        """FLOPs of one optimizer step with this setting; here those that a dry step is seen to make."""
        with FlopCounterMode(display=False) as counter:
            forward = list[int]()

            def backward(loss: torch.Tensor) -> None:
                forward.append(counter.get_total_flops())
                torch.autograd.backward(loss)

            dry.run(backward)
        times = self.config.run.gradient_accumulation_steps
        before = forward[0] if forward else counter.get_total_flops()
        return StepFlops(times * before, times * (counter.get_total_flops() - before), 0, 0)
