"""The network of a puzzle solver: which recurrence, how large, how deep, and how it halts.

:class:`PuzzleNetworkConfig` is what a user chooses (flags). What is left out is as the architecture has it;
:func:`resolve_puzzle_core` spells everything out as a :class:`CoreConfig`.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from hrm_engine.config.architectures import ARCHITECTURES, divisor_near
from hrm_engine.config.base import Config
from hrm_engine.config.core import MAX_SEGMENTS, CoreConfig, PositionEncoding, inner_width
from hrm_engine.config.moe import MoEConfig
from hrm_engine.config.network import GradCalls, GradCallsWarmup, check_warmup

PuzzleArchitecture = Literal["hrm", "trm", "trm-mlp", "trm-fast", "transformer"]

_TRM: dict[str, object] = {
    "h_layers": 2,
    "l_layers": 2,
    "h_cycles": 3,
    "l_cycles": 6,
    "puzzle_tokens": 16,
    "q_continue": False,
    "halt_max_steps": 16,
    "pos_encodings": "rope",
}
# Published sizes; the sources stand in architectures.py. `trm-fast` is 2601.19085.
DEFAULTS: dict[str, dict[str, object]] = {
    "hrm": {
        "h_layers": 4,
        "l_layers": 4,
        "h_cycles": 2,
        "l_cycles": 2,
        "puzzle_tokens": 1,
        "q_continue": True,
        "halt_max_steps": 16,
        "pos_encodings": "rope",
    },
    "trm": _TRM,
    "trm-mlp": {**_TRM, "pos_encodings": "none"},
    "trm-fast": {**_TRM, "h_cycles": 6, "l_cycles": 9, "pos_encodings": "none"},
    "transformer": {
        "h_layers": 8,
        "l_layers": 8,
        "h_cycles": 1,
        "l_cycles": 0,
        "puzzle_tokens": 1,
        "q_continue": False,
        "halt_max_steps": 1,
        "pos_encodings": "rope",
    },
}


class PuzzleNetworkConfig(Config):
    """Architecture, sizes, recurrence and halting; what is left out is as the architecture has it."""

    arch: PuzzleArchitecture = Field("hrm", description="Architecture: a named setting of the recurrent core.")
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
    hidden_size: int = Field(512, ge=8, le=16384, description="Width D of the hidden states.")
    expansion: float = Field(
        4.0, gt=0, le=16, description="SwiGLU inner width = expansion x D x 2/3, rounded up to a multiple of 256."
    )
    intermediate_size: int | None = Field(
        None, ge=1, le=1 << 18, description="SwiGLU inner width itself, instead of --expansion."
    )
    num_heads: int = Field(8, ge=1, le=256, description="Attention heads; the width must be divisible by it.")
    grad_calls: GradCalls | None = Field(
        None,
        description="How many of the last module calls of a segment carry gradient; one_step = 2, full = all. "
        "Default: 2 for hrm; for trm the last high-level cycle.",
    )
    grad_calls_warmup: GradCallsWarmup = 0.0
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
    state_noise: float = Field(
        0.0, ge=0, le=1, description="Standard deviation of noise added to states in training (2605.21488: 0.01)."
    )
    damping: float = Field(
        1.0,
        gt=0,
        le=1,
        description="New state = damping x module output + (1 - damping) x old state (2605.21488: 0.95).",
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
        None, ge=1, le=MAX_SEGMENTS, description="ACT segments at most. Default: 16; transformer 1."
    )

    @model_validator(mode="after")
    def _sizes_fit(self) -> PuzzleNetworkConfig:
        if self.hidden_size % self.num_heads:
            raise ValueError(
                f"--hidden-size {self.hidden_size} is not divisible by --num-heads {self.num_heads}; "
                f"choose for example --num-heads {divisor_near(self.hidden_size, self.num_heads)}"
            )
        settings = self.settings()
        if settings["pos_encodings"] == "rope" and (self.hidden_size // self.num_heads) % 2:
            raise ValueError("rope needs an even head width (hidden_size / num_heads); use other --num-heads")
        if settings["pos_encodings"] == "rope" and settings.get("mixer") == "sequence_mlp":
            raise ValueError("--mixer sequence_mlp does not rotate positions; use --pos-encodings none or learned")
        calls = self.num_calls
        if isinstance(self.grad_calls, int) and not 1 <= self.grad_calls <= calls:
            raise ValueError(f"--grad-calls {self.grad_calls}: this network has {calls} module calls in a segment")
        check_warmup(self.grad_calls_warmup, self.num_grad_calls)
        if self.q_continue and settings["halt_max_steps"] == 1:
            raise ValueError("--q-continue chooses between halting and going on; it needs --halt-max-steps 2 or more")
        return self

    def settings(self) -> dict[str, object]:
        """Sizes and core settings with what the architecture says filled in, by field name."""
        chosen = {name: getattr(self, name) for name in type(self).model_fields if getattr(self, name) is not None}
        merged = {**ARCHITECTURES[self.arch], **DEFAULTS[self.arch], **chosen}
        if self.pos_encodings is None and merged.get("mixer") == "sequence_mlp":
            merged["pos_encodings"] = "none"
        if self.q_continue is None and merged["halt_max_steps"] == 1:
            merged["q_continue"] = False
        return merged

    @property
    def num_calls(self) -> int:
        """Module calls in one segment."""
        settings = self.settings()
        return int(str(settings["h_cycles"])) * (int(str(settings["l_cycles"])) + 1)

    @property
    def num_grad_calls(self) -> int:
        """Last module calls of a segment that carry gradient, those of a warm-up aside."""
        calls, l_cycles = self.num_calls, int(str(self.settings()["l_cycles"]))
        default = calls if l_cycles == 0 else min(2, calls) if self.arch == "hrm" else l_cycles + 1
        words = {"one_step": min(2, calls), "full": calls, "None": default}
        return int(words.get(str(self.grad_calls), self.grad_calls or default))


def resolve_puzzle_core(
    network: PuzzleNetworkConfig,
    *,
    vocab_size: int,
    seq_len: int,
    num_identifiers: int,
    moe: MoEConfig | None = None,
) -> CoreConfig:
    """Spell out an architecture name and its sizes as the settings of the core.

    Args:
        moe: experts in the place of feed-forward layers; None: dense ones.
        seq_len: cells of a puzzle; the positions of the puzzle embedding come before them.
    """
    chosen = network.settings()
    prefix = int(str(chosen["puzzle_tokens"]))
    initial = {
        name: network.initial_state or ARCHITECTURES[network.arch][name] for name in ("initial_z_h", "initial_z_l")
    }
    taken = {name: value for name, value in chosen.items() if name in CoreConfig.model_fields}
    inner = network.intermediate_size or inner_width(network.hidden_size, network.expansion)
    return CoreConfig.model_validate(
        {
            **taken,
            **initial,
            **({} if moe is None else moe.core_settings()),
            "vocab_size": vocab_size,
            "max_seq_len": seq_len + prefix,
            "intermediate_size": inner,
            "grad_calls": network.num_grad_calls,
            "prefix_tokens": prefix,
            "num_identifiers": num_identifiers if prefix else 0,
            # As published, also where there are 16 positions: a table for each of them would be 16 times as large.
            "identifier_width": network.hidden_size if prefix else None,
            "halting": "q_halt_continue" if chosen["q_continue"] else "q_halt",
            "causal": False,
            "embedding_scale": network.hidden_size**0.5,
        }
    )
