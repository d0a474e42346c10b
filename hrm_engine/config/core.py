"""What rebuilds a model: ``config.json``.

Every difference between the architectures is spelled out as a setting here, so a bundle never depends on what a name
meant in the version that wrote it.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from hrm_engine.config.base import Config

PositionEncoding = Literal["rope", "learned", "none"]

MAX_SEGMENTS = 64
"""ACT segments that a model may be trained for, or asked for, at most."""


class CoreConfig(Config):
    """Everything that rebuilds the model; written as ``config.json``."""

    arch: str = Field(description="Name of the architecture that the settings came from.")
    vocab_size: int = Field(ge=2, le=1 << 22, description="Rows of the token embedding and of the output head.")
    max_seq_len: int = Field(ge=1, le=1 << 20, description="Context in tokens.")
    hidden_size: int = Field(ge=8, le=1 << 14, description="Width D.")
    intermediate_size: int = Field(ge=1, le=1 << 18, description="SwiGLU inner width.")
    num_heads: int = Field(ge=1, le=256, description="Attention heads.")
    head_width: int | None = Field(
        None, ge=1, le=1 << 14, description="Width of a head; None: hidden_size / num_heads."
    )
    h_layers: int = Field(ge=1, le=64, description="Layers in the high-level module.")
    l_layers: int = Field(ge=1, le=64, description="Layers in the low-level module.")
    h_cycles: int = Field(ge=1, le=64, description="High-level cycles in a segment.")
    l_cycles: int = Field(
        ge=0, le=64, description="Low-level calls in a high-level cycle; 0: one stack, a transformer."
    )
    grad_calls: int = Field(ge=1, description="Last module calls of a segment that carry gradient.")
    halt_max_steps: int = Field(ge=1, le=MAX_SEGMENTS, description="ACT segments the model was trained for.")
    norm: Literal["pre", "post"] = Field(description="Where the RMS norm stands in a layer.")
    norm_eps: float = Field(gt=0, description="Added to the mean square inside the RMS norm.")
    exit_norm: bool = Field(description="Whether a module ends with a norm of its own.")
    attention_gate: bool = Field(description="Sigmoid gate on the attention output.")
    initial_z_h: Literal["random", "embedding", "zero", "noise"] = Field(
        description="First high-level state: a fixed random vector, x, zero, or fresh noise at each start."
    )
    initial_z_l: Literal["random", "zero", "noise"] = Field(description="First low-level state.")
    inject_input: bool = Field(description="Whether the input embedding x is added in each low-level call.")
    shared_modules: bool = Field(description="Whether both levels are one module.")
    mixer: Literal["attention", "sequence_mlp"] = Field(
        "attention", description="What mixes positions: attention, or a SwiGLU over the positions of full rows."
    )
    mixer_norm: Literal["hidden", "sequence"] = Field(
        "hidden",
        description="What the norm of a sequence_mlp averages over: the hidden width, or the positions, as in TRM's "
        "published code.",
    )
    activation: Literal["swiglu", "gated_norm"] = Field(
        "swiglu", description="Inside the feed-forward layer: silu(g) v, or sigmoid(g) RMS(g v) (arXiv 2601.19085)."
    )
    feed_forward: Literal["dense", "moe"] = Field("dense", description="Kind of feed-forward layer.")
    num_experts: int = Field(0, ge=0, le=1024, description="Experts of each layer where feed_forward is moe.")
    experts_per_token: int = Field(0, ge=0, le=64, description="Experts that a token is sent to.")
    layer_experts: dict[str, int] = Field(
        default_factory=dict,
        description="Experts of single layers, by names such as H.1, where they have another number: an attached "
        "expert is one more. In a dense model the layer's own network is the first of them.",
    )
    causal: bool = Field(True, description="Causal attention (text) or attention to all positions (puzzles).")
    prefix_lm: bool = Field(
        False,
        description="Whether a prompt is a prefix whose positions all see each other (PrefixLM); what follows it is "
        "causal, and so is text without a prompt.",
    )
    pos_encodings: PositionEncoding = Field(description="Position encoding.")
    rope_theta: float = Field(10000.0, gt=0, description="Base of the rotary frequencies.")
    window_size: int | None = Field(None, ge=1, description="Sliding window in tokens, the token itself included.")
    embedding_scale: float = Field(gt=0, description="Factor on the token embedding.")
    halting: Literal["token", "q_halt", "q_halt_continue"] = Field(
        "token",
        description="What decides that thinking ends: a logit per token (text), a halting logit per row (TRM), or the "
        "Q values of halting and going on (HRM).",
    )
    prefix_tokens: int = Field(0, ge=0, le=1024, description="Positions before the row that hold its puzzle embedding.")
    num_identifiers: int = Field(0, ge=0, description="Rows of the puzzle embedding.")
    identifier_width: int | None = Field(
        None,
        ge=1,
        description="Columns of the puzzle embedding; zeros fill the rest of its positions. None: all of them, "
        "prefix_tokens x hidden_size.",
    )
    num_latents: int = Field(1, ge=1, le=64, description="Latent states run in parallel for each row (2601.19085).")
    damping: float = Field(
        1.0, gt=0, le=1, description="Share of a module's output in the new state; the rest is the old (2605.21488)."
    )
    state_noise: float = Field(0.0, ge=0, le=1, description="Noise on states in training (2605.21488).")

    @model_validator(mode="after")
    def _sizes_fit(self) -> CoreConfig:
        if self.head_width is None and self.hidden_size % self.num_heads:
            raise ValueError(f"width {self.hidden_size} does not give {self.num_heads} heads of even width")
        if self.pos_encodings == "rope" and self.head_size % 2:
            raise ValueError(f"heads of width {self.head_size}: rope needs {self.num_heads} heads of even width")
        if self.prefix_lm and (not self.causal or self.window_size or self.mixer != "attention"):
            raise ValueError("prefix_lm is for causal attention without a window")
        if self.mixer == "sequence_mlp" and (self.causal or self.window_size or self.pos_encodings == "rope"):
            raise ValueError("a sequence_mlp sees whole rows: it cannot be causal, have a window, or rotate positions")
        if self.prefix_tokens >= self.max_seq_len:
            raise ValueError(f"prefix_tokens {self.prefix_tokens} leave no room in max_seq_len {self.max_seq_len}")
        if (self.prefix_tokens == 0) != (self.num_identifiers == 0):
            raise ValueError("a puzzle embedding needs both prefix_tokens and num_identifiers")
        if (self.identifier_width or 0) > self.prefix_width:
            raise ValueError(f"identifier_width {self.identifier_width} is more than its {self.prefix_width} places")
        if self.grad_calls > self.num_calls:
            raise ValueError(f"grad_calls {self.grad_calls} of {self.num_calls} module calls")
        self._check_experts()
        return self

    def _check_experts(self) -> None:
        is_moe = self.feed_forward == "moe"
        if is_moe != bool(self.num_experts) or (is_moe or bool(self.layer_experts)) != bool(self.experts_per_token):
            raise ValueError(
                "num_experts and experts_per_token go with feed_forward moe; layer_experts need the latter"
            )
        if is_moe and self.experts_per_token > self.num_experts:
            raise ValueError(f"experts_per_token {self.experts_per_token} of {self.num_experts} experts")
        if (is_moe or self.layer_experts) and self.activation != "swiglu":
            raise ValueError(f"experts are SwiGLUs; activation {self.activation} has none")
        for name, count in self.layer_experts.items():
            if name not in self.layer_names:
                raise ValueError(f"layer_experts: no layer is called {name!r}; there are {', '.join(self.layer_names)}")
            if count < max(1, self.num_experts):
                raise ValueError(f"layer_experts: {name} has {count} experts, fewer than the model's layers")

    @property
    def layer_names(self) -> list[str]:
        """``H.0``, ``H.1``, ..., and the low-level ones where that module exists."""
        low = 0 if self.shared_modules or self.l_cycles == 0 else self.l_layers
        return [*(f"H.{layer}" for layer in range(self.h_layers)), *(f"L.{layer}" for layer in range(low))]

    def experts_in(self, name: str) -> int:
        """Experts of the layer of that name; 0 where it is dense."""
        return self.layer_experts.get(name, self.num_experts)

    @property
    def prefix_width(self) -> int:
        """Numbers that the positions of the puzzle embedding hold."""
        return self.prefix_tokens * self.hidden_size

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
        return self.head_width or self.hidden_size // self.num_heads


def inner_width(hidden_size: int, expansion: float) -> int:
    """SwiGLU inner width of the HRM papers: ``round(expansion * D * 2/3)`` up to a multiple of 256."""
    return -(-round(expansion * hidden_size * 2 / 3) // 256) * 256
