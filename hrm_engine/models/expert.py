"""One expert by itself: trained on the hidden states of a base that stays as it is.

The base is a recurrent core, in one of whose layers the expert takes part, or any causal model of transformers, behind
whose last layer it adds to the states. The base is no part of the module's state: only the expert is trained and saved.

Shapes: B batch, S sequence, D hidden, I inner width, N experts of the layer without the new one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from hrm_engine.kernels.experts import experts
from hrm_engine.kernels.swiglu import swiglu
from hrm_engine.models.core import RecurrentCore
from hrm_engine.models.layers import Layer, SwiGLU
from hrm_engine.models.moe import MoE, Router, Routing

DEFAULT_CHOICES = 2
"""Experts of a token in a layer that was dense: its own network and the new one."""


class Expert(nn.Module):
    """A SwiGLU with the column that it adds to a router."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.gate_proj = nn.Parameter(torch.zeros(inner, width))
        self.up_proj = nn.Parameter(torch.zeros(inner, width))
        self.down_proj = nn.Parameter(torch.zeros(width, inner))
        self.router = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) to (..., D)."""
        inner = swiglu(x @ self.gate_proj.T, x @ self.up_proj.T)
        return inner @ self.down_proj.T

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Expert:
        kept = self.router.data
        super()._apply(fn, recurse)
        if self.router.dtype not in (torch.float32, torch.float64):
            self.router.data = kept.to(self.router.device)  # as in a whole router: at least fp32
        return self


class OpenMoE(MoE):
    """A layer's experts and one more, which is trained.

    While it is ``forced``, every token is sent to it, in the place of the weakest of its choices: so that it learns
    from the whole text, and its column of the router learns where it is of use.
    """

    def __init__(self, inside: MoE | SwiGLU, expert: Expert, experts_per_token: int) -> None:
        nn.Module.__init__(self)
        if isinstance(inside, MoE):
            self.router = inside.router
            self.gate_proj, self.up_proj, self.down_proj = inside.gate_proj, inside.up_proj, inside.down_proj
        else:  # what was dense is the first expert, and its column of the router is zero
            weights = (inside.gate_proj.weight, inside.up_proj.weight, inside.down_proj.weight)
            self.gate_proj, self.up_proj, self.down_proj = (
                nn.Parameter(weight.detach()[None], requires_grad=False) for weight in weights
            )
            self.router = Router(weights[0].shape[1], 1).requires_grad_(False)
        self.expert = expert
        self.num_experts = len(self.gate_proj) + 1
        self.experts_per_token = min(experts_per_token or DEFAULT_CHOICES, self.num_experts)
        self.is_forced = False
        self.is_on = True
        self.use = torch.zeros(2)
        """Assignments to the new expert and the sum of its weights, since somebody set it to zero."""

    def forward(
        self, x: Tensor, *, capacity_factor: float = 0.0, noise: Tensor | None = None
    ) -> tuple[Tensor, Routing]:
        """(B, S, D) to (B, S, D). Nothing is dropped and nothing recorded: the routing is empty."""
        tokens = x.reshape(-1, x.shape[-1])
        new = self.num_experts - 1
        column = self.expert.router if self.is_on else self.expert.router.detach()
        own = tokens.to(column.dtype) @ column
        scores = torch.cat((self.router(tokens), own[:, None]), 1)
        if not self.is_on:
            scores[:, new] = -torch.inf
        preference = scores.detach() + nn.functional.pad(self.router.balance_bias, (0, 1))
        if self.is_forced:
            preference[:, new] = torch.inf
        chosen = preference.topk(self.experts_per_token, dim=-1).indices
        weights = scores.gather(1, chosen).softmax(-1)
        is_new = chosen == new
        others = (self.gate_proj, self.up_proj, self.down_proj)
        y = experts(tokens, chosen.clamp_max(new - 1), weights, ~is_new, *others)
        share = (weights * is_new).sum(1)
        if self.is_on:
            y = y + share[:, None].to(y.dtype) * self.expert(tokens)
        used = torch.stack((is_new.sum().to(share.dtype), share.sum().detach()))
        self.use = self.use.to(used.device) + used.float()
        empty = scores.new_zeros(0)
        return y.view_as(x), Routing(empty, empty, empty, empty)


class ExpertModel(nn.Module):
    """An expert in its base; parameters and state are the expert's alone, by the names that it has."""

    def __init__(self, expert: Expert, base: nn.Module) -> None:
        super().__init__()
        base.requires_grad_(False)
        for name, parameter in expert.named_parameters():
            self.register_parameter(name, parameter.requires_grad_(True))
        self._outside = (expert, base)  # in a tuple, so that they are no submodules

    @property
    def expert(self) -> Expert:
        """The same parameters, as a module of the base."""
        return self._outside[0]

    @property
    def base(self) -> Any:
        """The frozen model around the expert."""
        return self._outside[1]

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Leave it as it is: a frozen base is not worth the compiler's time."""

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> ExpertModel:
        self.base._apply(fn)  # the expert's parameters are among these
        return self


