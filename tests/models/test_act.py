"""Segments within the step: what is summed, what is cut, what is freed."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from hrm_engine.kernels.losses import token_losses_reference
from hrm_engine.models import act
from hrm_engine.models.act import (
    TextBatch,
    TextLosses,
    accumulate_gradients,
    depth_statistics,
    halting_loss,
    run_segments,
)
from hrm_engine.models.core import RecurrentCore
from tests.models.tiny import IGNORE, gradients, packed_rows, tiny_core, whole_rows

every_architecture = pytest.mark.parametrize("arch", ["hrm", "hrm-text", "transformer"])


def step(
    core: RecurrentCore, batches: list[TextBatch], *, num_segments: int = 2, checkpointing: bool = False
) -> tuple[TextLosses, dict[str, Tensor]]:
    """Sums and gradients of one optimizer step over micro-batches."""
    core.zero_grad(set_to_none=True)
    normaliser = sum(int((batch.labels >= 0).sum()) for batch in batches)
    total: TextLosses | None = None
    for batch in batches:
        part = accumulate_gradients(
            core,
            batch,
            num_segments=num_segments,
            normaliser=normaliser,
            backward=lambda loss: loss.backward(),
            checkpointing=checkpointing,
        )
        total = part if total is None else total + part
    assert total is not None
    return total, gradients(core)


def part_of(batch: TextBatch, rows: slice) -> TextBatch:
    documents = None if batch.documents is None else batch.documents[rows]
    return TextBatch(batch.inputs[rows], batch.labels[rows], batch.positions[rows], documents)


def uneven_rows() -> TextBatch:
    """Four rows with 9, 7, 2 and no labels."""
    batch = packed_rows([[10], [4, 6], [8, 2], [5, 5]])
    labels = batch.labels.clone()
    labels[1, :1] = IGNORE
    labels[2, :6] = IGNORE
    labels[3] = IGNORE
    return replace(batch, labels=labels)


@every_architecture
@pytest.mark.parametrize("cuts", [[0, 1, 2, 3, 4], [0, 1, 4], [0, 3, 4]], ids=str)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-6)], ids=str)
def test_micro_batches_add_up_to_the_large_one(
    arch: str, cuts: list[int], dtype: torch.dtype, tolerance: float
) -> None:
    core = tiny_core(arch, dtype=dtype, sharpness=1.0)
    batch = uneven_rows()
    assert [(row >= 0).sum().item() for row in batch.labels] == [9, 7, 2, 0]
    whole_losses, whole = step(core, [batch])
    parts = [part_of(batch, slice(a, b)) for a, b in pairwise(cuts)]
    losses, summed = step(core, parts)
    torch.testing.assert_close(losses.ce_by_segment, whole_losses.ce_by_segment)
    torch.testing.assert_close(losses.halt, whole_losses.halt)
    for name, wanted in whole.items():
        torch.testing.assert_close(summed[name], wanted, rtol=0, atol=tolerance, msg=lambda t, n=name: f"{n}: {t}")
    assert any(gradient.abs().max() > 1e-2 for gradient in whole.values())


@every_architecture
@pytest.mark.parametrize("grad_calls", [2, 6])
def test_checkpointing_gives_the_same_gradients(arch: str, grad_calls: int) -> None:
    core = tiny_core(arch, grad_calls=grad_calls, h_layers=2)
    batch = uneven_rows()
    losses, plain = step(core, [batch], num_segments=3)
    again, recomputed = step(core, [batch], num_segments=3, checkpointing=True)
    assert torch.equal(again.ce_by_segment, losses.ce_by_segment)
    for name in plain:
        assert torch.equal(recomputed[name], plain[name]), name


def test_checkpointing_keeps_less() -> None:
    core = tiny_core("hrm", grad_calls=6, h_layers=3, l_layers=3)
    assert most_kept(core, num_segments=1, checkpointing=True) < most_kept(core, num_segments=1) / 3


def most_kept(core: RecurrentCore, *, num_segments: int, checkpointing: bool = False) -> int:
    """Bytes kept for backward passes at the worst moment of a step."""
    kept = [0]
    most = [0]

    class Kept:
        def __init__(self, tensor: Tensor) -> None:
            self.tensor = tensor
            self.size = tensor.nbytes
            kept[0] += self.size
            most[0] = max(most[0], kept[0])

        def __del__(self) -> None:
            kept[0] -= self.size

    with torch.autograd.graph.saved_tensors_hooks(Kept, lambda k: k.tensor):
        step(core, [whole_rows(2, 12)], num_segments=num_segments, checkpointing=checkpointing)
    assert kept[0] == 0  # the graph of the last segment is gone as well
    return most[0]


@every_architecture
@pytest.mark.parametrize("grad_calls", [2, 6])
def test_memory_does_not_grow_with_the_segments(arch: str, grad_calls: int) -> None:
    core = tiny_core(arch, grad_calls=grad_calls)
    two, six = most_kept(core, num_segments=2), most_kept(core, num_segments=6)
    assert two > 0
    assert six == two


@every_architecture
def test_one_backward_pass_a_segment_with_weights_that_sum_to_1(arch: str) -> None:
    core = tiny_core(arch)
    batch = uneven_rows()
    passes: list[float] = []

    def backward(loss: Tensor) -> None:
        passes.append(float(loss.detach()))
        loss.backward()
        with pytest.raises(RuntimeError, match="second time"):
            loss.backward()

    sums = accumulate_gradients(core, batch, num_segments=4, normaliser=18, backward=backward)
    assert len(passes) == 4
    ce = [float(x) for x in sums.ce_by_segment]
    assert sum(passes) == pytest.approx((sum(ce) / 4 + 0.05 * float(sums.halt)) / 18, abs=1e-12)
    assert passes[0] == pytest.approx(ce[0] / 4 / 18, abs=1e-12)
    # equal losses at every depth would give exactly that loss: the weights of the segments sum to 1
    assert sum(1 / 4 for _ in passes) == 1


@every_architecture
def test_depth_n_is_a_prefix_of_depth_n_plus_1(arch: str) -> None:
    """With the same weights a deeper step sees the same losses first."""
    core = tiny_core(arch)
    batch = uneven_rows()
    shallow, _ = step(core, [batch], num_segments=2)
    deep, _ = step(core, [batch], num_segments=4)
    assert torch.equal(shallow.ce_by_segment, deep.ce_by_segment[:2])
    assert len(set(deep.ce_by_segment.tolist())) == 4


def test_nothing_is_carried_from_one_step_to_the_next() -> None:
    core = tiny_core("hrm")
    batch = uneven_rows()
    first, first_gradients = step(core, [batch])
    second, second_gradients = step(core, [batch])
    assert torch.equal(first.ce_by_segment, second.ce_by_segment)
    assert all(torch.equal(first_gradients[name], second_gradients[name]) for name in first_gradients)


def test_sums_are_in_nats_over_label_tokens() -> None:
    core = tiny_core("hrm-text")
    batch = uneven_rows()
    sums, _ = step(core, [batch], num_segments=3)
    with torch.no_grad():
        for segment, carry in enumerate(run_segments(core, batch, num_segments=3)):
            by_token = token_losses_reference(carry.z_h.flatten(0, 1), core.lm_head.weight, batch.labels.flatten())
            assert sums.ce_by_segment[segment].item() == pytest.approx(by_token.sum().item(), abs=1e-10)
    losses, right = depth_statistics(core, batch, num_segments=3)
    torch.testing.assert_close(losses, sums.ce_by_segment, rtol=0, atol=1e-10)
    assert right.shape == (3,)


def test_the_label_for_continuing_by_hand() -> None:
    """sigmoid(50 * (CE_s - CE_{s+1} - 0.005)), then binary cross-entropy with the logit at that token."""
    core = tiny_core("hrm")
    hidden = torch.randn(5, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    losses = torch.tensor([2.0, 2.0, 2.0, 1.0, 7.0], dtype=torch.float64)
    following = torch.tensor([1.9, 1.995, 2.0, 3.0, 0.0], dtype=torch.float64)
    has_label = torch.tensor([True, True, True, True, False])
    assert core.halt_head is not None
    weight, bias = core.halt_head.weight[0].tolist(), core.halt_head.bias.item()
    wanted = 0.0
    targets = []
    for place in range(4):
        target = 1 / (1 + math.exp(-50 * (losses[place].item() - following[place].item() - 0.005)))
        logit = math.fsum(w * h for w, h in zip(weight, hidden[place].tolist(), strict=True)) + bias
        p = 1 / (1 + math.exp(-logit))
        wanted -= target * math.log(p) + (1 - target) * math.log(1 - p)
        targets.append(target)
    assert targets[0] > 0.99  # 0.1 nat saved
    assert targets[1] == pytest.approx(0.5)  # just the threshold
    assert targets[2] == pytest.approx(1 / (1 + math.exp(0.25)))  # nothing saved
    assert targets[3] < 1e-20
    found = halting_loss(core, hidden, losses, following, has_label)
    assert found.item() == pytest.approx(wanted, abs=1e-10)


@every_architecture
def test_the_halting_loss_reaches_the_halting_head_alone(arch: str, monkeypatch: pytest.MonkeyPatch) -> None:
    core = tiny_core(arch, grad_calls=6)
    batch = uneven_rows()
    _, with_halting = step(core, [batch], num_segments=3)
    monkeypatch.setattr(act, "HALT_LOSS_WEIGHT", 0.0)
    _, without = step(core, [batch], num_segments=3)
    for name, gradient in with_halting.items():
        if name.startswith("halt_head"):
            assert gradient.abs().sum() > 0
            assert without[name].abs().sum() == 0
        else:
            assert torch.equal(gradient, without[name]), name


def test_the_halting_head_is_trained_on_all_depths_but_the_last() -> None:
    """Gradient of the head's bias: the sum over those depths of (probability - label), over the label tokens."""
    core = tiny_core("hrm-text")
    batch = uneven_rows()
    labels = batch.labels.flatten()
    sums, found = step(core, [batch], num_segments=3)
    with torch.no_grad():
        hidden = [carry.z_h.flatten(0, 1) for carry in run_segments(core, batch, num_segments=3)]
        losses = [token_losses_reference(h, core.lm_head.weight, labels) for h in hidden]
        wanted = torch.zeros((), dtype=torch.float64)
        for depth in (0, 1):
            target = torch.sigmoid(50 * (losses[depth] - losses[depth + 1] - 0.005))
            probability = torch.sigmoid(act.continue_logits(core, hidden[depth]))
            wanted += (probability - target)[labels >= 0].sum()
    assert found["halt_head.bias"].item() == pytest.approx(0.05 * wanted.item() / 18, abs=1e-12)
    assert sums.halt.item() > 0


def test_one_segment_has_no_halting() -> None:
    core = tiny_core("hrm-text", halt_max_steps=1)
    assert core.halt_head is None
    sums, _ = step(core, [uneven_rows()], num_segments=1)
    assert sums.halt.item() == 0
    with pytest.raises(ValueError, match="no halting head"):
        act.continue_logits(core, torch.zeros(1, 32, dtype=torch.float64))


@every_architecture
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_narrow_types_stay_near(arch: str, dtype: torch.dtype) -> None:
    exact, _ = step(tiny_core(arch), [uneven_rows()])
    narrow, found = step(tiny_core(arch, dtype=dtype), [uneven_rows()])
    tolerance = 1e-5 if dtype is torch.float32 else 3e-2
    torch.testing.assert_close(narrow.ce_by_segment.double(), exact.ce_by_segment, rtol=tolerance, atol=0)
    assert all(gradient.isfinite().all() for gradient in found.values())
