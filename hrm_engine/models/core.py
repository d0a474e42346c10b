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
from hrm_engine.models.cache import HeldKeys, KeyValueCache
from hrm_engine.models.layers import Context, Layer, Module
from hrm_engine.models.moe import Dispatch, MoE, Router

MAX_COMPILED_SHAPES = 64
Q_BIAS = -5.0


@dataclass(frozen=True)
class Carry:
    """The two states between segments, (B, S, D) each."""

    z_h: Tensor
    z_l: Tensor
    stopped: Tensor | None = None
    """(B, S) positions that had stopped before the segment, whose states are those of an earlier one."""

    def detach(self) -> Carry:
        """The same states, cut off from the graph that made them."""
        return Carry(self.z_h.detach(), self.z_l.detach(), self.stopped)

    def but_stopped(self, earlier: Carry, stopped: Tensor | None) -> Carry:
        """These states, where a position has stopped the earlier ones."""
        if stopped is None:
            return self
        stays = stopped[..., None]
        return Carry(torch.where(stays, earlier.z_h, self.z_h), torch.where(stays, earlier.z_l, self.z_l), stopped)


class RecurrentCore(nn.Module):
    """Token embedding, the two modules, the output head and, where depth can vary, the halting head."""

    def __init__(self, config: CoreConfig) -> None:
        super().__init__()
        self.config = config
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        learned = config.pos_encodings == "learned"
        self.embed_positions = nn.Embedding(config.max_seq_len, config.hidden_size) if learned else None
        self.H_module = Module(config, config.h_layers, "H")
        has_low_level = config.l_cycles > 0 and not config.shared_modules
        self.L_module = Module(config, config.l_layers, "L") if has_low_level else None
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        # Text: logit, read at a token, that another segment is worth its cost for this token.
        per_token = config.halting == "token" and config.halt_max_steps > 1
        self.halt_head = nn.Linear(config.hidden_size, 1) if per_token else None
        # Puzzles: values of halting and, with Q-learning, of going on, read at the first position of the row.
        q_values = {"token": 0, "q_halt": 1, "q_halt_continue": 2}[config.halting]
        self.q_head = nn.Linear(config.hidden_size, q_values) if q_values else None
        self.puzzle_embedding = (
            PuzzleEmbedding(config.num_identifiers, config.identifier_width or config.prefix_width)
            if config.prefix_tokens
            else None
        )
        shape = (config.hidden_size,) if config.num_latents == 1 else (config.num_latents, config.hidden_size)
        self.register_buffer("z_H_init", torch.zeros(shape))
        self.register_buffer("z_L_init", torch.zeros(shape))

    @torch.no_grad()
    def initialise(self, seed: int) -> None:
        """Draw initial weights: truncated normal with standard deviation 1/sqrt(fan in), halting heads zero.

        Q values begin at -5, which is halting almost never (2506.21734); puzzle embeddings are zero. The fixed initial
        states of ``random`` are truncated normal with standard deviation 1. Embeddings have the
        standard deviation that ``embedding_scale`` brings to 1. Drawn on the CPU in fp32 from ``seed`` alone, so they
        do not depend on the device.
        """
        generator = torch.Generator().manual_seed(seed)
        for name, parameter in self.named_parameters():
            if name.startswith(("halt_head", "q_head")):
                parameter.fill_(Q_BIAS if name == "q_head.bias" else 0.0)
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
        dispatch: Dispatch | None = None,
        prefix: Tensor | None = None,
        starts: Tensor | None = None,
    ) -> Context:
        """Everything that the layers share for one batch.

        Args:
            positions: (B or 1, S) position of each token in its document.
            documents: (B, S) document index, attention stops where it changes; None where each row is one document.
            prefix: (B, S) bool, positions that see each other in both directions (PrefixLM); with a cache these are the
                first that it takes.
            starts: where the documents begin, for a device that has a kernel for it; see ``plan_attention``.
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
            prefix=prefix,
            starts=starts,
        )
        angles = None
        if config.pos_encodings == "rope":
            angles = rope_tables(positions, config.head_size, config.rope_theta, dtype)
        return Context(plan, angles, checkpointing, dispatch)

    def embed(self, tokens: Tensor, positions: Tensor, *, puzzle: Tensor | None = None) -> Tensor:
        """Input x (B, S, D) from token ids: scaled to unit variance; learned positions as in HRM.

        Args:
            tokens: (B, S), or (B, S - P) where P positions before them hold the puzzle embedding.
            puzzle: (B, P * D) rows of the puzzle embedding, or narrower ones; needed where the model has one.
        """
        x = self.embed_tokens(tokens)
        if puzzle is not None:
            puzzle = nn.functional.pad(puzzle, (0, self.config.prefix_width - puzzle.shape[1]))
            x = torch.cat((puzzle.to(x.dtype).unflatten(1, (-1, self.config.hidden_size)), x), dim=1)
        if self.embed_positions is not None:
            return self.config.embedding_scale * 0.5**0.5 * (x + self.embed_positions(positions))
        return self.config.embedding_scale * x

    def initial_carry(self, x: Tensor, *, generator: torch.Generator | None = None) -> Carry:
        """States before the first segment; ``generator`` draws those that are noise (variance 1, else a fixed seed).

        With several latents the rows of ``x`` are in groups of ``num_latents``, one initial state each.
        """
        return Carry(
            self._initial(x, self.config.initial_z_h, self.z_H_init, generator),
            self._initial(x, self.config.initial_z_l, self.z_L_init, generator),
        )

    def _initial(self, x: Tensor, kind: str, fixed: Tensor, generator: torch.Generator | None) -> Tensor:
        if kind == "embedding":
            return x
        if kind == "noise":
            if generator is None:
                generator = torch.Generator(x.device).manual_seed(0)
            return torch.randn(x.shape, generator=generator, device=x.device, dtype=torch.float32).to(x.dtype)
        fixed = fixed.to(x.dtype)
        if fixed.ndim == 1:
            return fixed.expand_as(x)
        return fixed[:, None].expand(-1, x.shape[1], -1).repeat(x.shape[0] // len(fixed), 1, 1)

    def segment(
        self,
        carry: Carry,
        x: Tensor,
        context: Context,
        *,
        cache: KeyValueCache | HeldKeys | None = None,
        index: int = 0,
        cycles: tuple[int, int] | None = None,
        grad_calls: int | None = None,
        noise: torch.Generator | None = None,
        first_only: bool = False,
    ) -> Carry:
        """One segment: all cycles, the last ``grad_calls`` calls with gradient.

        Args:
            index: the segment's number, for the cache.
            cycles: (high-level cycles, low-level calls in each) if fewer than the full depth.
            grad_calls: another number of last calls with gradient, while it is warmed up.
            noise: draws what ``state_noise`` adds after each call; without it nothing is added.
            first_only: leave out what position 0 of the last high-level state does not need; ``z_h`` is (B, 1, D) then.
        """
        config, z_h, z_l = self.config, carry.z_h, carry.z_l
        low_module = self.H_module if self.L_module is None else self.L_module
        h_cycles, l_cycles = cycles or (config.h_cycles, config.l_cycles)
        num_calls = h_cycles * (l_cycles + 1)
        first_with_grad = num_calls - (config.grad_calls if grad_calls is None else grad_calls)
        grad_enabled = torch.is_grad_enabled()
        for call in range(num_calls):
            caches = None if cache is None else cache.slots(index, call)
            with torch.set_grad_enabled(grad_enabled and call >= first_with_grad):
                if call % (l_cycles + 1) < l_cycles:
                    state = z_l + z_h + x if config.inject_input else z_l + z_h
                    z_l = self._settled(low_module(state, context, caches), z_l, noise)
                else:
                    # without a low level the input has no other way in
                    below = x if l_cycles == 0 and config.inject_input else z_l
                    narrow = first_only and call == num_calls - 1
                    new = self.H_module(z_h + below, context, caches, first_only=narrow)
                    z_h = self._settled(new, z_h[:, :1] if narrow else z_h, noise)
        return Carry(z_h, z_l)

    def _settled(self, new: Tensor, old: Tensor, noise: torch.Generator | None) -> Tensor:
        """Damping and noise of equilibrium training (2605.21488), where they are on."""
        if self.config.damping < 1:
            new = torch.lerp(old, new, self.config.damping)
        if noise is not None and self.config.state_noise:
            drawn = torch.randn(new.shape, generator=noise, device=new.device, dtype=torch.float32)
            new = new + self.config.state_noise * drawn.to(new.dtype)
        return new

    def q_values(self, z_h: Tensor) -> Tensor:
        """Values (B, 1 or 2), fp32 at least, of halting and of going on, from a high-level state at position 0."""
        if self.q_head is None:
            raise ValueError("this model has no Q head: it halts by token")
        values = self.q_head(z_h[:, 0])
        return values if values.dtype == torch.float64 else values.float()

    def logits(self, z_h: Tensor) -> Tensor:
        """Logits (B, S - P, V) of a high-level state (B, S, D), without the P positions of the puzzle embedding."""
        return self.lm_head(z_h[:, self.config.prefix_tokens :])

    @property
    def experts(self) -> dict[str, MoE]:
        """Layers with experts, by name (``H.0``, ...)."""
        layers = (module for module in self.modules() if isinstance(module, Layer))
        return {layer.name: layer.mlp for layer in layers if isinstance(layer.mlp, MoE)}

    @property
    def routers(self) -> dict[str, Router]:
        """Their routers."""
        return {name: moe.router for name, moe in self.experts.items()}

    def compile(self, *, backend: str | Callable[..., object] = "inductor") -> None:  # type: ignore[override]
        """Compile the layers' uncached path, with and without gradient, anew for each shape of batch."""
        # Whole and partial batches, of training and evaluation, with and without document boundaries, and again each
        # time that the micro-batch halves: more shapes than the library's limit of 8, beyond which it refuses.
        torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, MAX_COMPILED_SHAPES)
        self.H_module.compile_layers(backend)
        if self.L_module is not None:
            self.L_module.compile_layers(backend)


class PuzzleEmbedding(nn.Module):
    """A learned vector for each puzzle identifier (2506.21734), updated by an optimizer of its own.

    The table stays in fp32 whatever the model computes in: it is the master, and a row is cast when it is used. It is a
    buffer, because the dense optimizer must not see it: most rows have no gradient in a step.
    """

    weight: Tensor

    def __init__(self, num_identifiers: int, width: int) -> None:
        super().__init__()
        self.register_buffer("weight", torch.zeros(num_identifiers, width))

    def forward(self, identifiers: Tensor) -> Tensor:
        """Rows (B, width) of identifiers (B,)."""
        return self.weight[identifiers]

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> PuzzleEmbedding:
        before = self.weight
        super()._apply(fn, recurse)
        self.weight = before.to(self.weight.device) if before.is_floating_point() else self.weight
        return self


def _truncated_normal(shape: torch.Size, std: float, generator: torch.Generator) -> Tensor:
    # Cutting at 2 sigma leaves 0.8796 of the standard deviation; dividing by it restores the full one.
    out = torch.empty(shape, dtype=torch.float32)
    return nn.init.trunc_normal_(
        out, std=std / 0.87962566, a=-2 * std / 0.87962566, b=2 * std / 0.87962566, generator=generator
    )
