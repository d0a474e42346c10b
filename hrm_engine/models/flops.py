"""Cost of thinking in FLOPs, from the configuration alone.

Matrix products only, 2 FLOPs for each multiplication with its addition; norms, rotations and activations are left out.
"""

from __future__ import annotations

from dataclasses import dataclass

from hrm_engine.config import CoreConfig
from hrm_engine.config.core import inner_width
from hrm_engine.models.layers import SEQUENCE_EXPANSION


@dataclass(frozen=True)
class StepFlops:
    """FLOPs of one optimizer step, by what they are for."""

    forward: int
    """Every call of every segment, and its logits."""
    backward: int
    """The calls that carry gradient, and the logits."""
    recomputed: int
    """Forward passes made again under gradient checkpointing."""
    target: int
    """The segment that only gives the target of Q-learning."""

    @property
    def total(self) -> int:
        """All of them."""
        return self.forward + self.backward + self.recomputed + self.target


def flops_per_layer(config: CoreConfig, name: str) -> int:
    """FLOPs of a layer, such as ``H.1``, for one row of ``max_seq_len`` positions: of the pairs that may attend.

    Of experts, those that a token is sent to are counted. Windows and ends of documents are not.
    """
    experts = config.experts_in(name)
    active = min(config.experts_per_token, experts) if experts else 1
    router = 2 * config.max_seq_len * config.hidden_size * experts
    return _mixer(config) + router + active * 3 * 2 * config.max_seq_len * config.hidden_size * config.intermediate_size


def step_flops(
    config: CoreConfig,
    *,
    rows: int,
    num_segments: int = 1,
    cycles: tuple[int, int] | None = None,
    grad_calls: int | None = None,
    checkpointing: bool = False,
) -> StepFlops:
    """FLOPs of one optimizer step on full rows; backward passes cost twice the forward pass of the same calls.

    Args:
        rows: of text, or slots of puzzles.
        cycles: (high-level cycles, low-level calls in each) where fewer than the full depth are run.
        grad_calls: calls that carry gradient where they are not those of ``config``.
        checkpointing: layers are computed again in the backward pass.
    """
    calls = _calls(config, cycles)
    with_gradient = sum(calls[-(config.grad_calls if grad_calls is None else grad_calls) :])
    logits = 2 * config.hidden_size * (config.max_seq_len - config.prefix_tokens) * config.vocab_size
    times = rows * num_segments * config.num_latents
    return StepFlops(
        forward=times * (sum(calls) + logits),
        backward=times * 2 * (with_gradient + logits),
        recomputed=times * with_gradient if checkpointing else 0,
        target=times * _looking_ahead(config, calls) if config.halting == "q_halt_continue" else 0,
    )


def flops_per_segment(config: CoreConfig) -> int:
    """FLOPs of one forward segment of one row with its logits and Q values, all its latents counted."""
    cells = config.max_seq_len - config.prefix_tokens
    q_values = {"token": 0, "q_halt": 1, "q_halt_continue": 2}[config.halting]
    heads = 2 * config.hidden_size * (cells * config.vocab_size + q_values)
    return config.num_latents * (sum(_calls(config)) + heads)


def _mixer(config: CoreConfig) -> int:
    length, width, heads = config.max_seq_len, config.hidden_size, config.num_heads * config.head_size
    if config.mixer == "sequence_mlp":
        return 3 * 2 * width * length * inner_width(length, SEQUENCE_EXPANSION)
    projections = 5 if config.attention_gate else 4
    pairs = length * (length + 1) // 2 if config.causal else length * length
    return projections * 2 * length * width * heads + 2 * 2 * pairs * heads


def _calls(config: CoreConfig, cycles: tuple[int, int] | None = None) -> list[int]:
    """FLOPs of each module call of a segment, for one row."""
    h_cycles, l_cycles = cycles or (config.h_cycles, config.l_cycles)
    names = config.layer_names
    high = sum(flops_per_layer(config, name) for name in names if name.startswith("H."))
    low = high if config.shared_modules else sum(flops_per_layer(config, name) for name in names if name[0] == "L")
    return ([low] * l_cycles + [high]) * h_cycles


def _looking_ahead(config: CoreConfig, calls: list[int]) -> int:
    """A segment whose last layer works for position 0 alone, though it needs the keys and values of all."""
    last = flops_per_layer(config, f"H.{config.h_layers - 1}")
    mixer, length = _mixer(config), config.max_seq_len
    # an MLP over the positions mixes whole rows
    shared = mixer
    if config.mixer == "attention":
        shared = 2 * 2 * length * config.hidden_size * config.num_heads * config.head_size
    return sum(calls) - last + shared + (last - shared) // length
