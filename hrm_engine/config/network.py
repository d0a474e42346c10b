"""The network of a text model: which recurrence, how large, how deep.

:class:`NetworkConfig` is what a user chooses (flags); :func:`resolve_core` spells it out as a :class:`CoreConfig`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from hrm_engine.config.architectures import ARCHITECTURES, divisor_near
from hrm_engine.config.base import Config
from hrm_engine.config.core import MAX_SEGMENTS, CoreConfig, PositionEncoding, inner_width
from hrm_engine.config.moe import MoEConfig

Architecture = Literal["hrm-text", "hrm", "transformer"]
GradCalls = int | Literal["one_step", "full"]

GradCallsWarmup = Annotated[
    float,
    Field(
        ge=0,
        le=1,
        description="Share of the steps over which the calls with gradient grow from 2 to --grad-calls, which makes "
        "them cheaper; 0 = all from the first step on. Published for hrm-text: 0.2.",
    ),
]

_RECURRENT = {"h_layers": 2, "l_layers": 2, "h_cycles": 2, "l_cycles": 2, "halt_max_steps": 2}
# One pass of one stack, as many layers as the two levels of the others together.
DEFAULTS: dict[str, dict[str, int]] = {
    "hrm-text": _RECURRENT,
    "hrm": _RECURRENT,
    "transformer": {"h_layers": 4, "l_layers": 0, "h_cycles": 1, "l_cycles": 0, "halt_max_steps": 1},
}


def _as_the_architecture(name: str) -> Callable[[dict[str, Any]], int]:
    return lambda values: DEFAULTS[values.get("arch", "hrm-text")][name]


class NetworkConfig(Config):
    """Architecture name and sizes, as chosen by flags."""

    arch: Architecture = Field("hrm-text", description="Architecture: a named setting of the recurrent core.")
    h_layers: int = Field(
        default_factory=_as_the_architecture("h_layers"),
        ge=1,
        le=64,
        description="Transformer layers in the high-level (slow) module; all layers of transformer, by default 4.",
    )
    l_layers: int = Field(
        default_factory=_as_the_architecture("l_layers"),
        ge=0,
        le=64,
        description="Transformer layers in the low-level (fast) module; transformer has none.",
    )
    h_cycles: int = Field(
        default_factory=_as_the_architecture("h_cycles"),
        ge=1,
        le=64,
        description="High-level cycles in a segment; transformer is one pass.",
    )
    l_cycles: int = Field(
        default_factory=_as_the_architecture("l_cycles"),
        ge=0,
        le=64,
        description="Low-level calls in each high-level cycle; transformer has none.",
    )
    hidden_size: int = Field(512, ge=8, le=16384, description="Width D of the hidden states.")
    expansion: float = Field(
        2.0, gt=0, le=16, description="SwiGLU inner width = expansion x D x 2/3, rounded up to a multiple of 256."
    )
    num_heads: int = Field(8, ge=1, le=256, description="Attention heads; the width must be divisible by it.")
    grad_calls: GradCalls | None = Field(
        None,
        description="How many of the last module calls of a segment carry gradient; one_step = 2, full = all. "
        "Default: 2 for hrm; for hrm-text all from the first high-level call on, which reach the token embeddings; "
        "transformer has one call.",
    )
    grad_calls_warmup: GradCallsWarmup = 0.0
    attention_gate: bool | None = Field(
        None, description="Sigmoid gate on the attention output. Default: as the architecture has it."
    )
    window_size: int | None = Field(
        None, ge=1, description="Causal sliding window in tokens, the token itself included. Default: no window."
    )
    pos_encodings: PositionEncoding = Field("rope", description="Position encoding: rope, learned or none.")
    halt_max_steps: int = Field(
        default_factory=_as_the_architecture("halt_max_steps"),
        ge=1,
        le=MAX_SEGMENTS,
        description="ACT segments at most; transformer by default 1, with more its stack runs again on its own result.",
    )

    @model_validator(mode="after")
    def _sizes_fit(self) -> NetworkConfig:
        if self.hidden_size % self.num_heads:
            raise ValueError(
                f"--hidden-size {self.hidden_size} is not divisible by --num-heads {self.num_heads}; "
                f"choose for example --num-heads {divisor_near(self.hidden_size, self.num_heads)}"
            )
        if self.pos_encodings == "rope" and (self.hidden_size // self.num_heads) % 2:
            raise ValueError("rope needs an even head width (hidden_size / num_heads); use other --num-heads")
        self._check_levels()
        calls = self.h_cycles * (self.l_cycles + 1)
        if isinstance(self.grad_calls, int) and not 1 <= self.grad_calls <= calls:
            raise ValueError(f"--grad-calls {self.grad_calls}: this network has {calls} module calls in a segment")
        check_warmup(self.grad_calls_warmup, self.num_grad_calls)
        return self

    @property
    def num_grad_calls(self) -> int:
        """Last module calls of a segment that carry gradient, those of a warm-up aside."""
        calls = self.h_cycles * (self.l_cycles + 1)
        # `hrm` adds the input in every low-level call, so its one-step gradient trains the embeddings. `hrm-text` adds
        # it nowhere: they are reached only by a gradient that goes back to the first high-level call. The published
        # warm-up, from 2 to 5 calls with two cycles of 3 + 1, ends exactly there. bench/LOG.md has what 2 costs.
        default = min(2, calls) if ARCHITECTURES[self.arch]["inject_input"] else max(2, calls - self.l_cycles)
        words = {"one_step": min(2, calls), "full": calls, "None": default}
        return int(words.get(str(self.grad_calls), self.grad_calls or default))

    def _check_levels(self) -> None:
        levels = {name: int(getattr(self, name)) for name in ("l_layers", "h_cycles", "l_cycles")}
        if self.arch == "transformer":
            wrong = {name: value for name, value in levels.items() if value != DEFAULTS[self.arch][name]}
            cure = "transformer is one pass of --h-layers layers; leave them out, and a preset that sets them"
        else:
            wrong = {name: value for name, value in levels.items() if not value}
            cure = f"{self.arch} has a low-level module that runs at least once; without one: --arch transformer"
        if wrong:
            flags = ", ".join(f"--{name.replace('_', '-')} {value}" for name, value in wrong.items())
            raise ValueError(f"{flags}: {cure}")


def check_warmup(share: float, full: int) -> None:
    """Raise ValueError where a warm-up of gradient calls would change nothing."""
    if share and full <= 2:
        raise ValueError(
            f"--grad-calls-warmup {share}: it grows from 2 calls, and this network's gradient has {full}; give a "
            "larger --grad-calls, or leave it out"
        )


def resolve_core(
    network: NetworkConfig,
    *,
    vocab_size: int,
    max_seq_len: int,
    embedding_scale: float | None = None,
    moe: MoEConfig | None = None,
) -> CoreConfig:
    """Spell out an architecture name and its sizes as the settings of the core.

    Args:
        moe: experts in the place of feed-forward layers; None: dense ones.
        embedding_scale: factor that brings the token embedding to unit variance; by default ``sqrt(D)``, which fits
            embeddings initialised with standard deviation ``1/sqrt(D)``.
    """
    settings = dict(ARCHITECTURES[network.arch])
    if network.attention_gate is not None:
        settings["attention_gate"] = network.attention_gate
    return CoreConfig.model_validate(
        {
            **settings,
            **({} if moe is None else moe.core_settings()),
            "arch": network.arch,
            "vocab_size": vocab_size,
            "max_seq_len": max_seq_len,
            "hidden_size": network.hidden_size,
            "intermediate_size": inner_width(network.hidden_size, network.expansion),
            "num_heads": network.num_heads,
            "h_layers": network.h_layers,
            "l_layers": network.l_layers or network.h_layers,
            "h_cycles": network.h_cycles,
            "l_cycles": network.l_cycles,
            "grad_calls": network.num_grad_calls,
            "halt_max_steps": network.halt_max_steps,
            "pos_encodings": network.pos_encodings,
            "window_size": network.window_size,
            "embedding_scale": embedding_scale or network.hidden_size**0.5,
        }
    )
