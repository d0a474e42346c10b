"""Text from a causal model, token by token, for one prompt or for many at once.

Every position is defined at all depths; a token is drawn at the deepest segment that its position runs: all of them, or
as many as its halting head asks for. Keys and values are kept per (segment, call, layer), so a token costs the same
wherever it stands, attention itself aside.

Shapes: B rows, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from hrm_engine.bundles.bundle import Bundle, checked
from hrm_engine.config.keywords import takes
from hrm_engine.config.writing import MAX_BATCH_SIZE, WritingConfig
from hrm_engine.errors import ConfigError
from hrm_engine.inference.text.decoding import Decoder
from hrm_engine.inference.text.row import FinishReason, Generation, TextRow
from hrm_engine.inference.text.sampling import draw, row_generator
from hrm_engine.models.act import check_threshold


@takes(WritingConfig)
def generate(bundle: Bundle, prompt: str, *, settings: WritingConfig) -> Generation:
    """Continue a prompt; the same seed gives the same text. An empty prompt begins a document.

    Raises:
        ConfigError: values out of range, a prompt that fills the context, a threshold for a model without halting head.
        BundleError: the model gives NaN, as damaged weights do.
    """
    writing = Writing(bundle, prompt, settings)
    for _ in writing:
        pass
    return writing.result()


@takes(WritingConfig)
def stream(bundle: Bundle, prompt: str, *, settings: WritingConfig) -> Writing:
    """Like :func:`generate`, piece by piece.

    Held back are characters whose bytes are not complete yet, and what may be the beginning of a stop string.
    """
    return Writing(bundle, prompt, settings)


@takes(WritingConfig)
def generate_batch(
    bundle: Bundle,
    prompts: Sequence[str],
    *,
    batch_size: int = 8,
    where: Sequence[str] | None = None,
    first: int = 0,
    settings: WritingConfig,
) -> Iterator[Generation]:
    """Continue many prompts, ``batch_size`` at a time; yields their texts in order, as batches are finished.

    Row i draws from random numbers of its own, which follow from the seed and i. So a text does not depend on
    ``batch_size`` and the other prompts, but for rounding; row 0 is what :func:`generate` writes with the same seed.

    Args:
        where: what messages call each prompt, such as file and line; by default its number.
        first: number of the first prompt whose text is yielded, where those before are there already. Batches are the
            same as from 0, so its own is written from its beginning, and its text is the same to the last bit.

    Raises:
        ConfigError: as :func:`generate`, for the whole of the prompts before the first one is continued.
    """
    if not 1 <= batch_size <= MAX_BATCH_SIZE:
        raise ConfigError(f"--batch-size {batch_size}: use 1 to {MAX_BATCH_SIZE} prompts at a time")
    group = _Group(bundle, settings)
    names = [f"prompt {number}" for number in range(len(prompts))] if where is None else where
    ids = group.encoded(prompts, [f"{name}: " for name in names])
    return _in_batches(group, prompts, ids, batch_size, first)


def _in_batches(
    group: _Group, prompts: Sequence[str], ids: list[list[int]], batch_size: int, first: int
) -> Iterator[Generation]:
    if first >= len(ids):
        return
    for start in range(first - first % batch_size, len(ids), batch_size):
        numbers = range(start, min(start + batch_size, len(ids)))
        batch = [group.row(prompts[number], ids[number], number) for number in numbers]
        for _ in group.write(batch):
            pass
        yield from (row.result() for row in batch[max(0, first - start) :])


class Writing:
    """A text while it is written: an iterator over its pieces. Also raises what :func:`generate` raises."""

    def __init__(self, bundle: Bundle, prompt: str, settings: WritingConfig) -> None:
        group = _Group(bundle, settings)
        self.num_segments = group.num_segments
        self._row = group.row(prompt, group.encoded([prompt], [""])[0], 0)
        self._steps = group.write([self._row])

    def __iter__(self) -> Writing:
        return self

    def __next__(self) -> str:
        for _ in self._steps:
            if piece := self._row.take_shown():
                return piece
        raise StopIteration

    @property
    def tokens(self) -> list[str]:
        """The part of what was shown so far that each token made readable."""
        return self._row.tokens

    @property
    def depths(self) -> list[int]:
        """Segments for each token so far."""
        return list(self._row.depths)

    def result(self) -> Generation:
        """The whole, once there are no more pieces; RuntimeError before."""
        return self._row.result()


class _Group:
    """What the rows of a generation have in common, and the loop that continues some of them."""

    def __init__(self, bundle: Bundle, settings: WritingConfig) -> None:
        self.bundle, self.settings = checked(bundle, Bundle), settings
        self.num_segments = settings.segments or bundle.config.halt_max_steps
        if settings.halt_threshold is not None:
            check_threshold(bundle.model, settings.halt_threshold)

    def encoded(self, prompts: Sequence[str], where: Sequence[str]) -> list[list[int]]:
        """Token ids of prompts, after the begin token. Raises ConfigError if one leaves no room for a text."""
        size, tokenizer = self.bundle.config.max_seq_len, self.bundle.tokenizer
        begin = [tokenizer.bos_id]
        first = begin if self.bundle.begins_with_bos else []
        rows = [[*first, *ids.tolist()] or begin for ids in tokenizer.encode_batch(prompts)]
        for name, ids in zip(where, rows, strict=True):
            if len(ids) >= size:
                raise ConfigError(f"{name}the prompt has {len(ids)} tokens and the model's context {size}; shorten it")
        return rows

    def row(self, prompt: str, ids: list[int], number: int) -> TextRow:
        """The text of a prompt, not begun yet; its number decides what it draws."""
        most, sampling = self.settings.max_new_tokens, self.settings.sampling
        limit = min(most, self.bundle.config.max_seq_len - len(ids))
        at_limit: FinishReason = "length" if limit == most else "context"
        generator = row_generator(sampling.seed, number)
        return TextRow(self.bundle.tokenizer, prompt, ids, limit, at_limit, sampling.stop, generator, self.num_segments)

    def write(self, rows: list[TextRow]) -> Iterator[None]:
        """Continue rows until all are finished; yields after every token."""
        core, sampling = self.bundle.model, self.settings.sampling
        device = core.lm_head.weight.device
        longest = max(len(row.ids) for row in rows)
        pads = [longest - len(row.ids) for row in rows]
        pad_id = self.bundle.tokenizer.pad_id
        feed = torch.tensor([[pad_id] * pad + row.ids for pad, row in zip(pads, rows, strict=True)], device=device)
        padding = torch.tensor(pads, device=device) if any(pads) else None
        context = None
        if sampling.repetition_penalty != 1:
            context = torch.zeros(len(rows), core.config.vocab_size, dtype=torch.bool)
            for place, row in enumerate(rows):
                context[place, row.ids] = True
        decoder = Decoder(
            core,
            num_segments=self.num_segments,
            batch=len(rows),
            capacity=longest + max(row.limit for row in rows),
            halt_threshold=self.settings.halt_threshold,
        )
        generators = [row.generator for row in rows]
        while True:
            logits = decoder.feed(feed, padding)
            drawn, padding = draw(logits, sampling, generators, context, where=str(self.bundle.path)), None
            for row, token, depth in zip(rows, drawn.tolist(), decoder.depths[:, -1].tolist(), strict=True):
                if row.finish_reason is None:
                    row.take(token, depth)
            yield
            if all(row.finish_reason for row in rows):
                return
            if context is not None:
                context[torch.arange(len(rows)), drawn] = True
            feed = drawn[:, None].to(device)
