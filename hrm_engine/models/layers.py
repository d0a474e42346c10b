"""Transformer layers of the recurrent modules.

Shapes: B batch, S sequence, D hidden, N heads, K head width. Parameter names are those of ``hrm_text`` in transformers,
so that exchanging weights with it is renaming.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from hrm_engine.config import CoreConfig
from hrm_engine.config.core import inner_width
from hrm_engine.errors import ConfigError
from hrm_engine.kernels.attention import AttentionPlan, gated_attention, of_first_query
from hrm_engine.kernels.norm import rms_norm
from hrm_engine.kernels.rope import rotate
from hrm_engine.kernels.swiglu import swiglu
from hrm_engine.models.cache import CacheSlots, HeldSlot
from hrm_engine.models.moe import Dispatch, MoE, Routing

SEQUENCE_EXPANSION = 4.0

Slot = CacheSlots | HeldSlot

_Applied = tuple[Tensor, Routing | None]


@dataclass(frozen=True)
class Context:
    """Everything that the layers of all calls share for one batch."""

    plan: AttentionPlan
    angles: tuple[Tensor, Tensor] | None
    """Rotary tables, cosine and sine (B or 1, S, 1, K); None without rotary positions."""
    checkpointing: bool = False
    """Recompute layers in the backward pass instead of keeping their activations."""
    dispatch: Dispatch | None = None
    """Behaviour of the routers in training; without it nothing is dropped and nothing is recorded."""


class Attention(nn.Module):
    """Multi-head attention with optional sigmoid gate on its output; no biases."""

    def __init__(self, config: CoreConfig) -> None:
        super().__init__()
        width, inner = config.hidden_size, config.num_heads * config.head_size
        self.num_heads = config.num_heads
        self.q_proj = nn.Linear(width, inner, bias=False)
        self.k_proj = nn.Linear(width, inner, bias=False)
        self.v_proj = nn.Linear(width, inner, bias=False)
        self.gate_proj = nn.Linear(width, inner, bias=False) if config.attention_gate else None
        self.o_proj = nn.Linear(inner, width, bias=False)

    def forward(self, x: Tensor, context: Context, cache: Slot | None = None, *, first_only: bool = False) -> Tensor:
        """(B, S, D) to (B, S, D). A cache says which keys and values are seen.

        With ``first_only`` to (B, 1, D), what position 0 attends to; every position is still a key.
        """
        asking = x[:, :1] if first_only else x
        plan = of_first_query(context.plan) if first_only else context.plan
        q, k, v = self._heads(self.q_proj(asking)), self._heads(self.k_proj(x)), self._heads(self.v_proj(x))
        gate = None if self.gate_proj is None else self._heads(self.gate_proj(asking))
        angles = context.angles
        if cache is not None:  # it keeps keys that are turned already
            if angles is not None:
                q, k, angles = rotate(q, *angles), rotate(k, *angles), None
            k, v = cache.append(k, v)
        return self.o_proj(gated_attention(q, k, v, gate, angles, plan).flatten(-2))

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.num_heads, -1))


class SwiGLU(nn.Module):
    """``down(silu(gate(x)) * up(x))`` (Shazeer 2020, arXiv 2002.05202).

    With ``norm_eps`` the activation is ``sigmoid(gate(x)) * RMS(gate(x) * up(x))`` instead (arXiv 2601.19085).
    """

    def __init__(self, width: int, inner: int, *, norm_eps: float | None = None) -> None:
        super().__init__()
        self.norm_eps = norm_eps
        self.gate_proj = nn.Linear(width, inner, bias=False)
        self.up_proj = nn.Linear(width, inner, bias=False)
        self.down_proj = nn.Linear(inner, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) to (..., D)."""
        gate, value = self.gate_proj(x), self.up_proj(x)
        if self.norm_eps is None:
            return self.down_proj(swiglu(gate, value))
        return self.down_proj(torch.sigmoid(gate) * rms_norm(gate * value, self.norm_eps))


class SequenceMLP(nn.Module):
    """A SwiGLU over the positions of a full row, in the place of attention (TRM, arXiv 2510.04871)."""

    def __init__(self, config: CoreConfig) -> None:
        super().__init__()
        self.length = config.max_seq_len
        self.mlp = SwiGLU(self.length, inner_width(self.length, SEQUENCE_EXPANSION))

    def forward(self, x: Tensor, context: Context, cache: Slot | None = None, *, first_only: bool = False) -> Tensor:
        """(B, S, D) to (B, S, D), or (B, 1, D); S must be the length of a full row. Raises ConfigError otherwise."""
        if cache is not None or x.shape[1] != self.length:
            raise ConfigError(f"this model mixes whole rows of {self.length} positions; it cannot take {x.shape[1]}")
        mixed = self.mlp(x.transpose(1, 2)).transpose(1, 2)
        return mixed[:, :1] if first_only else mixed


