"""Every form of attention equals explicit masking, with gradients, windows, documents and cached keys."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from hrm_engine.kernels.attention import (
    QUERY_BLOCK,
    AttentionPlan,
    attention,
    attention_reference,
    document_starts,
    plan_attention,
)

CPU = torch.device("cpu")


def sdpa(q: Tensor, k: Tensor, v: Tensor, plan: AttentionPlan) -> Tensor:
    return attention(q, k, v, replace(plan, blocks=None))


FORMS = {"blocks": attention, "sdpa": sdpa, "reference": attention_reference}
every_form = pytest.mark.parametrize("form", FORMS)


def heads(rows: int, queries: int, keys: int, *, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(queries)
    shapes = [(rows, queries, 2, 8), (rows, keys, 2, 8), (rows, keys, 2, 8)]
    return tuple(
        torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype).requires_grad_() for shape in shapes
    )


def by_hand(q: Tensor, k: Tensor, v: Tensor, seen: Tensor) -> Tensor:
    """Scores, then a mask (B, S, T) that the test made token by token, then softmax."""
    scores = torch.matmul(q.permute(0, 2, 1, 3), k.permute(0, 2, 3, 1)) / math.sqrt(q.shape[-1])
    scores = scores + torch.where(seen, 0.0, -math.inf).to(q.dtype)[:, None]
    share = scores.exp() / scores.exp().sum(-1, keepdim=True)
    return torch.matmul(share, v.permute(0, 2, 1, 3)).permute(0, 2, 1, 3)


def mask(
    queries: int, keys: int, window: int | None, documents: Tensor | None = None, prefix: Tensor | None = None
) -> Tensor:
    given = documents if prefix is None else prefix
    rows = 1 if given is None else given.shape[0]
    seen = torch.zeros(rows, queries, keys, dtype=torch.bool)
    for row in range(rows):
        for query in range(queries):
            place = keys - queries + query
            for key in range(keys):
                near = window is None or place - window < key
                same = documents is None or documents[row, key] == documents[row, place]
                both = prefix is not None and prefix[row, key] and prefix[row, place]
                seen[row, query, key] = bool((key <= place or both) and near and same)
    return seen


def assert_same(form: str, q: Tensor, k: Tensor, v: Tensor, plan: AttentionPlan, seen: Tensor) -> None:
    wanted = by_hand(q, k, v, seen)
    found = FORMS[form](q, k, v, plan)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-12)
    weight = torch.randn(found.shape, generator=torch.Generator().manual_seed(9), dtype=found.dtype)
    ours = torch.autograd.grad((found * weight).sum(), (q, k, v))
    theirs = torch.autograd.grad((wanted * weight).sum(), (q, k, v))
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


@every_form
@pytest.mark.parametrize("window", [None, 1, 2, 7, QUERY_BLOCK - 1, QUERY_BLOCK, QUERY_BLOCK + 1, 300, 400])
def test_a_window_is_a_mask_over_several_blocks(form: str, window: int | None) -> None:
    """300 is more than two blocks of queries, and no multiple of one."""
    size = 300
    assert size > QUERY_BLOCK
    assert size % QUERY_BLOCK
    q, k, v = heads(1, size, size)
    plan = plan_attention(num_queries=size, num_keys=size, device=CPU, dtype=q.dtype, window=window)
    place = torch.arange(size)
    distance = place[:, None] - place[None]
    seen = (distance >= 0) & (distance < (window or size))
    assert_same(form, q, k, v, plan, seen[None])


@every_form
@pytest.mark.parametrize("size", [1, 2, 9, QUERY_BLOCK, QUERY_BLOCK + 1])
@pytest.mark.parametrize("window", [None, 1, 5])
def test_any_length(form: str, size: int, window: int | None) -> None:
    q, k, v = heads(2, size, size)
    plan = plan_attention(num_queries=size, num_keys=size, device=CPU, dtype=q.dtype, window=window)
    assert_same(form, q, k, v, plan, mask(size, size, window))


@every_form
@pytest.mark.parametrize("queries", [1, 3, 6])
@pytest.mark.parametrize("window", [None, 1, 4, 8])
def test_queries_after_cached_keys(form: str, queries: int, window: int | None) -> None:
    q, k, v = heads(2, queries, 9)
    plan = plan_attention(num_queries=queries, num_keys=9, device=CPU, dtype=q.dtype, window=window)
    assert_same(form, q, k, v, plan, mask(queries, 9, window))


@every_form
@pytest.mark.parametrize("queries", [1, 4])
def test_documents_with_cached_keys(form: str, queries: int) -> None:
    documents = torch.tensor([[0, 0, 0, 0, 1, 1, 1, 2], [0, 0, 0, 0, 0, 0, 1, 1]])
    q, k, v = heads(2, queries, 8)
    plan = plan_attention(num_queries=queries, num_keys=8, device=CPU, dtype=q.dtype, documents=documents)
    assert_same(form, q, k, v, plan, mask(queries, 8, None, documents))


@every_form
@pytest.mark.parametrize("window", [None, 1, 3])
def test_documents_and_padding(form: str, window: int | None) -> None:
    documents = torch.tensor([[0, 0, 0, 1, 1, 2, 2, 2, -1, -1], [0, 1, 1, 1, 1, 1, 1, 1, 1, 1]], dtype=torch.int32)
    q, k, v = heads(2, 10, 10)
    plan = plan_attention(num_queries=10, num_keys=10, device=CPU, dtype=q.dtype, documents=documents, window=window)
    assert_same(form, q, k, v, plan, mask(10, 10, window, documents))
    assert FORMS[form](q, k, v, plan).isfinite().all()


@every_form
def test_documents_across_blocks(form: str) -> None:
    size = 2 * QUERY_BLOCK + 10
    documents = torch.zeros(1, size, dtype=torch.int32)
    documents[:, QUERY_BLOCK - 3 :] = 1
    documents[:, 2 * QUERY_BLOCK :] = 2
    q, k, v = heads(1, size, size)
    plan = plan_attention(num_queries=size, num_keys=size, device=CPU, dtype=q.dtype, documents=documents, window=50)
    place = torch.arange(size)
    distance = place[:, None] - place[None]
    seen = (distance >= 0) & (distance < 50) & (documents[0][:, None] == documents[0][None])
    assert_same(form, q, k, v, plan, seen[None])


def first(keys: int, *lengths: int) -> Tensor:
    return torch.arange(keys)[None] < torch.tensor(lengths)[:, None]


@every_form
@pytest.mark.parametrize("lengths", [(0, 0), (1, 9), (4, 0), (3, 7)], ids=str)
@pytest.mark.parametrize("queries", [9, 4, 1])
def test_a_prefix_sees_all_of_itself(form: str, lengths: tuple[int, int], queries: int) -> None:
    prefix = first(9, *lengths)
    q, k, v = heads(2, queries, 9)
    plan = plan_attention(num_queries=queries, num_keys=9, device=CPU, dtype=q.dtype, prefix=prefix)
    assert_same(form, q, k, v, plan, mask(queries, 9, None, prefix=prefix))


@every_form
def test_a_prefix_across_blocks_and_after_padding(form: str) -> None:
    """The first block sees keys of the second; the positions before the prefix are padding of their own document."""
    size, end = 2 * QUERY_BLOCK + 10, QUERY_BLOCK + 40
    place = torch.arange(size)
    prefix = ((place >= 5) & (place < end))[None]
    documents = (place >= 5).int()[None]
    q, k, v = heads(1, size, size)
    plan = plan_attention(
        num_queries=size, num_keys=size, device=CPU, dtype=q.dtype, documents=documents, prefix=prefix
    )
    seen = (place[:, None] >= place[None]) | (prefix[0][:, None] & prefix[0][None])
    assert_same(form, q, k, v, plan, (seen & (documents[0][:, None] == documents[0][None]))[None])
    assert plan.blocks is not None
    assert [block.end_key for block in plan.blocks] == [end, 2 * QUERY_BLOCK, size]


@every_form
def test_attention_to_all_positions(form: str) -> None:
    """Puzzles are not causal: with nothing to hide every key is seen, across blocks as well."""
    size = QUERY_BLOCK + 20
    q, k, v = heads(1, size, size)
    plan = plan_attention(num_queries=size, num_keys=size, device=CPU, dtype=q.dtype, causal=False)
    assert plan.visible is None
    assert_same(form, q, k, v, plan, torch.ones(1, size, size, dtype=torch.bool))


@pytest.mark.parametrize(
    ("changes", "is_causal"),
    [
        ({}, True),
        ({"window": 10}, True),
        ({"window": 9}, False),
        ({"documents": torch.zeros(1, 10, dtype=torch.int32)}, False),
        ({"num_queries": 4}, False),
        ({"causal": False}, False),
        ({"prefix": torch.zeros(1, 10, dtype=torch.bool)}, False),
    ],
    ids=str,
)
def test_the_mask_is_spared_only_where_it_is_the_triangle(changes: dict[str, object], is_causal: bool) -> None:
    arguments = {"num_queries": 10, "num_keys": 10, "device": CPU, "dtype": torch.float32, **changes}
    assert plan_attention(**arguments).is_causal is is_causal


def test_a_window_is_not_computed_beyond_its_reach() -> None:
    """The blocks leave out keys that none of their queries can see."""
    plan = plan_attention(num_queries=300, num_keys=300, device=CPU, dtype=torch.float32, window=20)
    assert plan.blocks is not None
    assert [(b.start, b.stop, b.first_key, b.end_key) for b in plan.blocks] == [
        (0, 128, 0, 128),
        (128, 256, 109, 256),
        (256, 300, 237, 300),
    ]


@every_form
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_narrow_types_stay_near(form: str, dtype: torch.dtype) -> None:
    exact = heads(2, 40, 40)
    plan64 = plan_attention(num_queries=40, num_keys=40, device=CPU, dtype=torch.float64, window=9)
    plan = plan_attention(num_queries=40, num_keys=40, device=CPU, dtype=dtype, window=9)
    found = FORMS[form](*(x.detach().to(dtype) for x in exact), plan)
    assert found.dtype is dtype
    tolerance = 1e-5 if dtype is torch.float32 else 5e-2
    torch.testing.assert_close(found.double(), attention_reference(*exact, plan64), rtol=0, atol=tolerance)


@every_form
@pytest.mark.parametrize("count", [1, 3])
def test_the_first_positions_alone(form: str, count: int) -> None:
    """The Q target reads position 0 only: its queries see all keys and are computed without the others."""
    size = 82
    q, k, v = heads(2, size, size)
    whole = plan_attention(num_queries=size, num_keys=size, device=CPU, dtype=q.dtype, causal=False)
    some = plan_attention(num_queries=count, num_keys=size, device=CPU, dtype=q.dtype, causal=False)
    assert some.visible is None
    found, wanted = FORMS[form](q[:, :count], k, v, some), FORMS[form](q, k, v, whole)[:, :count]
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-12)


def documents_one_by_one(
    q: Tensor, k: Tensor, v: Tensor, starts_q: Tensor, starts_k: Tensor, longest_q: int, longest_k: int, **how: Any
) -> Tensor:
    """What flash attention of variable length computes on CUDA, one document at a time."""
    before, after = how["window_size"]
    assert after == 0
    assert torch.equal(starts_q, starts_k)
    parts = []
    for begin, end in pairwise(starts_q.tolist()):
        size = end - begin
        assert 0 <= size <= longest_q == longest_k
        if size:
            window = None if before < 0 else before + 1
            plan = plan_attention(num_queries=size, num_keys=size, device=q.device, dtype=q.dtype, window=window)
            parts.append(attention_reference(*(x[None, begin:end] for x in (q, k, v)), plan)[0])
    return torch.cat(parts)


@pytest.mark.parametrize("window", [None, 1, 3, 50])
def test_documents_by_their_starts(window: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    documents = torch.tensor([[0, 0, 1, 1, 1, 2, -1, -1], [0, 0, 0, 0, 0, 0, 0, 0], [0, 1, 2, 3, 3, 3, 3, 4]])
    starts = document_starts(documents)
    assert starts.tolist() == [0, 2, 5, 6, 8, 16, 17, 18, 19, 23] + [24] * 7
    size = {"num_queries": 8, "num_keys": 8, "device": torch.device("cpu"), "window": window, "documents": documents}
    masked = plan_attention(**size, dtype=torch.float32, starts=starts)
    assert masked.starts is None, "there is no such kernel for fp32"
    plan = plan_attention(**size, dtype=torch.bfloat16, starts=starts)
    assert plan.visible is None
    monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", documents_one_by_one)
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(3, 8, 2, 4, dtype=torch.float64, generator=generator) for _ in range(3))
    wanted = attention_reference(q, k, v, masked)
    torch.testing.assert_close(attention(q, k, v, plan), wanted, rtol=0, atol=1e-12)
