"""Routers in a training: what each step asks of them, and what is told about them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from hrm_engine.config import CoreConfig
from hrm_engine.config.moe import MoEConfig
from hrm_engine.data.random import stream
from hrm_engine.models.core import RecurrentCore
from hrm_engine.models.moe import Dispatch, RoutingSums, move_balance_biases

USAGE_EVERY = 100
FIRST_USAGES = (1, 3, 10, 30)
"""Steps before the first hundred whose routing is told too: a run that is stopped there has something to show."""
_LOSSES = 2
_ROWS = 3


class Routers:
    """The MoE layers of one training; in a dense model all of this is empty."""

    def __init__(self, config: MoEConfig, core: CoreConfig | None, *, seed: int, total_steps: int) -> None:
        self._config, self._seed, self._total_steps = config, seed, total_steps
        names = [] if core is None else sorted(core.layer_names)
        self.layers = {name: core.experts_in(name) for name in names if core is not None and core.experts_in(name)}
        """Experts by name of the layer."""
        self.biased: dict[str, list[int]] = {}
        """By layer, the experts that a goal favours."""

    def dispatch(self, step: int, part: int, device: torch.device) -> Dispatch | None:
        """What routers are to do in a part of a step; None in a dense model."""
        if not self.layers:
            return None
        config, generator = self._config, None
        if config.router_noise:
            seed = int(stream(self._seed, "router-noise", step).integers(0, 2**62)) + part
            generator = torch.Generator(device).manual_seed(seed)
        return Dispatch(
            capacity_factor=config.moe_capacity_factor,
            noise=config.router_noise,
            generator=generator,
            balance_coef=config.load_balance_coef if config.balance == "loss" else 0.0,
            z_coef=config.router_z_coef,
        )

    def commit(self, model: RecurrentCore, routing: RoutingSums | None, stepped: Tensor) -> None:
        """After an update: move the balancing biases, where they are what balances."""
        if routing is not None and self._config.balance == "bias":
            move_balance_biases(model.routers, routing.layers, rate=self._config.balance_rate, stepped=stepped)

    @property
    def num_numbers(self) -> int:
        """How many numbers of a step are about routing: the last ones."""
        return _LOSSES + _ROWS * sum(self.layers.values()) if self.layers else 0

    def losses(self, numbers: list[float]) -> tuple[dict[str, Any], float]:
        """Fields of a ``train`` row, and what the losses of routers add to the loss."""
        if not self.layers:
            return {}, 0.0
        balance, z = numbers[-self.num_numbers :][:_LOSSES]
        coef = self._config.load_balance_coef if self._config.balance == "loss" else 0.0
        fields = {"lb_loss": balance, "z_loss": z, "moe_layers": len(self.layers)}
        return fields, coef * balance + self._config.router_z_coef * z

    def usage(self, step: int, numbers: list[float]) -> list[dict[str, Any]]:
        """Fields of the ``expert_usage`` rows of a step, one for each layer; none in most steps."""
        is_told = step % USAGE_EVERY == 0 or step in FIRST_USAGES or step == self._total_steps
        if not self.layers or not is_told:
            return []
        rows, start = [], len(numbers) - self.num_numbers + _LOSSES
        for name, count in self.layers.items():
            probabilities, assigned, dropped = (
                numbers[start + part * count : start + (part + 1) * count] for part in range(_ROWS)
            )
            start += _ROWS * count
            total = sum(probabilities)  # of a token they add up to 1
            biased = sum(assigned[column] for column in self.biased.get(name, ()))
            rows.append(
                {
                    "layer": name,
                    "avg_routing_prob": [value / max(total, 1.0) for value in probabilities],
                    "token_counts": [round(value) for value in assigned],
                    "dropped_tokens": round(sum(dropped)),
                    "total_tokens": round(total),
                    "bias_rate": biased / max(sum(assigned), 1.0),
                }
            )
        return rows


def with_routing(numbers: Tensor, routing: RoutingSums | None) -> Tensor:
    """The numbers of a step with those about routing behind them."""
    return numbers if routing is None else torch.cat((numbers, routing.flat().to(numbers.dtype)))
