"""Mixture of experts in the place of a feed-forward layer.

A router sends each token to k of N experts (Shazeer et al. 2017, arXiv 1701.06538). What a token computes does not grow
with N. Two things keep experts from starving: a load-balancing loss (Fedus et al. 2021, arXiv 2101.03961), or a bias
that moves against the load and takes part in the choice alone (Wang et al. 2024, arXiv 2408.15664).

Shapes: B batch, S sequence, T = B * S tokens, D hidden, N experts, k of them for each token, I inner width.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor, nn

from hrm_engine.kernels.experts import experts


class Routing(NamedTuple):
    """Result of a router for the T tokens of one call; fp32, (N,) each but for ``z``."""

    probabilities: Tensor
    """Sum over tokens of the softmax over all experts; with graph."""
    z: Tensor
    """Scalar, sum over tokens of the squared log-partition of the scores (Zoph et al. 2022, 2202.08906); with graph."""
    assigned: Tensor
    """Assignments by expert, before any is dropped."""
    dropped: Tensor
    """Assignments that were dropped because the expert was full."""


class Router(nn.Module):
    """Bias-free linear scores; in fp32 whatever the model computes in, since rounding would send tokens elsewhere."""

    balance_bias: Tensor
    steering: Tensor

    def __init__(self, width: int, num_experts: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(num_experts, width))
        # Takes part in the choice of experts, not in their weights; moved by balancing without a loss.
        self.register_buffer("balance_bias", torch.zeros(num_experts))
        self.unsteer()

    def unsteer(self) -> None:
        """Take back what was added to the scores."""
        # Towards experts that serve a goal, -inf for those that are switched off: a wish of the moment, not saved.
        steering = torch.zeros(len(self.weight), device=self.weight.device)
        self.register_buffer("steering", steering, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(T, D) to scores (T, N), fp32 at least."""
        return nn.functional.linear(x.to(self.weight.dtype), self.weight) + self.steering

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Router:
        def at_least_fp32(tensor: Tensor) -> Tensor:
            moved = fn(tensor)
            return moved if moved.dtype in (torch.float32, torch.float64) else tensor.to(moved.device)

        super()._apply(at_least_fp32, recurse)
        return self


class MoE(nn.Module):
    """A router and its experts, SwiGLUs of inner width I."""

    def __init__(self, width: int, inner: int, num_experts: int, experts_per_token: int) -> None:
        super().__init__()
        self.num_experts = num_experts
        self.experts_per_token = min(experts_per_token, num_experts)
        self.router = Router(width, num_experts)
        self.gate_proj = nn.Parameter(torch.zeros(num_experts, inner, width))
        self.up_proj = nn.Parameter(torch.zeros(num_experts, inner, width))
        self.down_proj = nn.Parameter(torch.zeros(num_experts, width, inner))

    def forward(
        self, x: Tensor, *, capacity_factor: float = 0.0, noise: Tensor | None = None
    ) -> tuple[Tensor, Routing]:
        """(B, S, D) to (B, S, D), and what the router did.

        Args:
            capacity_factor: an expert takes ``ceil(factor * T * k / N)`` assignments and drops the rest, which then
                keep their residual path alone. 0: nothing is dropped.
            noise: (B, S, N) added to the scores in the choice of experts.
        """
        batch, length, width = x.shape
        tokens = x.reshape(-1, width)
        scores = self.router(tokens)
        preference = scores.detach() + self.router.balance_bias
        if noise is not None:
            preference = preference + noise.reshape(-1, self.num_experts)
        chosen = preference.topk(self.experts_per_token, dim=-1).indices
        weights = scores.gather(1, chosen).softmax(-1)
        hits = nn.functional.one_hot(chosen, self.num_experts)  # (T, k, N)
        assigned = hits.sum((0, 1))
        kept, dropped = None, torch.zeros_like(assigned)
        if capacity_factor:
            capacity = math.ceil(capacity_factor * chosen.numel() / self.num_experts)
            kept = _kept(hits.view(batch, length, -1, self.num_experts), capacity)
            dropped = (hits * ~kept[..., None]).sum((0, 1))
        y = experts(tokens, chosen, weights, kept, self.gate_proj, self.up_proj, self.down_proj)
        routing = Routing(
            probabilities=scores.softmax(-1).sum(0),
            z=scores.logsumexp(-1).square().sum(),
            assigned=assigned.to(scores.dtype),
            dropped=dropped.to(scores.dtype),
        )
        return y.view(batch, length, width), routing


