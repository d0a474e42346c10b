"""The forms that a step of generation takes on a CPU, without gradient and with one new position."""

from __future__ import annotations

import pytest
import torch

from hrm_engine.kernels.attention import attention, attention_reference, plan_attention
from hrm_engine.kernels.norm import rms_norm
from hrm_engine.kernels.rope import rope_tables, rotate

CPU = torch.device("cpu")


def drawn(*shape: int) -> torch.Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(len(shape)))


@pytest.mark.parametrize("has_padding", [False, True])
@torch.no_grad()
def test_attention_to_the_keys_of_a_cache(has_padding: bool) -> None:
    """The keys are a part of a longer cache; the first ones of a row may be padding."""
    cache = drawn(2, 3, 20, 2, 8)
    q, k, v = drawn(3, 1, 2, 8), cache[0, :, :9], cache[1, :, :9]
    documents = (torch.arange(9)[None] >= torch.tensor([0, 4, 8])[:, None]).long() if has_padding else None
    plan = plan_attention(num_queries=1, num_keys=9, device=CPU, dtype=q.dtype, documents=documents)
    found = attention(q, k, v, plan)
    torch.testing.assert_close(found, attention_reference(q, k, v, plan), rtol=0, atol=1e-12)
    if has_padding:
        torch.testing.assert_close(found[2], v[2, 8:], rtol=0, atol=1e-12)


@pytest.mark.parametrize("count", [1, 3])
def test_rotation(count: int) -> None:
    x = drawn(2, count, 2, 8)
    tables = rope_tables(torch.arange(5, 5 + count)[None], 8, 10000.0, x.dtype)
    with_gradient = rotate(x, *tables)
    with torch.no_grad():
        torch.testing.assert_close(rotate(x, *tables), with_gradient, rtol=0, atol=1e-14)


def test_the_norm_has_the_same_bits() -> None:
    x = drawn(2, 1, 16)
    with_gradient = rms_norm(x, 1e-5)
    with torch.no_grad():
        assert torch.equal(rms_norm(x, 1e-5), with_gradient)
