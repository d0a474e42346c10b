"""Each token stops where the halting head says so: thresholds, leaks, padding, statistics."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from hrm_engine.errors import ConfigError
from hrm_engine.inference.text.decoding import Decoder
from hrm_engine.inference.text.evaluate import evaluate, evaluate_adaptive
from hrm_engine.kernels.losses import token_losses_reference
from hrm_engine.models.act import (
    TextBatch,
    adaptive_statistics,
    continue_logits,
    halts,
    run_segments,
)
from hrm_engine.models.core import RecurrentCore
from tests.models.tiny import IGNORE, VOCAB, packed_rows, random_tokens, tiny_core, whole_rows

every_architecture = pytest.mark.parametrize("arch", ["hrm", "hrm-text", "transformer"])
SEGMENTS = 4


def undecided_core(arch: str, **changes: object) -> RecurrentCore:
    """Halting probabilities around a half, whatever the state is."""
    core = tiny_core(arch, halt_max_steps=SEGMENTS, **changes)
    assert core.halt_head is not None
    with torch.no_grad():
        core.halt_head.bias.fill_(0.5)
    return core


def depths_of(core: RecurrentCore, batch: TextBatch, threshold: float) -> Tensor:
    depths = torch.zeros_like(batch.inputs)
    with torch.no_grad():
        for carry in run_segments(core, batch, num_segments=SEGMENTS, halt_threshold=threshold):
            depths += 1 if carry.stopped is None else ~carry.stopped
    return depths


@every_architecture
def test_a_token_stops_where_the_probability_is_not_above_the_threshold(arch: str) -> None:
    core, batch = undecided_core(arch), packed_rows([[6, 6], [12]])
    depths = depths_of(core, batch, 0.6)
    assert len(set(depths.flatten().tolist())) > 2
    with torch.no_grad():
        carries = list(run_segments(core, replace(batch, depths=depths), num_segments=SEGMENTS))
    for segment, carry in enumerate(carries[:-1], start=1):
        goes_on = torch.sigmoid(continue_logits(core, carry.z_h)) > 0.6
        reached = depths >= segment
        assert torch.equal(goes_on[reached], depths[reached] > segment)


@every_architecture
def test_thresholds_at_the_ends(arch: str) -> None:
    core, batch = undecided_core(arch), whole_rows(2, 8)
    assert (depths_of(core, batch, 0.0) == SEGMENTS).all()
    assert (depths_of(core, batch, 1.0) == 1).all()
    fixed = evaluate(core, [batch], num_segments=SEGMENTS)
    found = evaluate_adaptive(core, [batch], num_segments=SEGMENTS, halt_threshold=0.0)
    assert found.loss == pytest.approx(fixed.loss, abs=1e-12)
    assert (found.token_accuracy, found.mean_depth) == (fixed.token_accuracy, SEGMENTS)
    found = evaluate_adaptive(core, [batch], num_segments=SEGMENTS, halt_threshold=1.0)
    assert found.loss == pytest.approx(fixed.loss_by_segment[0], abs=1e-12)
    assert (found.token_accuracy, found.mean_depth) == (fixed.token_accuracy_by_segment[0], 1)
    for threshold in (-0.1, 1.1):
        with pytest.raises(ConfigError, match="probability"):
            evaluate_adaptive(core, [batch], num_segments=SEGMENTS, halt_threshold=threshold)


def test_a_position_that_stopped_stays_stopped() -> None:
    core = undecided_core("hrm-text")
    states = torch.randn(1, 5, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    before = torch.tensor([[True, False, True, False, False]])
    assert halts(core, states, 0.0, before).equal(before)
    assert halts(core, states, 1.0, before).all()


@every_architecture
@pytest.mark.parametrize("window", [None, 3])
def test_later_tokens_change_nothing(arch: str, window: int | None) -> None:
    core, batch = undecided_core(arch, window_size=window), whole_rows(2, 10)

    def read_out(inputs: Tensor) -> Tensor:
        of = replace(batch, inputs=inputs)
        with torch.no_grad():
            *_, carry = run_segments(core, of, num_segments=SEGMENTS, halt_threshold=0.6)
            depths = depths_of(core, of, 0.6)[..., None].double()
            return torch.cat((core.logits(carry.z_h), depths), -1)

    before = read_out(batch.inputs)
    for place in range(1, 10):
        inputs = batch.inputs.clone()
        inputs[:, place] = (inputs[:, place] + 7) % VOCAB
        after = read_out(inputs)
        torch.testing.assert_close(after[:, :place], before[:, :place], rtol=0, atol=1e-12)
        assert (after[:, place] - before[:, place]).abs().max() > 1e-6


@every_architecture
def test_sums_over_label_tokens(arch: str) -> None:
    core, batch = undecided_core(arch), packed_rows([[6, 3], [9]], padding=2)
    depths, labels = depths_of(core, batch, 0.6), batch.labels
    with torch.no_grad():
        *_, carry = run_segments(core, batch, num_segments=SEGMENTS, halt_threshold=0.6)
        by_token = token_losses_reference(carry.z_h.flatten(0, 1), core.lm_head.weight, labels.flatten())
        right = core.logits(carry.z_h).argmax(-1) == labels
    loss, correct, depth = adaptive_statistics(core, batch, num_segments=SEGMENTS, halt_threshold=0.6)
    assert loss.item() == pytest.approx(by_token.sum().item(), abs=1e-10)
    assert correct.item() == right[labels != IGNORE].sum()
    assert depth.item() == depths[labels != IGNORE].sum()


@pytest.mark.parametrize("arch", ["hrm", "hrm-text"])  # states of a transformer settle at once
@pytest.mark.parametrize("sizes", [[5, 1, 1, 2], [9], [1] * 9], ids=str)
def test_generation_stops_where_evaluation_does(arch: str, sizes: list[int]) -> None:
    core, tokens = undecided_core(arch), random_tokens(2, 9, seed=4)
    batch = TextBatch(tokens, tokens, torch.arange(9)[None], None)
    depths = depths_of(core, batch, 0.6)
    assert len(set(depths.flatten().tolist())) > 2
    decoder = Decoder(core, num_segments=SEGMENTS, batch=2, halt_threshold=0.6)
    found = []
    for piece in tokens.split(sizes, dim=1):
        logits = decoder.feed(piece)
        found.append(decoder.depths)
    assert torch.equal(torch.cat(found, 1), depths)
    with torch.no_grad():
        *_, carry = run_segments(core, batch, num_segments=SEGMENTS, halt_threshold=0.6)
    torch.testing.assert_close(logits, core.logits(carry.z_h)[:, -1], rtol=0, atol=1e-11)


@every_architecture
@pytest.mark.parametrize("positions", ["rope", "learned"])
@pytest.mark.parametrize("window", [None, 3])
@pytest.mark.parametrize("threshold", [None, 0.6])
def test_rows_of_unequal_length_are_read_as_alone(
    arch: str, positions: str, window: int | None, threshold: float | None
) -> None:
    core = undecided_core(arch, pos_encodings=positions, window_size=window)
    prompts = [random_tokens(length, seed=length) for length in (5, 2, 7)]
    following = random_tokens(3, 4, seed=9)
    longest = max(len(prompt) for prompt in prompts)
    padding = torch.tensor([longest - len(prompt) for prompt in prompts])
    padded = torch.stack([torch.nn.functional.pad(p, (longest - len(p), 0), value=1) for p in prompts])
    together = Decoder(core, num_segments=SEGMENTS, batch=3, halt_threshold=threshold)
    found, depths = [together.feed(padded, padding)], []
    for place in range(4):
        found.append(together.feed(following[:, place : place + 1]))
        depths.append(together.depths)
    for row, prompt in enumerate(prompts):
        alone = Decoder(core, num_segments=SEGMENTS, halt_threshold=threshold)
        torch.testing.assert_close(alone.feed(prompt[None])[0], found[0][row], rtol=0, atol=1e-11)
        for place in range(4):
            logits = alone.feed(following[row : row + 1, place : place + 1])
            torch.testing.assert_close(logits[0], found[place + 1][row], rtol=0, atol=1e-11)
            assert alone.depths.item() == depths[place][row].item()


def test_padding_comes_first() -> None:
    decoder = Decoder(tiny_core(), num_segments=1)
    decoder.feed(random_tokens(1, 2))
    with pytest.raises(ValueError, match="first tokens"):
        decoder.feed(random_tokens(1, 2), torch.tensor([1]))


def test_a_model_of_one_segment_has_nothing_to_adapt() -> None:
    core = tiny_core("hrm-text", halt_max_steps=1)
    with pytest.raises(ValueError, match="no halting head"):
        list(run_segments(core, whole_rows(1, 4), num_segments=2, halt_threshold=0.5))
    with pytest.raises(ConfigError, match="no halting head"):
        evaluate_adaptive(core, [whole_rows(1, 4)], num_segments=2, halt_threshold=0.5)