def _kept(hits: Tensor, capacity: int) -> Tensor:
    """Which assignments (T, k) fit, from their one-hot experts (B, S, k, N).

    Experts are filled in the order of position, over all rows. By score, a later token could push an earlier one out,
    and a causal model would see its future.
    """
    batch, length, k, num_experts = hits.shape
    in_order = hits.transpose(0, 1).reshape(-1, num_experts)
    rank = ((in_order.cumsum(0) - 1) * in_order).sum(-1)
    return (rank < capacity).view(length, batch, k).transpose(0, 1).reshape(-1, k)


def balance_loss(routing: Routing) -> Tensor:
    """``N * sum_i f_i p_i`` with f the share of assignments and p the mean probability: 1 where both are even.

    f is a count and has no gradient (2101.03961, equation 4).
    """
    share = routing.assigned / routing.assigned.sum().clamp_min(1)
    probability = routing.probabilities / routing.probabilities.detach().sum()
    return len(share) * (share * probability).sum()


def z_loss(routing: Routing) -> Tensor:
    """Mean over tokens of the squared log-partition (2202.08906): keeps scores small, so that fp32 tells them apart."""
    return routing.z / routing.probabilities.detach().sum()


@dataclass
class Dispatch:
    """Behaviour of the routers in a training step, and their results, call by call."""

    capacity_factor: float = 0.0
    noise: float = 0.0
    """Standard deviation of the noise on scores in the choice."""
    generator: torch.Generator | None = None
    """Draws the noise."""
    balance_coef: float = 0.0
    z_coef: float = 0.0
    """Weights of the two losses of routers."""
    calls: list[tuple[str, Routing]] = field(default_factory=list)
    """Name of the layer, and what its router did: in the order of the calls since the last :meth:`take`."""

    def draw(self, shape: tuple[int, ...], device: torch.device) -> Tensor | None:
        """Noise for one call; None where there is none."""
        if not self.noise:
            return None
        return self.noise * torch.randn(shape, generator=self.generator, device=device)

    def take(self, share: Tensor | float) -> tuple[Tensor, RoutingSums]:
        """Loss to add for the calls since the last time, and their sums; the calls are forgotten.

        Both losses are means over the calls that carry gradient.

        Args:
            share: part of the whole step that these calls stand for.
        """
        calls, self.calls = self.calls, []
        with_gradient = [routing for _, routing in calls if routing.probabilities.requires_grad] or [calls[-1][1]]
        balance = share * torch.stack([balance_loss(routing) for routing in with_gradient]).mean()
        z = share * torch.stack([z_loss(routing) for routing in with_gradient]).mean()
        layers: dict[str, Tensor] = {}
        for name, routing in calls:
            numbers = torch.stack((routing.probabilities.detach(), routing.assigned, routing.dropped))
            layers[name] = layers[name] + numbers if name in layers else numbers
        loss = self.balance_coef * balance + self.z_coef * z
        return loss, RoutingSums(balance.detach(), z.detach(), dict(sorted(layers.items())))


class RoutingSums(NamedTuple):
    """Sums over calls of this process, on the device, without graph."""

    balance: Tensor
    """Scalar, weighted so that a whole step adds up to the mean over its calls with gradient."""
    z: Tensor
    """Scalar, likewise."""
    layers: dict[str, Tensor]
    """By name of the layer: (3, N) sums of probabilities, assignments, dropped assignments over all calls."""

    def __add__(self, other: object) -> RoutingSums:
        if not isinstance(other, RoutingSums):
            return NotImplemented
        layers = {name: numbers + other.layers[name] for name, numbers in self.layers.items()}
        return RoutingSums(self.balance + other.balance, self.z + other.z, layers)

    def flat(self) -> Tensor:
        """All of it as one vector: balance, z, and layer by layer its three rows."""
        return torch.cat(
            (torch.stack((self.balance, self.z)), *(numbers.flatten() for numbers in self.layers.values()))
        )


@torch.no_grad()
def move_balance_biases(
    routers: Mapping[str, Router], layers: Mapping[str, Tensor], *, rate: float, stepped: Tensor
) -> None:
    """``b_i += rate * sign(mean load - load_i)`` for every router (2408.15664), from the loads of one step.

    Args:
        layers: as in :class:`RoutingSums`, of the whole step.
        stepped: bool; where it is False the step was skipped, and nothing moves.
    """
    for name, numbers in layers.items():
        load = numbers[1]
        routers[name].balance_bias += rate * stepped * torch.sign(load.mean() - load)
