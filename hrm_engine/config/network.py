"""Networks by the names of their architectures, and that of a text model: which recurrence, how large, how deep.

:class:`NetworkConfig` is what a user chooses (flags); :func:`resolve_core` spells it out as a :class:`CoreConfig`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from hrm_engine.config.base import Config, flag_of
from hrm_engine.config.core import MAX_SEGMENTS, CoreConfig, PositionEncoding, inner_width
from hrm_engine.config.moe import MoEConfig


def table(names: tuple[str, ...], rows: dict[str, tuple[object, ...]]) -> dict[str, dict[str, object]]:
    """A table of settings: for each row a dict of its values by the names of the columns."""
    return {row: dict(zip(names, values, strict=True)) for row, values in rows.items()}


# arXiv 2506.21734 (hrm), 2510.04871 (trm, trm-mlp), 2601.19085 (trm-fast), the hrm_text model in transformers
# (hrm-text); transformer is the plain comparison.
ARCHITECTURES = table(
    ("norm", "norm_eps", "exit_norm", "attention_gate", "initial_z_h", "initial_z_l", "inject_input", "shared_modules"),
    {
        "hrm": ("post", 1e-5, False, False, "random", "random", True, False),
        "trm": ("post", 1e-5, False, False, "random", "random", True, True),
        "trm-mlp": ("post", 1e-5, False, False, "random", "random", True, True),
        "trm-fast": ("post", 1e-5, False, False, "random", "random", True, True),
        "hrm-text": ("pre", 1e-6, True, True, "embedding", "zero", False, False),
        "transformer": ("pre", 1e-6, True, False, "zero", "zero", True, True),
    },
)
ARCHITECTURES["trm-mlp"] |= {"mixer": "sequence_mlp", "mixer_norm": "sequence"}
ARCHITECTURES["trm-fast"] |= {"mixer": "sequence_mlp", "activation": "gated_norm"}

ARCH = "Architecture: a named setting of the recurrent core."

Expansion = Annotated[
    float, Field(gt=0, le=16, description="SwiGLU inner width = expansion x D x 2/3, rounded up to a multiple of 256.")
]
GradCalls = int | Literal["one_step", "full"] | None


class AnyNetworkConfig(Config):
    """What the networks of text models and of solvers have in common."""

    arch: str = Field(description=ARCH)
    hidden_size: int = Field(512, ge=8, le=16384, description="Width D of the hidden states.")
    expansion: Expansion = 2.0
    num_heads: int = Field(8, ge=1, le=256, description="Attention heads; the width must be divisible by it.")
    grad_calls: GradCalls = Field(None, description="How many of the last module calls of a segment carry gradient.")
    grad_calls_warmup: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Share of the steps over which the calls with gradient grow from 2 to --grad-calls, which makes "
        "them cheaper; 0 = all from the first step on. Published for hrm-text: 0.2.",
    )

    def settings(self) -> dict[str, object]:
        """Sizes and core settings with what the architecture says filled in, by field name."""
        chosen = {name: getattr(self, name) for name in type(self).model_fields if getattr(self, name) is not None}
        return {**ARCHITECTURES[self.arch], **chosen}

    @property
    def cycles(self) -> tuple[int, int]:
        """High-level cycles of a segment, and low-level calls in each of them."""
        settings = self.settings()
        return int(str(settings["h_cycles"])), int(str(settings["l_cycles"]))

    @property
    def num_calls(self) -> int:
        """Module calls in one segment."""
        h_cycles, l_cycles = self.cycles
        return h_cycles * (l_cycles + 1)

    @property
    def num_grad_calls(self) -> int:
        """Last module calls of a segment that carry gradient, those of a warm-up aside."""
        calls, (_, l_cycles) = self.num_calls, self.cycles
        # `hrm` adds the input in every low-level call, so its one-step gradient trains the embeddings. `hrm-text` adds
        # it nowhere: they are reached only by a gradient that goes back to the first high-level call. The published
        # warm-up, from 2 to 5 calls with two cycles of 3 + 1, ends exactly there. bench/LOG.md has what 2 costs.
        by_default = {"hrm": 2, "hrm-text": max(2, calls - l_cycles)}.get(self.arch, l_cycles + 1)
        default = by_default if l_cycles else calls
        words = {"one_step": min(2, calls), "full": calls, "None": default}
        return int(words.get(str(self.grad_calls), self.grad_calls or default))

    @model_validator(mode="after")
    def _sizes_fit(self) -> Self:
        width, heads, calls = self.hidden_size, self.num_heads, self.num_calls
        if width % heads:
            near = min((d for d in range(1, width + 1) if width % d == 0), key=lambda d: abs(d - heads))
            raise ValueError(
                f"--hidden-size {width} is not divisible by --num-heads {heads}; choose for example --num-heads {near}"
            )
        if self.settings()["pos_encodings"] == "rope" and (width // heads) % 2:
            raise ValueError("rope needs an even head width (hidden_size / num_heads); use other --num-heads")
        self._check_levels()
        if isinstance(self.grad_calls, int) and not 1 <= self.grad_calls <= calls:
            raise ValueError(f"--grad-calls {self.grad_calls}: this network has {calls} module calls in a segment")
        if self.grad_calls_warmup and self.num_grad_calls <= 2:
            raise ValueError(
                f"--grad-calls-warmup {self.grad_calls_warmup}: it grows from 2 calls, and this network's gradient has "
                f"{self.num_grad_calls}; give a larger --grad-calls, or leave it out"
            )
        return self

    def _check_levels(self) -> None:
        """Raise ValueError where levels and halting do not fit the architecture."""

    def core(self, moe: MoEConfig | None, **settings: object) -> CoreConfig:
        """Everything spelled out as the settings of the core; ``settings`` are those that do not follow from it."""
        spelled = {name: value for name, value in self.settings().items() if name in CoreConfig.model_fields}
        sizes = {
            "intermediate_size": inner_width(self.hidden_size, self.expansion),
            "embedding_scale": self.hidden_size**0.5,
        }
        experts = {} if moe is None else moe.core_settings()
        grad_calls = {"grad_calls": self.num_grad_calls}
        return CoreConfig.model_validate({**sizes, **spelled, **grad_calls, **experts, **settings})


_SIZES = ("h_layers", "l_layers", "h_cycles", "l_cycles", "halt_max_steps")
# One pass of one stack in a transformer, as many layers as the two levels of the others together.
DEFAULTS = table(_SIZES, {"hrm-text": (2, 2, 2, 2, 2), "hrm": (2, 2, 2, 2, 2), "transformer": (4, 0, 1, 0, 1)})


def _as_the_architecture(name: str) -> Callable[[dict[str, Any]], Any]:
    return lambda values: DEFAULTS[values.get("arch", "hrm-text")][name]


class NetworkConfig(AnyNetworkConfig):
    """Architecture name and sizes, as chosen by flags."""

    arch: Literal["hrm-text", "hrm", "transformer"] = Field("hrm-text", description=ARCH)
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
    grad_calls: GradCalls = Field(
        None,
        description="How many of the last module calls of a segment carry gradient; one_step = 2, full = all. "
        "Default: 2 for hrm; for hrm-text all from the first high-level call on, which reach the token embeddings; "
        "transformer has one call.",
    )
    attention_gate: bool | None = Field(
        None, description="Sigmoid gate on the attention output. Default: the architecture's."
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

    def _check_levels(self) -> None:
        levels = {name: int(getattr(self, name)) for name in ("l_layers", "h_cycles", "l_cycles")}
        if self.arch == "transformer":
            wrong = {name: value for name, value in levels.items() if value != DEFAULTS[self.arch][name]}
            cure = "transformer is one pass of --h-layers layers; leave them out, and a preset that sets them"
        else:
            wrong = {name: value for name, value in levels.items() if not value}
            cure = f"{self.arch} has a low-level module that runs at least once; without one: --arch transformer"
        if wrong:
            flags = ", ".join(f"{flag_of(name)} {value}" for name, value in wrong.items())
            raise ValueError(f"{flags}: {cure}")


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
    scale = {} if embedding_scale is None else {"embedding_scale": embedding_scale}
    layers = network.l_layers or network.h_layers
    return network.core(moe, vocab_size=vocab_size, max_seq_len=max_seq_len, l_layers=layers, **scale)
