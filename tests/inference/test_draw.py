"""Drawing the next token: every rule against its definition."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hrm_engine.errors import ConfigError
from hrm_engine.inference.generate import Sampling, draw

LOGITS = torch.tensor([[2.0, -1.0, 0.5, 1.5, 0.0, -3.0], [0.0, 0.1, 0.2, 0.3, 0.4, 0.5]])


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def shares(logits: list[float], sampling: Sampling) -> list[float]:
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


def counted(logits: torch.Tensor, sampling: Sampling, number: int = 20000) -> list[float]:
    drawn = draw(logits.expand(number, -1), sampling, generator())
    return (drawn.bincount(minlength=logits.shape[-1]) / number).tolist()


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(temperature=1.0),
        Sampling(temperature=0.5),
        Sampling(temperature=3.0),
        Sampling(temperature=1.0, top_k=1),
        Sampling(temperature=1.0, top_k=3),
        Sampling(temperature=1.0, top_k=600),
        Sampling(temperature=1.0, top_p=0.7),
        Sampling(temperature=1.0, top_p=0.01),
        Sampling(temperature=2.0, top_p=0.95),
        Sampling(temperature=1.5, top_k=4, top_p=0.8),
    ],
    ids=str,
)
@pytest.mark.parametrize("row", [0, 1])
def test_frequencies_are_the_probabilities(sampling: Sampling, row: int) -> None:
    wanted = shares(LOGITS[row].tolist(), sampling)
    found = counted(LOGITS[row : row + 1], sampling)
    for probability, frequency in zip(wanted, found, strict=True):
        if probability == 0:
            assert frequency == 0
        else:
            deviation = math.sqrt(probability * (1 - probability) / 20000)
            assert frequency == pytest.approx(probability, abs=5 * deviation + 1e-6)


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
    sampling = Sampling(temperature, top_k, top_p)
    allowed = {index for index, share in enumerate(shares(logits, sampling)) if share > 0}
    drawn = draw(torch.tensor([logits]).expand(200, -1), sampling, generator())
    assert set(drawn.tolist()) <= allowed


def test_temperature_0_takes_the_most_likely() -> None:
    for sampling in (Sampling(temperature=0.0), Sampling(temperature=0.0, top_k=2, top_p=0.1, seed=9)):
        assert draw(LOGITS, sampling, generator(3)).tolist() == [0, 5]
    assert draw(LOGITS.bfloat16(), Sampling(temperature=0.0), generator()).tolist() == [0, 5]


def test_the_first_token_is_always_allowed() -> None:
    sure = torch.tensor([[50.0, 0.0, 0.0]])
    assert set(draw(sure.expand(50, -1), Sampling(1.0, 0, 1e-9), generator()).tolist()) == {0}


def test_the_same_seed_draws_the_same() -> None:
    logits = LOGITS[1:].expand(40, -1)
    first = draw(logits, Sampling(), generator(5))
    assert torch.equal(first, draw(logits, Sampling(), generator(5)))
    assert not torch.equal(first, draw(logits, Sampling(), generator(6)))


@pytest.mark.parametrize("temperature", [1e-3, 1e-30, 1e-45, 1e-320])
def test_a_tiny_temperature_is_nearly_greedy(temperature: float) -> None:
    assert draw(LOGITS, Sampling(temperature=temperature), generator()).tolist() == [0, 5]


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
        ({"seed": 2**70}, "--seed"),
        ({"seed": -(2**70)}, "--seed"),
    ],
    ids=str,
)
def test_values_out_of_range_are_refused(wrong: dict[str, float], flag: str) -> None:
    with pytest.raises(ConfigError, match=flag):
        Sampling(**wrong)
