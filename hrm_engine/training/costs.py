"""What a training costs, asked of its task before it begins. What no formula says is counted in a dry step."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from itertools import groupby

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from hrm_engine.models.flops import StepFlops
from hrm_engine.optim.updater import Backward


@dataclass(frozen=True)
class DryStep:
    """The forward and backward pass of one micro-batch, on tensors that need no content."""

    run: Callable[[Backward], object]
    carry: int = 0
    """Bytes that it keeps from step to step."""

    def flops(self, num_micro_batches: int) -> StepFlops:
        """FLOPs that a step of so many micro-batches is seen to make."""
        with FlopCounterMode(display=False) as counter:
            forward = list[int]()

            def backward(loss: torch.Tensor) -> None:
                forward.append(counter.get_total_flops())
                torch.autograd.backward(loss)

            self.run(backward)
        total = counter.get_total_flops()
        before = forward[0] if forward else total
        return StepFlops(num_micro_batches * before, num_micro_batches * (total - before), 0, 0)


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


def count_parameters(model: nn.Module) -> Parameters:
    """All parameters of a model, in one part."""
    total = sum(parameter.numel() for parameter in model.parameters())
    return Parameters(total, total)


@dataclass(frozen=True)
class Stage:
    """``num_steps`` steps after the first ``first``, with what makes them cost what they cost (None: as all do)."""

    first: int
    num_steps: int
    setting: Hashable = None


@dataclass(frozen=True)
class Costs:
    """What a task knows of the costs of a step beyond what a dry step tells."""

    tokens_per_step: int | None = None
    """Tokens of full rows; None where rows are no texts."""
    mean_share: float = 1.0
    """Arithmetic of a step on average, as a share of that of one of full depth."""
    parameters: Callable[[nn.Module], Parameters] = count_parameters
    has_gradient: Callable[[str], bool] = lambda name: True
    """Whether a loss reaches the parameter of that name."""
    setting_of: Callable[[int], Hashable] | None = None
    """What makes a step, given the number of steps before it, cost what it costs; None: all are alike."""
    flops: Callable[[Hashable, bool], StepFlops] | None = None
    """FLOPs of an optimizer step, given its setting (None: full depth) and whether it has checkpointing."""

    def stages(self, steps: int) -> list[Stage]:
        """The stages of a run, in order: a depth curriculum or a warm-up of the gradient begins with cheaper steps."""
        if self.setting_of is None:
            return [Stage(0, steps)]
        groups = [(setting, list(group)) for setting, group in groupby(range(steps), self.setting_of)]
        return [Stage(numbers[0], len(numbers), setting) for setting, numbers in groups]
