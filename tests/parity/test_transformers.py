"""``hrm-text`` with one segment is the `hrm_text` model of transformers: same names, same logits."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from transformers.models.hrm_text.configuration_hrm_text import HrmTextConfig

from hrm_engine.models.act import accumulate_gradients, run_segments
from tests.models.tiny import gradients, whole_rows
from tests.parity.theirs import CONFIGURATIONS, both, compute_in_float64


@pytest.mark.parametrize("sizes", CONFIGURATIONS, ids=str)
@torch.no_grad()
def test_logits_in_fp32(sizes: dict[str, float]) -> None:
    ours, theirs = both(sizes, torch.float32)
    batch = whole_rows(2, 12, seed=3)
    carry = next(run_segments(ours, batch, num_segments=1))
    torch.testing.assert_close(
        ours.logits(carry.z_h), theirs(input_ids=batch.inputs, use_cache=False).logits, rtol=0, atol=1e-5
    )


@pytest.mark.parametrize("sizes", CONFIGURATIONS, ids=str)
@torch.no_grad()
def test_logits_in_float64(sizes: dict[str, float]) -> None:
    ours, theirs = both(sizes, torch.float64)
    compute_in_float64(theirs)
    batch = whole_rows(2, 12, seed=4)
    carry = next(run_segments(ours, batch, num_segments=1))
    torch.testing.assert_close(
        ours.logits(carry.z_h), theirs(input_ids=batch.inputs, use_cache=False).logits, rtol=0, atol=1e-10
    )


@pytest.mark.parametrize("sizes", CONFIGURATIONS, ids=str)
def test_gradients_of_all_calls(sizes: dict[str, float]) -> None:
    ours, theirs = both(sizes, torch.float64)
    compute_in_float64(theirs)
    batch = whole_rows(2, 8, seed=5)
    count = batch.labels.numel()
    accumulate_gradients(ours, batch, num_segments=1, normaliser=count, backward=lambda loss: loss.backward())
    logits = theirs(input_ids=batch.inputs, use_cache=False).logits
    nn.functional.cross_entropy(logits.flatten(0, 1), batch.labels.flatten()).backward()
    found = gradients(ours)
    for name, parameter in theirs.named_parameters():
        if parameter.requires_grad:
            torch.testing.assert_close(found[name.removeprefix("model.")], parameter.grad, rtol=1e-9, atol=1e-11)


def test_the_librarys_default_eps_and_initial_state_are_ours() -> None:
    ours, theirs = both(CONFIGURATIONS[0], torch.float32)
    assert HrmTextConfig().rms_norm_eps == ours.config.norm_eps
    assert torch.equal(theirs.model.z_L_init, ours.z_L_init)
    assert not ours.z_L_init.any()
