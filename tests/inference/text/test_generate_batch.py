"""Many prompts at once: each text is what it would be alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from hrm_engine.bundles.bundle import Bundle
from hrm_engine.data.text.tokenizer import MIN_VOCAB_SIZE, Tokenizer, train_tokenizer
from hrm_engine.errors import ConfigError
from hrm_engine.inference import Generation, generate, generate_batch
from tests.inference.text.bundles import random_bundle, reciting_bundle

PROMPTS = ["", "abba", "a", "the same length as no other", "b", "abba", "a much longer prompt, which"]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer(["ab"], vocab_size=MIN_VOCAB_SIZE)


def without_time(found: list[Generation]) -> list[Generation]:
    return [replace(one, seconds=0.0) for one in found]


def in_batches(bundle: Bundle, batch_size: int, prompts: list[str] = PROMPTS, **how: Any) -> list[Generation]:
    return without_time(list(generate_batch(bundle, prompts, batch_size=batch_size, max_new_tokens=8, **how)))


@pytest.mark.parametrize(
    "how",
    [
        {"temperature": 0.0},
        {"temperature": 1.0, "seed": 5},
        {"temperature": 1.2, "top_k": 40, "top_p": 0.9, "repetition_penalty": 1.3, "seed": 2, "segments": 3},
        {"temperature": 0.9, "halt_threshold": 0.55, "seed": 1, "segments": 4},
        {"temperature": 0.0, "halt_threshold": 0.55, "stop": ["\ufffd"], "repetition_penalty": 1.5},
    ],
    ids=str,
)
@pytest.mark.parametrize("changes", [{}, {"window_size": 5}, {"arch": "hrm", "pos_encodings": "learned"}], ids=str)
def test_a_text_does_not_depend_on_the_rest_of_its_batch(
    tokenizer: Tokenizer, changes: dict[str, Any], how: dict[str, Any]
) -> None:
    bundle = random_bundle(tokenizer, **changes)
    alone = in_batches(bundle, 1, **how)
    assert in_batches(bundle, 5, **how) == alone
    assert [one.prompt for one in alone] == PROMPTS
    first = generate(bundle, PROMPTS[0], max_new_tokens=8, **how)
    assert without_time([first]) == alone[:1]
    if how["temperature"] > 0:
        # the same prompt in another row draws something else
        assert alone[1].text != alone[5].text


def test_rows_end_by_themselves(tokenizer: Tokenizer) -> None:
    bundle = reciting_bundle(tokenizer, "abcdefgh", max_seq_len=7)
    prompts = ["a", "abcde", "h", "ab", ""]
    found = list(generate_batch(bundle, prompts, batch_size=5, temperature=0, max_new_tokens=5, stop="h"))
    assert [(one.text, one.finish_reason) for one in found] == [
        ("bcdef", "length"),
        ("f", "context"),
        ("", "stop"),
        ("cdef", "context"),
        ("abcde", "length"),
    ]
    assert [one.num_tokens for one in found] == [5, 1, 0, 4, 5]


def test_a_row_that_has_filled_the_context_waits_for_the_others(tokenizer: Tokenizer) -> None:
    """Learned positions end with the context; a finished row must not ask for one behind it."""
    bundle = random_bundle(tokenizer, "hrm", pos_encodings="learned", max_seq_len=20)
    prompts = ["a" * 18, "b", "a" * 10]
    alone = [in_batches(bundle, 1, prompts, temperature=0.7), in_batches(bundle, 3, prompts, temperature=0.7)]
    assert alone[0] == alone[1]
    assert alone[0][0].finish_reason in {"context", "stop"}


def test_texts_come_batch_by_batch(tokenizer: Tokenizer) -> None:
    bundle = reciting_bundle(tokenizer, "abcd")
    texts = generate_batch(bundle, ["a", "ab", "abc"], batch_size=2, temperature=0)
    assert [next(texts).text, next(texts).text] == ["bcd", "cd"]
    with torch.no_grad():
        bundle.model.lm_head.weight.zero_()
        bundle.model.lm_head.weight[tokenizer.eos_id] = 1  # from now on the model says "end"
    assert [one.text for one in texts] in ([""], ["d"])


def test_nothing_to_do(tokenizer: Tokenizer) -> None:
    assert list(generate_batch(random_bundle(tokenizer), [])) == []


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ({"batch_size": 0}, "--batch-size 0"),
        ({"batch_size": 4097}, "--batch-size 4097"),
        ({"halt_threshold": 2.0}, "--halt-threshold"),
        ({"max_new_tokens": 0}, "--max-new-tokens"),
        ({"top_p": 0.0}, "--top-p"),
    ],
)
def test_values_out_of_range_are_refused_at_once(tokenizer: Tokenizer, how: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        generate_batch(random_bundle(tokenizer), ["a"], **how)


def test_a_prompt_that_is_too_long_is_named_before_anything_is_written(tokenizer: Tokenizer) -> None:
    bundle = random_bundle(tokenizer, max_seq_len=6)
    with pytest.raises(ConfigError, match=r"^prompt 1: the prompt has 6 tokens and the model's context 6; shorten it"):
        generate_batch(bundle, ["a", "aaaaa"])
    with pytest.raises(ConfigError, match=r"^x\.txt, line 9: the prompt has"):
        generate_batch(bundle, ["a", "aaaaa"], where=["x.txt, line 2", "x.txt, line 9"])


def test_texts_from_a_prompt_on_are_those_of_the_whole(tokenizer: Tokenizer) -> None:
    bundle = random_bundle(tokenizer)
    for batch_size in (1, 3, 10):
        whole = in_batches(bundle, batch_size, temperature=1.0, seed=3)
        for first in range(len(PROMPTS) + 1):
            assert in_batches(bundle, batch_size, first=first, temperature=1.0, seed=3) == whole[first:]