class Layer(nn.Module):
    """Attention and feed-forward on a residual stream, norm before (``pre``) or after (``post``) the addition."""

    def __init__(self, config: CoreConfig, name: str) -> None:
        super().__init__()
        self.name = name
        self.self_attn = Attention(config) if config.mixer == "attention" else SequenceMLP(config)
        width, inner, num_experts = config.hidden_size, config.intermediate_size, config.experts_in(name)
        inner_eps = config.norm_eps if config.activation == "gated_norm" else None
        self.mlp: SwiGLU | MoE = (
            MoE(width, inner, num_experts, config.experts_per_token)
            if num_experts
            else SwiGLU(width, inner, norm_eps=inner_eps)
        )
        self.pre_norm = config.norm == "pre"
        self.norms_positions = config.mixer == "sequence_mlp" and config.mixer_norm == "sequence"
        self.eps = config.norm_eps

    def forward(
        self,
        x: Tensor,
        context: Context,
        cache: Slot | None = None,
        *,
        first_only: bool = False,
        capacity_factor: float = 0.0,
        noise: Tensor | None = None,
    ) -> tuple[Tensor, Routing | None]:
        """(B, S, D) to (B, S, D), or with ``first_only`` to what comes out at position 0, (B, 1, D); and the routing.

        The routing is None in a layer without experts; ``capacity_factor`` and ``noise`` are for :class:`MoE`.
        """
        if self.pre_norm:
            mixed = self.self_attn(self._mixer_norm(x), context, cache, first_only=first_only)
            x = (x[:, :1] if first_only else x) + mixed
            out, routing = self._feed_forward(rms_norm(x, self.eps), capacity_factor, noise)
            return x + out, routing
        # a norm along the row needs all of it
        narrow = first_only and not self.norms_positions
        mixed = self.self_attn(x, context, cache, first_only=narrow)
        x = self._mixer_norm((x[:, :1] if narrow else x) + mixed)
        x = x[:, :1] if first_only else x
        out, routing = self._feed_forward(x, capacity_factor, noise)
        return rms_norm(x + out, self.eps), routing

    def _feed_forward(self, x: Tensor, capacity_factor: float, noise: Tensor | None) -> tuple[Tensor, Routing | None]:
        if isinstance(self.mlp, MoE):
            return self.mlp(x, capacity_factor=capacity_factor, noise=noise)
        return self.mlp(x), None

    def _mixer_norm(self, x: Tensor) -> Tensor:
        return rms_norm(x.mT, self.eps).mT if self.norms_positions else rms_norm(x, self.eps)


class Module(nn.Module):
    """One level of the hierarchy: a stack of layers applied to a state plus its injection."""

    def __init__(self, config: CoreConfig, num_layers: int, name: str) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Layer(config, f"{name}.{number}") for number in range(num_layers))
        self.exit_eps = config.norm_eps if config.exit_norm else None
        self._compiled: Callable[..., _Applied] | None = None

    def forward(
        self, state: Tensor, context: Context, caches: Sequence[Slot] | None = None, *, first_only: bool = False
    ) -> Tensor:
        """(B, S, D) state with its injection already added, to the new state. ``caches`` has one entry a layer.

        With ``first_only`` the last layer works for position 0 alone, and the result is (B, 1, D).
        """
        checkpointing = context.checkpointing and torch.is_grad_enabled()
        dispatch, last = context.dispatch, len(self.layers) - 1
        shared = context if dispatch is None else replace(context, dispatch=None)  # compiled code takes no part in it
        for number, layer in enumerate(self.layers):
            narrow = first_only and number == last
            cache = None if caches is None else caches[number]
            # generation has a new shape with every token
            plain = self._compiled is None or isinstance(cache, CacheSlots)
            run = partial(_apply if plain else self._compiled, layer)
            capacity, noise = 0.0, None
            if dispatch is not None and isinstance(layer.mlp, MoE):
                capacity = dispatch.capacity_factor
                noise = dispatch.draw(
                    (state.shape[0], 1 if narrow else state.shape[1], layer.mlp.num_experts), state.device
                )
            given = (state, shared, narrow, capacity, noise, cache)
            if checkpointing:
                state, routing = checkpoint(run, *given, use_reentrant=False, preserve_rng_state=False)
            else:
                state, routing = run(*given)
            if dispatch is not None and routing is not None:
                dispatch.calls.append((layer.name, routing))
        return state if self.exit_eps is None else rms_norm(state, self.exit_eps)

    def compile_layers(self, backend: str | Callable[..., object]) -> None:
        """Compile the uncached path of a layer; all layers share what is compiled, and checkpointing goes around it."""
        self._compiled = torch.compile(_apply, fullgraph=True, dynamic=False, backend=backend)


def _apply(
    layer: Layer,
    state: Tensor,
    context: Context,
    first_only: bool,
    capacity_factor: float,
    noise: Tensor | None,
    cache: Slot | None,
) -> _Applied:
    return layer(state, context, cache, first_only=first_only, capacity_factor=capacity_factor, noise=noise)
