"""PrefixLM: the mask of `hrm_text` with ``token_type_ids``, in whole rows and with a cache."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from hrm_engine.inference.text.decoding import Decoder
from hrm_engine.models.core import RecurrentCore
from tests.models.tiny import random_tokens
from tests.parity.theirs import CONFIGURATIONS, both, compute_in_float64

WIDER_HEADS: dict[str, Any] = {"head_width": 24}


def logits(core: RecurrentCore, tokens: Tensor, prefix: Tensor | None) -> Tensor:
    """(B, S, V) after one segment, without a cache."""
    positions = torch.arange(tokens.shape[1])[None]
    x = core.embed(tokens, positions)
    return core.logits(core.segment(core.initial_carry(x), x, core.context(positions, prefix=prefix)).z_h)


@pytest.mark.parametrize("changes", [{}, WIDER_HEADS], ids=str)
@pytest.mark.parametrize("sizes", CONFIGURATIONS, ids=str)
@torch.no_grad()
def test_prefixes_of_several_lengths(sizes: dict[str, float], changes: dict[str, Any]) -> None:
    ours, theirs = both(sizes, torch.float64, prefix_lm=True, **changes)
    compute_in_float64(theirs)
    tokens = random_tokens(5, 12, seed=3)
    prefix = torch.arange(12)[None] < torch.tensor([0, 1, 5, 11, 12])[:, None]
    wanted = theirs(input_ids=tokens, token_type_ids=prefix.long(), use_cache=False).logits
    found = logits(ours, tokens, prefix)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-10)
    # a mask that did nothing would pass too
    causal = logits(ours, tokens, None)
    torch.testing.assert_close(causal[:2], wanted[:2], rtol=0, atol=1e-10)
    assert (causal[2:] - wanted[2:]).abs().amax((1, 2)).min() > 1e-3


@torch.no_grad()
def test_a_block_that_does_not_begin_the_row() -> None:
    ours, theirs = both(CONFIGURATIONS[1], torch.float64, prefix_lm=True)
    compute_in_float64(theirs)
    tokens, prefix = random_tokens(1, 12, seed=5), torch.zeros(1, 12, dtype=torch.bool)
    prefix[:, 3:8] = True
    wanted = theirs(input_ids=tokens, token_type_ids=prefix.long(), use_cache=False).logits
    torch.testing.assert_close(logits(ours, tokens, prefix), wanted, rtol=0, atol=1e-10)


@pytest.mark.parametrize("is_prefix", [True, False])
@torch.no_grad()
def test_a_prompt_and_single_tokens_with_a_cache(is_prefix: bool) -> None:
    """A decoder takes the prompt as the prefix, as theirs does with a prompt of type 1."""
    ours, theirs = both(CONFIGURATIONS[1], torch.float64, prefix_lm=is_prefix)
    compute_in_float64(theirs)
    tokens = random_tokens(3, 14, seed=7)
    decoder = Decoder(ours, num_segments=1, batch=3)
    cache = None
    for start, end in ((0, 9), (9, 10), (10, 11), (11, 14)):
        new = tokens[:, start:end]
        types = {"token_type_ids": torch.ones_like(new)} if is_prefix and start == 0 else {}
        out = theirs(input_ids=new, past_key_values=cache, use_cache=True, **types)
        cache = out.past_key_values
        torch.testing.assert_close(decoder.feed(new), out.logits[:, -1], rtol=0, atol=1e-10)


@torch.no_grad()
def test_cached_and_uncached_are_equal() -> None:
    ours, _ = both(CONFIGURATIONS[1], torch.float64, prefix_lm=True)
    tokens = random_tokens(2, 12, seed=9)
    prefix = (torch.arange(12) < 6)[None].expand(2, -1)
    whole = logits(ours, tokens, prefix)
    decoder = Decoder(ours, num_segments=1, batch=2)
    found = [decoder.feed(tokens[:, :6]), *(decoder.feed(tokens[:, i : i + 1]) for i in range(6, 12))]
    torch.testing.assert_close(torch.stack(found, 1), whole[:, 5:], rtol=0, atol=1e-11)


def test_what_follows_the_prefix_leaks_nowhere() -> None:
    ours, _ = both(CONFIGURATIONS[1], torch.float64, prefix_lm=True)
    tokens = random_tokens(1, 12, seed=11)
    prefix = (torch.arange(12) < 5)[None]
    with torch.no_grad():
        before = logits(ours, tokens, prefix)
        for place in range(5, 12):
            changed = tokens.clone()
            changed[0, place] += 1
            assert torch.equal(logits(ours, changed, prefix)[:, :place], before[:, :place])
        changed = tokens.clone()
        changed[0, 4] += 1
        assert not torch.equal(logits(ours, changed, prefix)[:, :1], before[:, :1])
