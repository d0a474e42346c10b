"""Evaluation: token-weighted over unequal batches, at every depth."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from hrm_engine.errors import DataError
from hrm_engine.inference import Evaluation, evaluate
from hrm_engine.models.act import TextBatch
from hrm_engine.models.core import RecurrentCore
from tests.models.tiny import IGNORE, packed_rows, tiny_core
from tests.parity.reference_model import Row, Shape, logits_by_segment


def unequal_batches() -> list[TextBatch]:
    """12, 1 and 0 labels."""
    first = packed_rows([[9], [2, 7], [9]])
    second, third = packed_rows([[9]], seed=1), packed_rows([[9]], seed=2)
    labels = first.labels.clone()
    labels[2] = IGNORE
    labels[1, 0] = labels[1, 5] = labels[0, 0] = IGNORE
    only = torch.full_like(second.labels, IGNORE)
    only[0, 4] = second.labels[0, 4]
    batches = [replace(first, labels=labels), replace(second, labels=only)]
    return [*batches, replace(third, labels=torch.full_like(third.labels, IGNORE))]


def reference_logits(core: RecurrentCore, batch: TextBatch, row: int) -> list[torch.Tensor]:
    """Logits (S, V) of one row after each of three segments, from the re-implementation."""
    config = core.config
    shape = Shape(config.arch, 2, 1, 1, config.h_cycles, config.l_cycles, config.grad_calls, config.embedding_scale)
    assert batch.documents is not None
    tokens = Row(batch.inputs[row].tolist(), batch.positions[row].tolist(), batch.documents[row].tolist())
    return logits_by_segment(core.state_dict(), shape, tokens, 3)


@pytest.mark.parametrize("arch", ["hrm", "hrm-text", "transformer"])
def test_means_over_tokens_by_hand(arch: str) -> None:
    core = tiny_core(arch)
    batches = unequal_batches()
    # some labels are what the model says, at the last depth or the first, so that accuracies are neither 0 nor 1
    first, _, last = reference_logits(core, batches[0], 0)
    batches[0].labels[0, 2:5] = last[2:5].argmax(-1)
    batches[0].labels[0, 5:7] = first[5:7].argmax(-1)
    losses: list[list[float]] = [[], [], []]
    right: list[list[bool]] = [[], [], []]
    for batch in batches:
        for row, labels in enumerate(batch.labels.tolist()):
            for depth, logits in enumerate(reference_logits(core, batch, row)):
                for place, label in enumerate(labels):
                    if label != IGNORE:
                        losses[depth].append(float(torch.logsumexp(logits[place], 0) - logits[place, label]))
                        right[depth].append(int(logits[place].argmax()) == label)
    found = evaluate(core, batches, num_segments=3)
    assert found.num_tokens == len(losses[0]) == 13
    for depth in range(3):
        assert found.loss_by_segment[depth] == pytest.approx(math.fsum(losses[depth]) / 13, abs=1e-10)
        assert found.token_accuracy_by_segment[depth] == pytest.approx(sum(right[depth]) / 13, abs=1e-12)
        assert 0 < found.token_accuracy_by_segment[depth] < 1
    assert found.loss == found.loss_by_segment[2]
    assert found.token_accuracy == found.token_accuracy_by_segment[2]
    assert found.perplexity == pytest.approx(math.exp(found.loss))


def test_batching_does_not_matter() -> None:
    core = tiny_core("hrm-text")
    first = unequal_batches()[0]
    parts = [
        TextBatch(first.inputs[r], first.labels[r], first.positions[r], first.documents[r])
        for r in (slice(0, 1), slice(1, 3))
    ]
    whole, split = evaluate(core, [first], num_segments=2), evaluate(core, parts, num_segments=2)
    assert split.loss_by_segment == pytest.approx(whole.loss_by_segment, abs=1e-12)
    assert split.token_accuracy_by_segment == whole.token_accuracy_by_segment
    assert split.num_tokens == whole.num_tokens


def test_evaluation_leaves_no_gradient() -> None:
    core = tiny_core("hrm")
    evaluate(core, unequal_batches(), num_segments=2)
    assert all(parameter.grad is None for parameter in core.parameters())


@pytest.mark.parametrize("batches", [[], unequal_batches()[2:]], ids=["no batch", "no label"])
def test_nothing_to_predict_is_an_error(batches: list[TextBatch]) -> None:
    with pytest.raises(DataError, match="--eval-file"):
        evaluate(tiny_core(), batches, num_segments=1)


def test_a_hopeless_loss_has_an_infinite_perplexity() -> None:
    assert Evaluation([800.0], [0.0], 1).perplexity == math.inf
    assert Evaluation([0.0], [1.0], 1).perplexity == 1
