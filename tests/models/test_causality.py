"""Nothing leaks: not from later tokens, not between documents, at no depth, in no form of attention."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from hrm_engine.kernels import attention as kernels
from hrm_engine.models.act import TextBatch, continue_logits, run_segments
from hrm_engine.models.core import RecurrentCore
from tests.models.tiny import VOCAB, packed_rows, tiny_core, whole_rows

Form = Callable[[Tensor, Tensor, Tensor, kernels.AttentionPlan], Tensor]


def sdpa(q: Tensor, k: Tensor, v: Tensor, plan: kernels.AttentionPlan) -> Tensor:
    """What devices other than the CPU run."""
    return BY_BLOCKS(q, k, v, replace(plan, blocks=None))


BY_BLOCKS = kernels.attention
FORMS: dict[str, Form] = {"blocks": BY_BLOCKS, "sdpa": sdpa, "reference": kernels.attention_reference}

every_form = pytest.mark.parametrize("form", FORMS)
every_architecture = pytest.mark.parametrize("arch", ["hrm", "hrm-text", "transformer"])
every_encoding = pytest.mark.parametrize("positions", ["rope", "learned", "none"])
every_window = pytest.mark.parametrize("window", [None, 1, 3, 30])


def use(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # blocks of 5 queries: rows of a few tokens then have several, the last one not full
    monkeypatch.setattr(kernels, "QUERY_BLOCK", 5)
    monkeypatch.setattr(kernels, "attention", FORMS[form])


@torch.no_grad()
def read_out(core: RecurrentCore, batch: TextBatch) -> Tensor:
    """All that is read from the states: (3 segments, B, S, V + 1) logits of the next token and of continuing."""
    carries = run_segments(core, batch, num_segments=3)
    return torch.stack([torch.cat((core.logits(c.z_h), continue_logits(core, c.z_h)[..., None]), -1) for c in carries])


def changed(batch: TextBatch, where: Tensor) -> TextBatch:
    return replace(batch, inputs=torch.where(where, (batch.inputs + 7) % VOCAB, batch.inputs))


@every_form
@every_architecture
@every_encoding
@every_window
def test_later_tokens_change_nothing(
    form: str, arch: str, positions: str, window: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(form, monkeypatch)
    core = tiny_core(arch, pos_encodings=positions, window_size=window)
    batch = whole_rows(2, 12)
    before = read_out(core, batch)
    for place in (1, 5, 10, 11):
        only = torch.zeros_like(batch.inputs, dtype=torch.bool)
        only[:, place] = True
        after = read_out(core, changed(batch, only))
        torch.testing.assert_close(after[:, :, :place], before[:, :, :place], rtol=0, atol=1e-12)
        assert (after[:, :, place] - before[:, :, place]).abs().amax(-1).min() > 1e-6  # it does reach its own place
        if window != 1 and place < 11:
            assert (after[:, :, place + 1] - before[:, :, place + 1]).abs().amax(-1).min() > 1e-9


@every_form
@every_architecture
@every_encoding
@every_window
def test_documents_in_a_row_do_not_meet(
    form: str, arch: str, positions: str, window: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(form, monkeypatch)
    core = tiny_core(arch, pos_encodings=positions, window_size=window)
    batch = packed_rows([[4, 6, 1], [1, 2, 8]], padding=2)
    assert batch.documents is not None
    before = read_out(core, batch)
    assert before.isfinite().all()  # padding included
    for document in (0, 1, 2, -1):
        inside = batch.documents == document
        after = read_out(core, changed(batch, inside))
        torch.testing.assert_close(after[:, ~inside], before[:, ~inside], rtol=0, atol=1e-12)
        assert (after[:, inside] - before[:, inside]).abs().amax(-1).min() > 1e-6


@every_architecture
@every_encoding
@every_window
def test_a_document_is_read_alike_alone_and_packed(arch: str, positions: str, window: int | None) -> None:
    core = tiny_core(arch, pos_encodings=positions, window_size=window)
    packed = packed_rows([[3, 6, 2]])
    alone = TextBatch(packed.inputs[:, 3:9], packed.labels[:, 3:9], torch.arange(6)[None], None)
    torch.testing.assert_close(read_out(core, packed)[:, :, 3:9], read_out(core, alone), rtol=0, atol=1e-12)


@every_architecture
def test_rows_do_not_meet(arch: str) -> None:
    core = tiny_core(arch)
    batch = packed_rows([[4, 6], [3, 7]])
    second = torch.tensor([[False], [True]]).expand_as(batch.inputs)
    before, after = read_out(core, batch), read_out(core, changed(batch, second))
    torch.testing.assert_close(after[:, 0], before[:, 0], rtol=0, atol=1e-12)
    assert not torch.allclose(after[:, 1], before[:, 1])


@every_form
def test_no_gradient_comes_from_earlier_logits_to_later_tokens(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    use(form, monkeypatch)
    core = tiny_core("hrm", grad_calls=6)
    batch = whole_rows(1, 10)
    batch = replace(batch, inputs=torch.arange(10)[None])  # every token its own row of the embedding
    carry = next(run_segments(core, batch, num_segments=1))
    core.logits(carry.z_h)[:, 6].square().sum().backward()
    reached = core.embed_tokens.weight.grad.abs().amax(-1)
    assert (reached[:7] > 0).all()
    assert (reached[7:] == 0).all()
