"""One text that a model writes: its tokens, their text, and its end."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from hrm_engine.data.text.tokenizer import Tokenizer
from hrm_engine.inference.text.stop_strings import StopFinder

FinishReason = Literal["stop", "stop_string", "length", "context"]


@dataclass(frozen=True)
class Generation:
    """A finished text."""

    prompt: str
    text: str
    """The text after the prompt, up to the end token or a stop string, without it."""
    num_tokens: int
    """Tokens drawn, the end token aside; those that make up a stop string count."""
    finish_reason: FinishReason
    """``stop`` (an end token), ``stop_string``, ``length`` (as many tokens as allowed) or ``context`` (it is full)."""
    mean_depth: float | None
    """Mean of ``depths``; None where no token was drawn."""
    num_segments: int
    """Segments that a token could run."""
    seconds: float
    """In a batch: until this text was finished."""
    tokens: list[str]
    """The part of ``text`` that each token made readable; empty where a token ends within a character."""
    depths: list[int]
    """Segments run by the position from which each token was drawn."""


class TextRow:
    """A text in progress: takes its tokens one by one, until it is finished."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        prompt: str,
        ids: list[int],
        limit: int,
        at_limit: FinishReason,
        stop: Sequence[str],
        generator: torch.Generator,
        num_segments: int,
    ) -> None:
        self.prompt, self.ids, self.limit, self.generator = prompt, ids, limit, generator
        self.num_segments = num_segments
        self.finish_reason: FinishReason | None = None
        self.depths: list[int] = []
        self._at_limit: FinishReason = at_limit
        self._end_ids, self._pieces, self._finder = tokenizer.end_ids, tokenizer.stream_decoder(), StopFinder(stop)
        self._read: list[str] = []  # by token, whether it is shown yet or not
        self._shown: list[str] = []
        self._num_taken = 0
        self._started = time.perf_counter()

    def take(self, token: int, depth: int) -> None:
        """The next token, drawn at a depth."""
        if token in self._end_ids:
            self._end("stop")
            return
        self.depths.append(depth)
        self._read.append(self._pieces.push(token))
        self._shown.append(self._finder.push(self._read[-1]))
        if self._finder.has_ended:
            self._end("stop_string")
        elif len(self.depths) == self.limit:
            self._end(self._at_limit)

    def take_shown(self) -> str:
        """The text to show since the last call."""
        new = "".join(self._shown[self._num_taken :])
        self._num_taken = len(self._shown)
        return new

    @property
    def tokens(self) -> list[str]:
        """By token what it made readable, cut where the text is."""
        left, tokens = sum(map(len, self._shown)), []
        for piece in self._read:
            tokens.append(piece[:left])
            left -= len(tokens[-1])
        return tokens

    def result(self) -> Generation:
        """The finished text. Raises RuntimeError before."""
        if self.finish_reason is None:
            raise RuntimeError("the text is not finished: take all of its pieces first")
        depths = self.depths
        mean = sum(depths) / len(depths) if depths else None
        text = "".join(self._shown)
        return Generation(
            prompt=self.prompt,
            text=text,
            num_tokens=len(depths),
            finish_reason=self.finish_reason,
            mean_depth=mean,
            num_segments=self.num_segments,
            seconds=self._seconds,
            tokens=self.tokens,
            depths=list(depths),
        )

    def _end(self, reason: FinishReason) -> None:
        if reason != "stop_string":
            # Bytes that never became a character stand at the end of the last token.
            tail = self._pieces.finish()
            if self._read:
                self._read[-1] += tail
            self._shown.append(self._finder.push(tail))
            if self._finder.has_ended:
                reason = "stop_string"
            self._shown.append(self._finder.rest())
        self.finish_reason = reason
        self._seconds = time.perf_counter() - self._started
