"""Drawing the next token: every rule against its definition."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import RepetitionPenaltyLogitsProcessor

from hrm_engine.config import build_config
from hrm_engine.config.writing import SamplingConfig
from hrm_engine.errors import BundleError, ConfigError
from hrm_engine.inference.text.sampling import draw, penalised, probabilities, row_generator

LOGITS = torch.tensor([[2.0, -1.0, 0.5, 1.5, 0.0, -3.0], [0.0, 0.1, 0.2, 0.3, 0.4, 0.5]])


def generators(number: int, seed: int = 0) -> list[torch.Generator]:
    """The same one for every row: what is drawn goes on from row to row."""
    return [torch.Generator().manual_seed(seed)] * number


def shares(logits: list[float], sampling: SamplingConfig) -> list[float]:
    """Probabilities by definition: temperature, then the top_k largest, then the fewest tokens that reach top_p."""
    weights = [math.exp((logit - max(logits)) / sampling.temperature) for logit in logits]
    if 0 < sampling.top_k < len(logits):
        least = sorted(weights, reverse=True)[sampling.top_k - 1]
        weights = [weight if weight >= least else 0.0 for weight in weights]
    total = sum(weights)
    weights = [weight / total for weight in weights]
    kept = [0.0] * len(weights)
    reached = 0.0
    for index in sorted(range(len(weights)), key=lambda i: -weights[i]):
        if reached >= sampling.top_p:
            break
        kept[index] = weights[index]
        reached += weights[index]
    return [weight / sum(kept) for weight in kept]


@pytest.mark.parametrize(
    "sampling",
    [
        SamplingConfig(temperature=1.0),
        SamplingConfig(temperature=0.5),
        SamplingConfig(temperature=3.0),
        SamplingConfig(temperature=1.0, top_k=1),
        SamplingConfig(temperature=1.0, top_k=3),
        SamplingConfig(temperature=1.0, top_k=600),
        SamplingConfig(temperature=1.0, top_p=0.7),
        SamplingConfig(temperature=1.0, top_p=0.01),
        SamplingConfig(temperature=2.0, top_p=0.95),
        SamplingConfig(temperature=1.5, top_k=4, top_p=0.8),
    ],
    ids=str,
)
def test_probabilities_are_the_defined_ones(sampling: SamplingConfig) -> None:
    found = probabilities(LOGITS, sampling)
    for row, logits in zip(found.tolist(), LOGITS.tolist(), strict=True):
        wanted = shares(logits, sampling)
        assert [share == 0 for share in row] == [share == 0 for share in wanted]
        assert [share / sum(row) for share in row] == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize(
    "sampling", [SamplingConfig(temperature=1.0), SamplingConfig(temperature=1.5, top_k=4, top_p=0.8)], ids=str
)
def test_frequencies_are_the_probabilities(sampling: SamplingConfig) -> None:
    number = 4000
    drawn = draw(LOGITS[:1].expand(number, -1), sampling, generators(number))
    frequencies = drawn.bincount(minlength=LOGITS.shape[-1]) / number
    for probability, frequency in zip(shares(LOGITS[0].tolist(), sampling), frequencies.tolist(), strict=True):
        deviation = math.sqrt(probability * (1 - probability) / number)
        assert frequency == pytest.approx(probability, abs=5 * deviation + 1e-9)


@settings(max_examples=60, deadline=None)
@given(
    logits=st.lists(st.integers(-40, 40).map(lambda n: n / 8), min_size=2, max_size=12, unique=True),
    top_k=st.integers(0, 14),
    top_p=st.sampled_from([0.05, 0.3, 0.5, 0.77, 0.9, 0.99, 1.0]),
    temperature=st.sampled_from([0.1, 0.7, 1.0, 5.0]),
)
def test_nothing_outside_top_k_and_top_p_is_drawn(
    logits: list[float], top_k: int, top_p: float, temperature: float
) -> None:
    sampling = SamplingConfig(temperature=temperature, top_k=top_k, top_p=top_p)
    allowed = {index for index, share in enumerate(shares(logits, sampling)) if share > 0}
    drawn = draw(torch.tensor([logits]).expand(60, -1), sampling, generators(60))
    assert set(drawn.tolist()) <= allowed


def test_temperature_0_takes_the_most_likely() -> None:
    for sampling in (SamplingConfig(temperature=0.0), SamplingConfig(temperature=0.0, top_k=2, top_p=0.1, seed=9)):
        assert draw(LOGITS, sampling, generators(2, 3)).tolist() == [0, 5]
    assert draw(LOGITS.bfloat16(), SamplingConfig(temperature=0.0), generators(2)).tolist() == [0, 5]


def test_the_first_token_is_always_allowed() -> None:
    sure = torch.tensor([[50.0, 0.0, 0.0]])
    assert set(draw(sure.expand(50, -1), SamplingConfig(temperature=1.0, top_p=1e-9), generators(50)).tolist()) == {0}


def test_the_same_seed_draws_the_same() -> None:
    logits = LOGITS[1:].expand(40, -1)
    first = draw(logits, SamplingConfig(), generators(40, 5))
    assert torch.equal(first, draw(logits, SamplingConfig(), generators(40, 5)))
    assert not torch.equal(first, draw(logits, SamplingConfig(), generators(40, 6)))


def test_a_row_draws_what_it_draws_alone() -> None:
    logits = torch.randn(5, 30, generator=torch.Generator().manual_seed(0))
    sampling = SamplingConfig(temperature=1.3, top_k=20, top_p=0.95, seed=8)
    together, alone = ([row_generator(sampling.seed, row) for row in range(5)] for _ in range(2))
    for _ in range(10):
        drawn = draw(logits, sampling, together)
        assert drawn.tolist() == [int(draw(logits[row : row + 1], sampling, alone[row : row + 1])) for row in range(5)]


def test_rows_have_random_numbers_of_their_own_and_row_0_those_of_the_seed() -> None:
    firsts = {(seed, row): float(torch.rand(1, generator=row_generator(seed, row), dtype=torch.float64))
              for seed in (0, 1, 2**63 - 1) for row in (0, 1, 2, 10**9)}  # fmt: skip
    assert len(set(firsts.values())) == len(firsts)
    again = torch.rand(1, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    assert firsts[1, 0] == float(again)


@settings(max_examples=50, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    penalty=st.sampled_from([0.5, 1.0, 1.2, 1.7, 30.0]),
    tokens=st.lists(st.lists(st.integers(0, 19), min_size=4, max_size=4), min_size=2, max_size=2),
)
def test_the_repetition_penalty_is_that_of_transformers(seed: int, penalty: float, tokens: list[list[int]]) -> None:
    logits = 3 * torch.randn(2, 20, generator=torch.Generator().manual_seed(seed))
    logits[0, 0] = 0.0
    ids = torch.tensor(tokens)
    theirs = RepetitionPenaltyLogitsProcessor(penalty)(ids, logits.clone())
    context = torch.zeros(2, 20, dtype=torch.bool).scatter(1, ids, True)
    assert torch.equal(penalised(logits, context, penalty), theirs)
    greedy = SamplingConfig(temperature=0.0, repetition_penalty=penalty)
    assert torch.equal(draw(logits, greedy, generators(2), context), theirs.argmax(-1))


def test_the_repetition_penalty_comes_before_the_temperature() -> None:
    context = torch.tensor([[True, False, False, True, False, False]])
    sampling = SamplingConfig(temperature=0.5, top_k=2, repetition_penalty=10.0)
    # 2.0 and 1.5 are divided: 0.5 and 0.2 are the two largest that are left
    drawn = draw(LOGITS[:1].expand(80, -1), sampling, generators(80), context.expand(80, -1))
    assert set(drawn.tolist()) == {0, 2}


@pytest.mark.parametrize("temperature", [1e-3, 1e-30, 1e-45, 1e-320])
def test_a_tiny_temperature_is_nearly_greedy(temperature: float) -> None:
    assert draw(LOGITS, SamplingConfig(temperature=temperature), generators(2)).tolist() == [0, 5]


NAN, INF = math.nan, math.inf


@pytest.mark.parametrize("temperature", [0.0, 0.8])
@pytest.mark.parametrize("row", [[0.0, NAN, 1.0], [0.0, INF, 1.0], [-INF, -INF, -INF]], ids=str)
def test_a_row_that_no_sound_network_gives_is_refused(row: list[float], temperature: float) -> None:
    logits = torch.tensor([[0.0, 1.0, 2.0], row])
    with pytest.raises(BundleError, match=r"brains/torn: what it gives .* NaN or infinite"):
        draw(logits, SamplingConfig(temperature=temperature), generators(2), where="brains/torn")


@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_tokens_that_cannot_be_are_never_drawn(temperature: float) -> None:
    logits = torch.tensor([[-INF, 1.0, -INF]]).expand(20, -1)
    assert set(draw(logits, SamplingConfig(temperature=temperature), generators(20)).tolist()) == {1}


def test_a_tiny_repetition_penalty_overflows_to_the_largest_number() -> None:
    context = torch.tensor([[False, False, False, True, False, False]])
    sampling = SamplingConfig(temperature=1.0, repetition_penalty=1e-40)
    assert draw(LOGITS[:1], sampling, generators(1), context).tolist() == [3]


@pytest.mark.parametrize(
    ("wrong", "flag"),
    [
        ({"temperature": -0.1}, "--temperature"),
        ({"temperature": 101.0}, "--temperature"),
        ({"temperature": math.nan}, "--temperature"),
        ({"temperature": math.inf}, "--temperature"),
        ({"top_k": -1}, "--top-k"),
        ({"top_p": 0.0}, "--top-p"),
        ({"top_p": 1.01}, "--top-p"),
        ({"top_p": -0.5}, "--top-p"),
        ({"top_p": math.nan}, "--top-p"),
        ({"repetition_penalty": 0.0}, "--repetition-penalty"),
        ({"repetition_penalty": -1.0}, "--repetition-penalty"),
        ({"repetition_penalty": 101.0}, "--repetition-penalty"),
        ({"repetition_penalty": math.nan}, "--repetition-penalty"),
        ({"seed": 2**70}, "--seed"),
        ({"seed": -(2**70)}, "--seed"),
    ],
    ids=str,
)
def test_values_out_of_range_are_refused(wrong: dict[str, float], flag: str) -> None:
    with pytest.raises(ConfigError, match=flag):
        build_config(SamplingConfig, overrides=wrong)
