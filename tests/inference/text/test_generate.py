"""Text from a model: the same as computing every step again, in pieces as in one, and its ends."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch

from hrm_engine.bundles.bundle import Bundle
from hrm_engine.config.writing import SamplingConfig
from hrm_engine.data.text.tokenizer import MIN_VOCAB_SIZE, Tokenizer, train_tokenizer
from hrm_engine.errors import ConfigError
from hrm_engine.inference import generate, stream
from hrm_engine.inference.text.sampling import draw
from hrm_engine.models.act import TextBatch, run_segments
from tests.inference.text.bundles import random_bundle, reciting_bundle

every_architecture = pytest.mark.parametrize("arch", ["hrm", "hrm-text", "transformer"])


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    """Bytes alone: a random model then writes bytes that often form no character."""
    return train_tokenizer(["ab"], vocab_size=MIN_VOCAB_SIZE)


@torch.no_grad()
def written_again(bundle: Bundle, prompt: str, number: int, sampling: SamplingConfig, segments: int) -> list[int]:
    """The same text without a cache: everything is computed anew for each token."""
    tokenizer = bundle.tokenizer
    ids = [tokenizer.bos_id, *tokenizer.encode(prompt).tolist()]
    generator = torch.Generator().manual_seed(sampling.seed)
    written: list[int] = []
    while len(written) < number:
        tokens = torch.tensor([ids + written])
        batch = TextBatch(tokens, tokens, torch.arange(tokens.shape[1])[None], None)
        *_, carry = run_segments(bundle.model, batch, num_segments=segments)
        token = int(draw(bundle.model.logits(carry.z_h[:, -1]), sampling, [generator]))
        if token == tokenizer.eos_id:
            break
        written.append(token)
    return written


SAMPLINGS = [
    SamplingConfig(temperature=0.0),
    SamplingConfig(temperature=1.0, seed=4),
    SamplingConfig(temperature=2.0, top_k=20, top_p=0.9, seed=7),
]


@every_architecture
@pytest.mark.parametrize("segments", [None, 1, 3])
@pytest.mark.parametrize("sampling", SAMPLINGS, ids=str)
def test_equals_computing_everything_again(
    tokenizer: Tokenizer, arch: str, segments: int | None, sampling: SamplingConfig
) -> None:
    bundle = random_bundle(tokenizer, arch)
    options = {
        "temperature": sampling.temperature,
        "top_k": sampling.top_k,
        "top_p": sampling.top_p,
        "seed": sampling.seed,
    }
    found = generate(bundle, "abba", max_new_tokens=15, segments=segments, **options)
    ids = written_again(bundle, "abba", 15, sampling, segments or bundle.config.halt_max_steps)
    assert found.num_tokens == len(ids)
    assert found.text == tokenizer.decode(ids)
    assert found.prompt == "abba"
    assert found.finish_reason == ("length" if len(ids) == 15 else "stop")
    assert found.seconds > 0
    assert "".join(found.tokens) == found.text
    assert found.depths == [segments or bundle.config.halt_max_steps] * len(ids)


def test_depth_is_what_the_model_was_trained_for(tokenizer: Tokenizer) -> None:
    bundle = random_bundle(tokenizer, "hrm", halt_max_steps=3)
    texts = {n: generate(bundle, "a", max_new_tokens=20, segments=n, temperature=0).text for n in (None, 1, 3)}
    assert texts[None] == texts[3]
    assert texts[None] != texts[1]


def test_a_seed_is_a_text(tokenizer: Tokenizer) -> None:
    bundle = random_bundle(tokenizer)
    state = torch.get_rng_state()
    first = generate(bundle, "a", max_new_tokens=20, seed=1).text
    torch.rand(3)
    assert generate(bundle, "a", max_new_tokens=20, seed=1).text == first
    assert generate(bundle, "a", max_new_tokens=20, seed=2).text != first
    torch.set_rng_state(state)
    generate(bundle, "a", max_new_tokens=5)
    assert torch.equal(torch.get_rng_state(), state)  # nor does it disturb the caller's


@pytest.mark.parametrize("seed", range(6))
def test_pieces_join_to_the_text(tokenizer: Tokenizer, seed: int) -> None:
    bundle = random_bundle(tokenizer)
    pieces = list(stream(bundle, "ab", max_new_tokens=30, temperature=1.5, seed=seed))
    whole = generate(bundle, "ab", max_new_tokens=30, temperature=1.5, seed=seed)
    assert "".join(pieces) == whole.text
    assert all(pieces)
    assert len(pieces) > 3


@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_characters_of_several_bytes_come_whole(tokenizer: Tokenizer, temperature: float) -> None:
    bundle = reciting_bundle(tokenizer, "xé漢😀!")
    pieces = list(stream(bundle, "x", temperature=temperature))
    assert pieces == ["é", "漢", "😀", "!"]
    whole = generate(bundle, "x", temperature=temperature)
    assert whole.text == "é漢😀!"
    assert whole.num_tokens == 10
    assert whole.finish_reason == "stop"


def test_a_text_may_end_inside_a_character(tokenizer: Tokenizer) -> None:
    bundle = reciting_bundle(tokenizer, "xa漢")
    pieces = list(stream(bundle, "x", max_new_tokens=3, temperature=0))
    assert pieces == ["a", "\ufffd"]
    assert generate(bundle, "x", max_new_tokens=3, temperature=0).text == "a\ufffd"


def test_the_prompt_is_continued_not_repeated(tokenizer: Tokenizer) -> None:
    bundle = reciting_bundle(tokenizer, "abcdef")
    assert generate(bundle, "", temperature=0).text == "abcdef"
    assert generate(bundle, "abc", temperature=0).text == "def"
    assert generate(bundle, "abcdef", temperature=0).text == ""


@pytest.mark.parametrize(
    ("max_new_tokens", "max_seq_len", "reason", "text"),
    [
        (5, 40, "stop", "bcd"),
        (4, 40, "stop", "bcd"),
        (3, 40, "length", "bcd"),
        (1, 40, "length", "b"),
        (9, 4, "context", "bc"),
        (2, 4, "length", "bc"),
        (9, 3, "context", "b"),
    ],
)
def test_ends(tokenizer: Tokenizer, max_new_tokens: int, max_seq_len: int, reason: str, text: str) -> None:
    bundle = reciting_bundle(tokenizer, "abcd", max_seq_len=max_seq_len)
    found = generate(bundle, "a", max_new_tokens=max_new_tokens, temperature=0)
    assert (found.finish_reason, found.text, found.num_tokens) == (reason, text, len(text))


def test_a_prompt_that_fills_the_context_is_refused(tokenizer: Tokenizer) -> None:
    bundle = random_bundle(tokenizer, max_seq_len=6)
    assert generate(bundle, "aaaa", temperature=0).finish_reason in {"context", "stop"}
    for prompt in ("a" * 5, "a" * 100):
        with pytest.raises(ConfigError, match=rf"\b{len(prompt) + 1} tokens.*\b6\b.*shorten"):
            generate(bundle, prompt)


@pytest.mark.parametrize(
    ("wrong", "flag"),
    [
        ({"max_new_tokens": 0}, "--max-new-tokens"),
        ({"max_new_tokens": -3}, "--max-new-tokens"),
        ({"segments": 0}, "--segments"),
        ({"segments": 65}, "--segments"),
        ({"halt_threshold": -0.01}, "--halt-threshold"),
        ({"halt_threshold": 1.01}, "--halt-threshold"),
        ({"halt_threshold": math.nan}, "--halt-threshold"),
        ({"repetition_penalty": 0.0}, "--repetition-penalty"),
        ({"stop": ""}, "--stop"),
        ({"stop": ["a", ""]}, "--stop"),
        ({"temperature": -1.0}, "--temperature"),
        ({"top_k": -1}, "--top-k"),
        ({"top_p": 0.0}, "--top-p"),
    ],
    ids=str,
)
@pytest.mark.parametrize("function", [generate, stream])
def test_values_out_of_range_are_refused_at_once(tokenizer: Tokenizer, function, wrong: dict, flag: str) -> None:
    """Also by ``stream``: at the call, not when the first piece is asked for."""
    with pytest.raises(ConfigError, match=flag):
        function(random_bundle(tokenizer), "a", **wrong)


def test_pieces_come_as_they_are_made(tokenizer: Tokenizer) -> None:
    bundle = reciting_bundle(tokenizer, "abcd")
    pieces: Iterator[str] = stream(bundle, "a", temperature=0)
    assert next(pieces) == "b"
    with torch.no_grad():
        bundle.model.lm_head.weight.zero_()
        bundle.model.lm_head.weight[tokenizer.eos_id] = 1  # from now on the model says "end"
    assert list(pieces) in ([], ["c"])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@every_architecture
def test_weights_of_any_type_write(tokenizer: Tokenizer, arch: str, dtype: torch.dtype) -> None:
    bundle = random_bundle(tokenizer, arch, dtype=dtype, window_size=4)
    found = generate(bundle, "ab", max_new_tokens=10, temperature=0)
    assert 0 < found.num_tokens <= 10


@pytest.mark.parametrize("temperature", [0.0, 0.9])
def test_tokens_stop_where_the_halting_head_says_so(tokenizer: Tokenizer, temperature: float) -> None:
    bundle = random_bundle(tokenizer, halt_max_steps=4)
    how = {"max_new_tokens": 30, "temperature": temperature}
    full, deepest, shallow, some = (
        generate(bundle, "abba", halt_threshold=threshold, **how) for threshold in (None, 0.0, 1.0, 0.55)
    )
    assert (deepest.text, deepest.depths) == (full.text, full.depths)
    assert set(full.depths) == {4}
    assert shallow.depths == [1] * shallow.num_tokens
    assert shallow.text == generate(bundle, "abba", segments=1, **how).text
    assert len(set(some.depths)) > 1
    assert some.mean_depth == sum(some.depths) / some.num_tokens
    assert 1 < some.mean_depth < 4


def test_a_model_of_one_segment_has_no_threshold(tokenizer: Tokenizer) -> None:
    bundle = random_bundle(tokenizer, halt_max_steps=1)
    assert generate(bundle, "a", max_new_tokens=2).mean_depth in (1.0, None)
    with pytest.raises(ConfigError, match=r"--halt-threshold 0\.5: .*no halting head.*leave it out"):
        generate(bundle, "a", halt_threshold=0.5)


def test_a_text_without_tokens_has_no_mean_depth(tokenizer: Tokenizer) -> None:
    found = generate(reciting_bundle(tokenizer, "ab"), "ab", temperature=0)
    assert (found.finish_reason, found.tokens, found.depths, found.mean_depth) == ("stop", [], [], None)


@pytest.mark.parametrize(
    ("stop", "text", "num_tokens", "reason"),
    [
        ("d", "bc", 3, "stop_string"),
        ("cd", "bc"[:1], 3, "stop_string"),
        (["x", "ef"], "bcd", 5, "stop_string"),
        ("bcdef", "", 5, "stop_string"),
        ("f", "bcde", 5, "stop_string"),
        ("fg", "bcdef", 5, "stop"),
        ("a", "bcdef", 5, "stop"),
        (["cde", "d"], "bc", 3, "stop_string"),
        (["d", "bcd"], "", 3, "stop_string"),
    ],
)
def test_a_text_ends_before_a_stop_string(
    tokenizer: Tokenizer, stop: str | list[str], text: str, num_tokens: int, reason: str
) -> None:
    bundle = reciting_bundle(tokenizer, "abcdef")
    found = generate(bundle, "a", temperature=0, stop=stop)
    assert (found.text, found.num_tokens, found.finish_reason) == (text, num_tokens, reason)
    assert "".join(found.tokens) == text
    assert len(found.tokens) == len(found.depths) == num_tokens
    pieces = list(stream(bundle, "a", temperature=0, stop=stop))
    assert "".join(pieces) == text


def test_what_may_be_a_stop_string_is_held_back(tokenizer: Tokenizer) -> None:
    bundle = reciting_bundle(tokenizer, "abcdef")
    assert list(stream(bundle, "a", temperature=0, stop="cdx")) == ["b", "cde", "f"]
    writing = stream(bundle, "a", temperature=0, stop="cdx")
    seen = []
    for piece in writing:
        seen.append(piece)
        assert "".join(writing.tokens) == "".join(seen)
        assert len(writing.tokens) == len(writing.depths)
    assert writing.result() == replace(generate(bundle, "a", temperature=0), seconds=writing.result().seconds)


def test_a_stop_string_of_many_bytes_within_tokens(tokenizer: Tokenizer) -> None:
    bundle = reciting_bundle(tokenizer, "xé漢😀!")
    assert generate(bundle, "x", temperature=0, stop="漢😀").text == "é"
    assert generate(bundle, "x", temperature=0, max_new_tokens=4, stop="\ufffd").finish_reason == "stop_string"


def test_a_result_needs_a_finished_text(tokenizer: Tokenizer) -> None:
    writing = stream(reciting_bundle(tokenizer, "abc"), "a", temperature=0)
    assert next(writing) == "b"
    with pytest.raises(RuntimeError, match="not finished"):
        writing.result()


def test_the_repetition_penalty_knows_prompt_and_text(tokenizer: Tokenizer) -> None:
    bundle = random_bundle(tokenizer)
    plain = generate(bundle, "abba", max_new_tokens=30, temperature=0)
    found = generate(bundle, "abba", max_new_tokens=30, temperature=0, repetition_penalty=100.0)
    assert len(set(found.tokens)) > len(set(plain.tokens))
    off = generate(bundle, "abba", max_new_tokens=30, temperature=0, repetition_penalty=1.0)
    assert off.text == plain.text