class BehindLastLayer(nn.Module):
    """A causal model of transformers with an expert that adds to its last hidden states."""

    def __init__(self, network: nn.Module, expert: Expert) -> None:
        super().__init__()
        self.network = network
        self.expert = expert
        self.is_on = True
        self.is_forced = False  # every token goes to it anyway

    @property
    def head(self) -> Tensor:
        """Weight (V, D) of the output head."""
        weight: Tensor = self.network.get_output_embeddings().weight  # type: ignore[operator]
        return weight

    def forward(self, tokens: Tensor, positions: Tensor, documents: Tensor | None) -> Tensor:
        """Hidden states (B, S, D) from token ids (B, S); attention stops where documents (B, S) change."""
        length = tokens.shape[1]
        allowed = torch.ones(length, length, dtype=torch.bool, device=tokens.device).tril()[None]
        if documents is not None:
            allowed = allowed & (documents[:, :, None] == documents[:, None, :])
        mask = torch.zeros(allowed.shape, dtype=self.head.dtype, device=tokens.device)
        mask = mask.masked_fill(~allowed, torch.finfo(mask.dtype).min)[:, None].expand(len(tokens), -1, -1, -1)
        with torch.no_grad():
            inside = self.network.base_model  # type: ignore[attr-defined]
            hidden = inside(input_ids=tokens, attention_mask=mask, position_ids=positions, use_cache=False)
        states: Tensor = hidden.last_hidden_state
        return states + self.expert(states) if self.is_on else states


def open_layer(core: RecurrentCore, name: str, expert: Expert) -> OpenMoE:
    """Put an expert into a layer of a core; where the layer was dense it begins as a copy of its network."""
    layer = next(module for module in core.modules() if isinstance(module, Layer) and module.name == name)
    opened = OpenMoE(layer.mlp, expert, core.config.experts_per_token)  # type: ignore[arg-type]
    layer.mlp = opened
    return opened


@contextmanager
def switched(model: ExpertModel, *, is_on: bool = True, is_forced: bool = False) -> Iterator[None]:
    """Within it every token is sent to the new expert, or the base is what it is by itself."""
    layers = [module for module in model.base.modules() if isinstance(module, OpenMoE | BehindLastLayer)]
    for layer in layers:
        layer.is_on, layer.is_forced = is_on, is_forced
    try:
        yield
    finally:
        for layer in layers:
            layer.is_on, layer.is_forced = True, False


@torch.no_grad()
def initialise_expert(expert: Expert, like: MoE | SwiGLU | None, *, seed: int) -> None:
    """First weights: those of the layer's own network, or of its first expert; else random, adding nothing.

    A copy beside the original, with equal scores, gives what the layer gave before.
    """
    if isinstance(like, SwiGLU):
        parts = (like.gate_proj.weight, like.up_proj.weight, like.down_proj.weight)
    elif isinstance(like, MoE):
        parts = (like.gate_proj[0], like.up_proj[0], like.down_proj[0])
    else:
        generator = torch.Generator().manual_seed(seed)
        for parameter in (expert.gate_proj, expert.up_proj):
            drawn = torch.randn(parameter.shape, generator=generator) / parameter.shape[1] ** 0.5
            parameter.copy_(drawn)
        expert.down_proj.zero_()
        return
    for mine, other in zip((expert.gate_proj, expert.up_proj, expert.down_proj), parts, strict=True):
        mine.copy_(other)
