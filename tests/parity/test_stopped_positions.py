"""Positions that stop early: the engine equals its equations, and with a cache it equals itself without one."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from hrm_engine.inference.text import decoding
from hrm_engine.inference.text.decoding import Decoder
from hrm_engine.models.act import TextBatch, accumulate_gradients, run_segments
from hrm_engine.models.core import RecurrentCore
from tests.models.tiny import gradients, packed_rows, random_tokens, tiny_core
from tests.parity.ours import rows_of, shape_of, weights_of
from tests.parity.reference_model import logits_by_segment, training_loss

SEGMENTS = 3
every_architecture = pytest.mark.parametrize("arch", ["hrm", "hrm-text"])
every_window = pytest.mark.parametrize("window", [None, 2])


def stopping(batch: TextBatch, seed: int = 3) -> TextBatch:
    return replace(batch, depths=1 + random_tokens(*batch.inputs.shape, seed=seed, vocab=SEGMENTS))


@every_architecture
@every_window
def test_logits(arch: str, window: int | None) -> None:
    core = tiny_core(arch, window_size=window, h_layers=2)
    batch = stopping(packed_rows([[3, 5], [7, 1]], padding=1))
    assert batch.depths is not None
    weights = {name: weight.detach() for name, weight in weights_of(core).items()}
    with torch.no_grad():
        ours = [core.logits(carry.z_h) for carry in run_segments(core, batch, num_segments=SEGMENTS)]
    for number, row in enumerate(rows_of(batch)):
        depths = batch.depths[number].tolist()
        assert len(set(depths)) == SEGMENTS
        wanted = logits_by_segment(weights, shape_of(core), row, SEGMENTS, depths)
        for segment in range(SEGMENTS):
            torch.testing.assert_close(ours[segment][number], wanted[segment], rtol=0, atol=1e-10)


@every_architecture
@pytest.mark.parametrize("grad_calls", [2, 6])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_loss_and_gradients(arch: str, grad_calls: int, checkpointing: bool) -> None:
    core = tiny_core(arch, grad_calls=grad_calls)
    batch = stopping(packed_rows([[4, 2], [1, 5]]))
    assert batch.depths is not None
    has_label = batch.labels >= 0
    normaliser = int(batch.depths[has_label].sum()) / SEGMENTS
    losses: list[Tensor] = []

    def backward(loss: Tensor) -> None:
        losses.append(loss.detach())
        loss.backward()

    accumulate_gradients(
        core, batch, num_segments=SEGMENTS, normaliser=normaliser, backward=backward, checkpointing=checkpointing
    )
    weights, rows, labels = weights_of(core), rows_of(batch), batch.labels.tolist()
    wanted = training_loss(weights, shape_of(core), rows, labels, SEGMENTS, batch.depths.tolist())
    wanted.backward()
    assert float(torch.stack(losses).sum()) == pytest.approx(float(wanted.detach()), abs=1e-10)
    for name, found in gradients(core).items():
        expected = weights[name].grad
        expected = torch.zeros_like(found) if expected is None else expected
        torch.testing.assert_close(
            found, expected, rtol=1e-9, atol=1e-11, msg=lambda text, name=name: f"{name}: {text}"
        )


class Forced:
    """In the place of the halting head: the depths that a test wants."""

    def __init__(self, depths: Tensor) -> None:
        self.depths, self.start, self.segment = depths, 0, 0

    def feed(self, decoder: Decoder, piece: Tensor) -> Tensor:
        self.start, self.segment = decoder.cache.length, 0
        return decoder.feed(piece)

    def __call__(self, core: RecurrentCore, hidden: Tensor, threshold: float, before: Tensor | None) -> Tensor:
        self.segment += 1
        return self.depths[:, self.start : self.start + hidden.shape[1]] <= self.segment


@every_architecture
@every_window
@pytest.mark.parametrize("sizes", [[1] * 10, [4, 1, 1, 3, 1], [10]], ids=str)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-11), (torch.float32, 1e-5)], ids=str)
def test_cached_equals_uncached(
    arch: str,
    window: int | None,
    sizes: list[int],
    dtype: torch.dtype,
    tolerance: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    core = tiny_core(arch, dtype=dtype, sharpness=1.0, window_size=window)
    tokens = random_tokens(2, 10)
    batch = stopping(TextBatch(tokens, tokens, torch.arange(10)[None], None))
    assert batch.depths is not None
    with torch.no_grad():
        *_, carry = run_segments(core, batch, num_segments=SEGMENTS)
        wanted = core.logits(carry.z_h)
        *_, carry = run_segments(core, replace(batch, depths=None), num_segments=SEGMENTS)
    assert (core.logits(carry.z_h) - wanted).abs()[:, -1].max() > 1e-3  # stopping does change what is read
    forced = Forced(batch.depths)
    monkeypatch.setattr(decoding, "halts", forced)
    decoder = Decoder(core, num_segments=SEGMENTS, batch=2, halt_threshold=0.5)
    end = 0
    for piece in tokens.split(sizes, dim=1):
        found = forced.feed(decoder, piece)
        assert torch.equal(decoder.depths, batch.depths[:, end : end + piece.shape[1]])
        end += piece.shape[1]
        torch.testing.assert_close(found, wanted[:, end - 1], rtol=0, atol=tolerance)
        if dtype is torch.float64:
            assert torch.equal(found.argmax(-1), wanted[:, end - 1].argmax(-1))
