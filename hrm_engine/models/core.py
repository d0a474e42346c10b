"""The recurrence that all architectures are settings of.

Two states of the width of the model, ``z_h`` (slow) and ``z_l`` (fast), are updated in turn by two modules
(Wang et al. 2025, arXiv 2506.21734): in each of ``h_cycles`` cycles, ``l_cycles`` times ``z_l = f_L(z_l + injection)``,
then once ``z_h = f_H(z_h + z_l)``. One pass through all cycles is a *segment*; ACT runs several. Only the last
``grad_calls`` module calls of a segment carry gradient.

Shapes: B batch, S sequence, D hidden, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hrm_engine.config import CoreConfig
from hrm_engine.kernels.attention import plan_attention
from hrm_engine.kernels.rope import rope_tables
from hrm_engine.models.cache import KeyValueCache
from hrm_engine.models.layers import Context, Module

MAX_COMPILED_SHAPES = 64


@dataclass(frozen=True)
class Carry:
    """The two states between segments, (B, S, D) each."""

    z_h: Tensor
    z_l: Tensor

    def detach(self) -> Carry:
        """The same states, cut off from the graph that made them."""
        return Carry(self.z_h.detach(), self.z_l.detach())


class RecurrentCore(nn.Module):
    """Token embedding, the two modules, the output head and, where depth can vary, the halting head."""

    def __init__(self, config: CoreConfig) -> None:
        super().__init__()
        self.config = config
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        learned = config.pos_encodings == "learned"
        self.embed_positions = nn.Embedding(config.max_seq_len, config.hidden_size) if learned else None
        self.H_module = Module(config, config.h_layers)
        has_low_level = config.l_cycles > 0 and not config.shared_modules
        self.L_module = Module(config, config.l_layers) if has_low_level else None
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        # Logit, read at a token, that another segment is worth its cost for this token.
        self.halt_head = nn.Linear(config.hidden_size, 1) if config.halt_max_steps > 1 else None
        self.register_buffer("z_H_init", torch.zeros(config.hidden_size))
        self.register_buffer("z_L_init", torch.zeros(config.hidden_size))

    @torch.no_grad()
    def initialise(self, seed: int) -> None:
        """Draw initial weights: truncated normal with standard deviation 1/sqrt(fan in), halting head zero.

        The fixed initial states of ``random`` are truncated normal with standard deviation 1. Embeddings have the
        standard deviation that ``embedding_scale`` brings to 1. Drawn on the CPU in fp32 from ``seed`` alone, so they
        do not depend on the device.
        """
        generator = torch.Generator().manual_seed(seed)
        for name, parameter in self.named_parameters():
            if name.startswith("halt_head"):
                parameter.zero_()
                continue
            std = 1 / self.config.embedding_scale if "embed" in name else 1 / math.sqrt(parameter.shape[-1])
            parameter.copy_(_truncated_normal(parameter.shape, std, generator))
        for name, kind in (("z_H_init", self.config.initial_z_h), ("z_L_init", self.config.initial_z_l)):
            buffer = self.get_buffer(name)
            buffer.copy_(_truncated_normal(buffer.shape, 1.0, generator) if kind == "random" else torch.zeros(()))

    def context(
        self,
        positions: Tensor,
        *,
        documents: Tensor | None = None,
        checkpointing: bool = False,
        cache: KeyValueCache | None = None,
    ) -> Context:
        """What the layers share for one batch.

        Args:
            positions: (B or 1, S) position of each token in its document.
            documents: (B, S) document index, attention stops where it changes; None where each row is one document.
        """
        config, dtype = self.config, self.lm_head.weight.dtype
        num_queries = positions.shape[1]
        plan = plan_attention(
            num_queries=num_queries,
            num_keys=num_queries if cache is None else cache.visible_keys(num_queries),
            device=positions.device,
            dtype=dtype,
            documents=documents,
            window=config.window_size,
            causal=config.causal,
        )
        cos = sin = None
        if config.pos_encodings == "rope":
            cos, sin = rope_tables(positions, config.head_size, config.rope_theta, dtype)
        return Context(plan, cos, sin, checkpointing)

    def embed(self, tokens: Tensor, positions: Tensor) -> Tensor:
        """Input x (B, S, D) from token ids (B, S): scaled to unit variance; learned positions as in HRM."""
        x = self.embed_tokens(tokens)
        if self.embed_positions is not None:
            return self.config.embedding_scale * 0.5**0.5 * (x + self.embed_positions(positions))
        return self.config.embedding_scale * x

    def initial_carry(self, x: Tensor) -> Carry:
        """States before the first segment."""
        z_l = self.z_L_init.to(x.dtype).expand_as(x)
        return Carry(x if self.config.initial_z_h == "embedding" else self.z_H_init.to(x.dtype).expand_as(x), z_l)

    def segment(
        self, carry: Carry, x: Tensor, context: Context, *, cache: KeyValueCache | None = None, index: int = 0
    ) -> Carry:
        """One segment: all cycles, the last ``grad_calls`` calls with gradient. ``index`` is the segment's number."""
        config, z_h, z_l = self.config, carry.z_h, carry.z_l
        low_module = self.H_module if self.L_module is None else self.L_module
        first_with_grad = config.num_calls - config.grad_calls
        grad_enabled = torch.is_grad_enabled()
        for call in range(config.num_calls):
            caches = None if cache is None else cache.slots(index, call)
            with torch.set_grad_enabled(grad_enabled and call >= first_with_grad):
                if call % (config.l_cycles + 1) < config.l_cycles:
                    state = z_l + z_h + x if config.inject_input else z_l + z_h
                    z_l = low_module(state, context, caches)
                else:
                    z_h = self.H_module(z_h + z_l, context, caches)
        return Carry(z_h, z_l)

    def logits(self, z_h: Tensor) -> Tensor:
        """Next-token logits (B, S, V) of a high-level state."""
        return self.lm_head(z_h)

    def compile(self, *, backend: str | Callable[..., object] = "inductor") -> None:  # type: ignore[override]
        """Compile the layers' uncached path, with and without gradient, anew for each shape of batch."""
        # Whole and partial batches, of training and evaluation, with and without document boundaries, and again each
        # time that the micro-batch halves: more shapes than the library's limit of 8, beyond which it refuses.
        torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, MAX_COMPILED_SHAPES)
        self.H_module.compile_layers(backend)
        if self.L_module is not None:
            self.L_module.compile_layers(backend)


def _truncated_normal(shape: torch.Size, std: float, generator: torch.Generator) -> Tensor:
    # Cutting at 2 sigma leaves 0.8796 of the standard deviation; dividing by it restores the one that was asked for.
    out = torch.empty(shape, dtype=torch.float32)
    return nn.init.trunc_normal_(
        out, std=std / 0.87962566, a=-2 * std / 0.87962566, b=2 * std / 0.87962566, generator=generator
    )
