"""The network: which recurrence, how large, how deep.

Two forms of the same thing. :class:`NetworkConfig` is what a user chooses (flags). :class:`CoreConfig` is what rebuilds
the model (``config.json``): every difference between the architectures is spelled out as a setting there, so a bundle
never depends on what a name meant in the version that wrote it.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from hrm_engine.config.base import Config

Architecture = Literal["hrm-text", "hrm"]
GradCalls = int | Literal["one_step", "full"]
PositionEncoding = Literal["rope", "learned", "none"]

# What the names of the architecture table mean (norm placement, gate, initial states, injection); the sources are
# arXiv 2506.21734 for `hrm` and the `hrm_text` model in transformers for `hrm-text`.
ARCHITECTURES: dict[str, dict[str, object]] = {
    "hrm": {
        "norm": "post",
        "norm_eps": 1e-5,
        "exit_norm": False,
        "attention_gate": False,
        "initial_z_h": "random",
        "initial_z_l": "random",
        "inject_input": True,
        "shared_modules": False,
    },
    "hrm-text": {
        "norm": "pre",
        "norm_eps": 1e-6,
        "exit_norm": True,
        "attention_gate": True,
        "initial_z_h": "embedding",
        "initial_z_l": "zero",
        "inject_input": False,
        "shared_modules": False,
    },
}


class NetworkConfig(Config):
    """Architecture name and sizes, as chosen by flags."""

    arch: Architecture = Field("hrm-text", description="Architecture: a named setting of the recurrent core.")
    h_layers: int = Field(2, ge=1, le=64, description="Transformer layers in the high-level (slow) module.")
    l_layers: int = Field(2, ge=1, le=64, description="Transformer layers in the low-level (fast) module.")
    h_cycles: int = Field(2, ge=1, le=64, description="High-level cycles in a segment.")
    l_cycles: int = Field(2, ge=1, le=64, description="Low-level calls in each high-level cycle.")
    hidden_size: int = Field(512, ge=8, le=16384, description="Width D of the hidden states.")
    expansion: float = Field(
        2.0, gt=0, le=16, description="SwiGLU inner width = expansion x D x 2/3, rounded up to a multiple of 256."
    )
    num_heads: int = Field(8, ge=1, le=256, description="Attention heads; the width must be divisible by it.")
    grad_calls: GradCalls | None = Field(
        None,
        description="How many of the last module calls of a segment carry gradient; one_step = 2, full = all. "
        "Default: 2 for hrm; for hrm-text all from the first high-level call on, which reach the token embeddings.",
    )
    attention_gate: bool | None = Field(
        None, description="Sigmoid gate on the attention output. Default: as the architecture has it."
    )
    window_size: int | None = Field(
        None, ge=1, description="Causal sliding window in tokens, the token itself included. Default: no window."
    )
    pos_encodings: PositionEncoding = Field("rope", description="Position encoding: rope, learned or none.")
    halt_max_steps: int = Field(2, ge=1, le=64, description="ACT segments at most.")

    @model_validator(mode="after")
    def _sizes_fit(self) -> NetworkConfig:
        if self.hidden_size % self.num_heads:
            raise ValueError(
                f"--hidden-size {self.hidden_size} is not divisible by --num-heads {self.num_heads}; "
                f"choose for example --num-heads {_divisor_near(self.hidden_size, self.num_heads)}"
            )
        if self.pos_encodings == "rope" and (self.hidden_size // self.num_heads) % 2:
            raise ValueError("rope needs an even head width (hidden_size / num_heads); use other --num-heads")
        calls = self.h_cycles * (self.l_cycles + 1)
        if isinstance(self.grad_calls, int) and not 1 <= self.grad_calls <= calls:
            raise ValueError(f"--grad-calls {self.grad_calls}: this network has {calls} module calls in a segment")
        return self


class CoreConfig(Config):
    """Everything that rebuilds the model; written as ``config.json``."""

    arch: str = Field(description="Name of the architecture that the settings came from.")
    vocab_size: int = Field(ge=2, le=1 << 22, description="Rows of the token embedding and of the output head.")
    max_seq_len: int = Field(ge=1, le=1 << 20, description="Context in tokens.")
    hidden_size: int = Field(ge=8, le=1 << 14, description="Width D.")
    intermediate_size: int = Field(ge=1, le=1 << 18, description="SwiGLU inner width.")
    num_heads: int = Field(ge=1, le=256, description="Attention heads.")
    h_layers: int = Field(ge=1, le=64, description="Layers in the high-level module.")
    l_layers: int = Field(ge=1, le=64, description="Layers in the low-level module.")
    h_cycles: int = Field(ge=1, le=64, description="High-level cycles in a segment.")
    l_cycles: int = Field(
        ge=0, le=64, description="Low-level calls in each high-level cycle; 0 leaves one stack, a transformer."
    )
    grad_calls: int = Field(ge=1, description="Last module calls of a segment that carry gradient.")
    halt_max_steps: int = Field(ge=1, le=64, description="ACT segments the model was trained for.")
    norm: Literal["pre", "post"] = Field(description="Where the RMS norm stands in a layer.")
    norm_eps: float = Field(gt=0, description="Added to the mean square inside the RMS norm.")
    exit_norm: bool = Field(description="Whether a module ends with a norm of its own.")
    attention_gate: bool = Field(description="Sigmoid gate on the attention output.")
    initial_z_h: Literal["random", "embedding"] = Field(description="First high-level state: fixed random, or x.")
    initial_z_l: Literal["random", "zero"] = Field(description="First low-level state.")
    inject_input: bool = Field(description="Whether the input embedding x is added in each low-level call.")
    shared_modules: bool = Field(description="Whether both levels are one module.")
    mixer: Literal["attention", "sequence_mlp"] = Field(
        "attention", description="What mixes positions: attention, or a SwiGLU over the positions of full rows."
    )
    activation: Literal["swiglu", "gated_norm"] = Field(
        "swiglu", description="Inside the feed-forward layer: silu(g) v, or sigmoid(g) RMS(g v) (arXiv 2601.19085)."
    )
    feed_forward: Literal["dense"] = Field("dense", description="Kind of feed-forward layer.")
    causal: bool = Field(True, description="Causal attention (text) or attention to all positions (puzzles).")
    pos_encodings: PositionEncoding = Field(description="Position encoding.")
    rope_theta: float = Field(10000.0, gt=0, description="Base of the rotary frequencies.")
    window_size: int | None = Field(None, ge=1, description="Sliding window in tokens, the token itself included.")
    embedding_scale: float = Field(gt=0, description="Factor on the token embedding.")

    @model_validator(mode="after")
    def _sizes_fit(self) -> CoreConfig:
        if self.hidden_size % self.num_heads or (self.pos_encodings == "rope" and self.head_size % 2):
            raise ValueError(f"width {self.hidden_size} does not give {self.num_heads} heads of even width")
        if self.mixer == "sequence_mlp" and (self.causal or self.window_size or self.pos_encodings == "rope"):
            raise ValueError("a sequence_mlp sees whole rows: it cannot be causal, have a window, or rotate positions")
        if self.grad_calls > self.num_calls:
            raise ValueError(f"grad_calls {self.grad_calls} of {self.num_calls} module calls")
        return self

    @property
    def num_calls(self) -> int:
        """Module calls in one segment: each high-level cycle is ``l_cycles`` low-level calls and one high-level."""
        return self.h_cycles * (self.l_cycles + 1)

    @property
    def trains_embeddings(self) -> bool:
        """Whether a gradient of the first segment reaches the token embeddings."""
        return self.grad_calls >= (2 if self.inject_input else self.num_calls - self.l_cycles)

    @property
    def head_size(self) -> int:
        """Width of one attention head."""
        return self.hidden_size // self.num_heads


def resolve_core(
    network: NetworkConfig, *, vocab_size: int, max_seq_len: int, embedding_scale: float | None = None
) -> CoreConfig:
    """Spell out an architecture name and its sizes as the settings of the core.

    Args:
        embedding_scale: factor that brings the token embedding to unit variance; by default ``sqrt(D)``, which fits
            embeddings initialised with standard deviation ``1/sqrt(D)``.
    """
    settings = dict(ARCHITECTURES[network.arch])
    if network.attention_gate is not None:
        settings["attention_gate"] = network.attention_gate
    calls = network.h_cycles * (network.l_cycles + 1)
    # `hrm` adds the input in every low-level call, so its one-step gradient trains the embeddings. `hrm-text` adds it
    # nowhere: they are reached only by a gradient that goes back to the first high-level call. The published warm-up,
    # from 2 to 5 calls with two cycles of 3 + 1, ends exactly there. bench/LOG.md has what 2 costs.
    default = min(2, calls) if ARCHITECTURES[network.arch]["inject_input"] else max(2, calls - network.l_cycles)
    words = {"one_step": min(2, calls), "full": calls, "None": default}
    grad_calls = words.get(str(network.grad_calls), network.grad_calls)
    return CoreConfig.model_validate(
        {
            **settings,
            "arch": network.arch,
            "vocab_size": vocab_size,
            "max_seq_len": max_seq_len,
            "hidden_size": network.hidden_size,
            "intermediate_size": inner_width(network.hidden_size, network.expansion),
            "num_heads": network.num_heads,
            "h_layers": network.h_layers,
            "l_layers": network.l_layers,
            "h_cycles": network.h_cycles,
            "l_cycles": network.l_cycles,
            "grad_calls": grad_calls,
            "halt_max_steps": network.halt_max_steps,
            "pos_encodings": network.pos_encodings,
            "window_size": network.window_size,
            "embedding_scale": embedding_scale or network.hidden_size**0.5,
        }
    )


def inner_width(hidden_size: int, expansion: float) -> int:
    """SwiGLU inner width of the HRM papers: ``round(expansion * D * 2/3)`` up to a multiple of 256."""
    return -(-round(expansion * hidden_size * 2 / 3) // 256) * 256


def _divisor_near(number: int, wanted: int) -> int:
    return min((d for d in range(1, number + 1) if number % d == 0), key=lambda d: abs(d - wanted))
