"""Text from a causal model, token by token, at a fixed depth.

Every position is defined at all depths; the text is read at the deepest segment that is run. Keys and values are kept
per (segment, call, layer), so a token costs the same wherever it stands, attention itself aside.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from hrm_engine.bundles import Bundle
from hrm_engine.errors import ConfigError
from hrm_engine.inference.decoding import Decoder


@dataclass(frozen=True)
class Sampling:
    """How the next token is drawn from the logits; temperature 0 takes the most likely one."""

    temperature: float = 0.8
    top_k: int = 0
    top_p: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.temperature <= 100:
            raise ConfigError(f"--temperature {self.temperature}: use a value from 0 (greedy) to 100")
        if self.top_k < 0:
            raise ConfigError(f"--top-k {self.top_k}: use 0 (off) or a positive number of tokens")
        if not 0 < self.top_p <= 1:
            raise ConfigError(f"--top-p {self.top_p}: use a share above 0 and up to 1 (off)")
        if not 0 <= self.seed < 2**63:
            raise ConfigError(f"--seed {self.seed}: use a whole number from 0 to 2^63 - 1")


@dataclass(frozen=True)
class Generation:
    """A finished text. ``finish_reason``: ``stop`` (end token), ``length`` or ``context`` (the context is full)."""

    prompt: str
    text: str
    num_tokens: int
    finish_reason: Literal["stop", "length", "context"]
    seconds: float


def generate(
    bundle: Bundle,
    prompt: str,
    *,
    max_new_tokens: int = 100,
    segments: int | None = None,
    temperature: float = 0.8,
    top_k: int = 0,
    top_p: float = 1.0,
    seed: int = 0,
) -> Generation:
    """Continue a prompt; the same seed gives the same text.

    Args:
        segments: depth at which the text is read; by default the one that the model was trained for.

    Raises:
        ConfigError: values out of range, or a prompt that fills the context.
    """
    started = time.perf_counter()
    writer = _Writer(bundle, prompt, max_new_tokens, segments, Sampling(temperature, top_k, top_p, seed))
    text = "".join(writer)
    return Generation(prompt, text, writer.num_tokens, writer.finish_reason, time.perf_counter() - started)


def stream(
    bundle: Bundle,
    prompt: str,
    *,
    max_new_tokens: int = 100,
    segments: int | None = None,
    temperature: float = 0.8,
    top_k: int = 0,
    top_p: float = 1.0,
    seed: int = 0,
) -> Iterator[str]:
    """Like :func:`generate`, piece by piece; a character whose bytes are not complete yet is held back."""
    return iter(_Writer(bundle, prompt, max_new_tokens, segments, Sampling(temperature, top_k, top_p, seed)))


def draw(logits: Tensor, sampling: Sampling, generator: torch.Generator) -> Tensor:
    """Next token ids (B,) from logits (B, V); drawn on the CPU so that a seed means the same on every device."""
    logits = logits.float().cpu()
    if sampling.temperature == 0:
        return logits.argmax(-1)
    # Measured from the largest, which stays 0 however small the temperature is; what overflows is -inf.
    logits = (logits - logits.amax(-1, keepdim=True)) / max(sampling.temperature, 1e-30)
    if sampling.top_k:
        smallest = logits.topk(min(sampling.top_k, logits.shape[-1])).values[..., -1:]
        logits = logits.masked_fill(logits < smallest, float("-inf"))
    probability = logits.softmax(-1)
    if sampling.top_p < 1:
        ordered, order = probability.sort(descending=True, stable=True)
        # a token stays while those before it have not reached the share; the first always does
        ordered = ordered.masked_fill(ordered.cumsum(-1) - ordered >= sampling.top_p, 0.0)
        probability = torch.zeros_like(probability).scatter(-1, order, ordered)
    return torch.multinomial(probability, 1, generator=generator)[..., 0]


class _Writer:
    """One generation in progress."""

    def __init__(
        self, bundle: Bundle, prompt: str, max_new_tokens: int, segments: int | None, sampling: Sampling
    ) -> None:
        config, tokenizer = bundle.config, bundle.tokenizer
        if max_new_tokens < 1:
            raise ConfigError(f"--max-new-tokens {max_new_tokens}: at least 1")
        num_segments = config.halt_max_steps if segments is None else segments
        if not 1 <= num_segments <= 64:
            raise ConfigError(f"--segments {segments}: use 1 to 64; the model was trained for {config.halt_max_steps}")
        begin = [tokenizer.bos_id]
        self.ids = [*(begin if bundle.begins_with_bos else []), *tokenizer.encode(prompt).tolist()] or begin
        if len(self.ids) >= config.max_seq_len:
            raise ConfigError(
                f"the prompt has {len(self.ids)} tokens and the model's context {config.max_seq_len}; shorten it"
            )
        self.bundle = bundle
        self.sampling = sampling
        self.num_segments = num_segments
        self.limit = min(max_new_tokens, config.max_seq_len - len(self.ids))
        self.finish_reason: Literal["stop", "length", "context"] = (
            "length" if self.limit == max_new_tokens else "context"
        )
        self.num_tokens = 0

    def __iter__(self) -> Iterator[str]:
        core, tokenizer = self.bundle.model, self.bundle.tokenizer
        device = core.lm_head.weight.device
        decoder = Decoder(core, num_segments=self.num_segments, capacity=len(self.ids) + self.limit)
        pieces = tokenizer.stream_decoder()
        generator = torch.Generator().manual_seed(self.sampling.seed)
        feed = torch.tensor([self.ids], device=device)
        for _ in range(self.limit):
            token = draw(decoder.feed(feed), self.sampling, generator)
            if int(token) == tokenizer.eos_id:
                self.finish_reason = "stop"
                break
            self.num_tokens += 1
            if piece := pieces.push(int(token)):
                yield piece
            feed = token[:, None].to(device)
        if piece := pieces.finish():
            yield piece
