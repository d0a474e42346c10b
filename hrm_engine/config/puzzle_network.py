"""The network of a puzzle solver: which recurrence, how large, how deep, and how it halts.

:class:`PuzzleNetworkConfig` is what a user chooses (flags). What is left out is as the architecture has it;
:func:`resolve_puzzle_core` spells everything out as a :class:`CoreConfig`.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from hrm_engine.config.core import MAX_SEGMENTS, CoreConfig, PositionEncoding
from hrm_engine.config.moe import MoEConfig
from hrm_engine.config.network import ARCH, AnyNetworkConfig, Expansion, GradCalls, table

_NAMES = (
    "h_layers", "l_layers", "h_cycles", "l_cycles", "puzzle_tokens", "q_continue", "halt_max_steps", "pos_encodings",
)  # fmt: skip
# Published sizes; the sources stand in network.py.
DEFAULTS = table(
    _NAMES,
    {
        "hrm": (4, 4, 2, 2, 1, True, 16, "rope"),
        "trm": (2, 2, 3, 6, 16, False, 16, "rope"),
        "trm-mlp": (2, 2, 3, 6, 16, False, 16, "none"),
        "trm-fast": (2, 2, 6, 9, 16, False, 16, "none"),
        "transformer": (8, 8, 1, 0, 1, False, 1, "rope"),
    },
)


class PuzzleNetworkConfig(AnyNetworkConfig):
    """Architecture, sizes, recurrence and halting; what is left out is as the architecture has it."""

    arch: Literal["hrm", "trm", "trm-mlp", "trm-fast", "transformer"] = Field("hrm", description=ARCH)
    h_layers: int | None = Field(None, ge=1, le=64, description="Layers in the high-level module. Default: 4; trm 2.")
    l_layers: int | None = Field(
        None, ge=1, le=64, description="Layers in the low-level module. Default: 4; trm shares the high-level module."
    )
    h_cycles: int | None = Field(
        None, ge=1, le=64, description="High-level cycles in a segment. Default: 2; trm 3; trm-fast 6; transformer 1."
    )
    l_cycles: int | None = Field(
        None, ge=0, le=64, description="Low-level calls in a cycle. Default: 2; trm 6; trm-fast 9; transformer 0."
    )
    expansion: Expansion = 4.0
    intermediate_size: int | None = Field(
        None, ge=1, le=1 << 18, description="SwiGLU inner width, instead of --expansion."
    )
    grad_calls: GradCalls = Field(
        None,
        description="How many of the last module calls of a segment carry gradient; one_step = 2, full = all. "
        "Default: 2 for hrm; for trm the last high-level cycle.",
    )
    puzzle_tokens: int | None = Field(
        None, ge=0, le=1024, description="Positions of the puzzle embedding; 0 = none. Default: 1; trm 16."
    )
    pos_encodings: PositionEncoding | None = Field(
        None, description="Position encoding: rope, learned or none. Default: rope; none where an MLP mixes positions."
    )
    mixer: Literal["attention", "sequence_mlp"] | None = Field(
        None, description="What mixes positions. Default: attention; sequence_mlp in trm-mlp and trm-fast."
    )
    activation: Literal["swiglu", "gated_norm"] | None = Field(
        None, description="Inside the feed-forward layer. Default: swiglu; gated_norm in trm-fast."
    )
    norm: Literal["pre", "post"] | None = Field(None, description="Where the RMS norm stands. Default: post.")
    attention_gate: bool | None = Field(None, description="Sigmoid gate on the attention output. Default: off.")
    shared_modules: bool | None = Field(None, description="One module for both levels. Default: off; trm on.")
    inject_input: bool | None = Field(None, description="Add the input embedding in each low-level call. Default: on.")
    initial_state: Literal["random", "zero", "noise"] | None = Field(
        None,
        description="States of a fresh row: a fixed random vector, zero, or noise drawn anew each time (2605.21488). "
        "Default: random.",
    )
    state_noise: float = Field(0.0, ge=0, le=1, description="Std of noise on states in training (2605.21488: 0.01).")
    damping: float = Field(
        1.0, gt=0, le=1, description="New state = damping x output + (1 - damping) x old state (2605.21488: 0.95)."
    )
    num_latents: int = Field(
        1, ge=1, le=64, description="Latents run in parallel; the best one of each row takes the gradient (2601.19085)."
    )
    q_continue: bool | None = Field(
        None,
        description="Q-learning of halting against going on, with a target from one segment more; off: the halting "
        "logit alone. Default: on for hrm.",
    )
    halt_max_steps: int | None = Field(
        None, ge=1, le=MAX_SEGMENTS, description="ACT segments. Default: 16; transformer 1."
    )

    def _check_levels(self) -> None:
        settings = self.settings()
        if settings["pos_encodings"] == "rope" and settings.get("mixer") == "sequence_mlp":
            raise ValueError("--mixer sequence_mlp does not rotate positions; use --pos-encodings none or learned")
        if self.q_continue and settings["halt_max_steps"] == 1:
            raise ValueError("--q-continue chooses between halting and going on; it needs --halt-max-steps 2 or more")

    def settings(self) -> dict[str, object]:
        """Sizes and core settings with what the architecture says filled in, by field name."""
        merged = {**DEFAULTS[self.arch], **super().settings()}
        if self.pos_encodings is None and merged.get("mixer") == "sequence_mlp":
            merged["pos_encodings"] = "none"
        if self.q_continue is None and merged["halt_max_steps"] == 1:
            merged["q_continue"] = False
        return merged


def resolve_puzzle_core(
    network: PuzzleNetworkConfig, *, vocab_size: int, seq_len: int, num_identifiers: int, moe: MoEConfig | None = None
) -> CoreConfig:
    """Spell out an architecture name and its sizes as the settings of the core.

    Args:
        moe: experts in the place of feed-forward layers; None: dense ones.
        seq_len: cells of a puzzle; the positions of the puzzle embedding come before them.
    """
    settings = network.settings()
    prefix = int(str(settings["puzzle_tokens"]))
    initial = {name: network.initial_state or settings[name] for name in ("initial_z_h", "initial_z_l")}
    return network.core(
        moe,
        **initial,
        vocab_size=vocab_size,
        max_seq_len=seq_len + prefix,
        prefix_tokens=prefix,
        num_identifiers=num_identifiers if prefix else 0,
        # As published, also where there are 16 positions: a table for each of them would be 16 times as large.
        identifier_width=network.hidden_size if prefix else None,
        halting="q_halt_continue" if settings["q_continue"] else "q_halt",
        causal=False,
    )
