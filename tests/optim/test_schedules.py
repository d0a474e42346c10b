"""The learning rate as a function of the step."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hrm_engine.optim.schedules import grad_calls, learning_rate

curves = st.fixed_dictionaries(
    {
        "peak": st.floats(1e-6, 1.0),
        "total_steps": st.integers(1, 5000),
        "warmup_steps": st.integers(0, 6000),
        "schedule": st.sampled_from(["constant", "linear", "cosine"]),
        "min_ratio": st.floats(0, 1),
    }
)
many = settings(max_examples=150, deadline=None)


@many
@given(curves, st.integers(1, 20000))
def test_never_above_the_peak_never_below_the_end(curve: dict, step: int) -> None:
    found = learning_rate(step, **curve)
    assert 0 <= found <= curve["peak"] * (1 + 1e-12)
    if step > curve["warmup_steps"]:
        assert found >= curve["peak"] * curve["min_ratio"] * (1 - 1e-12)


@many
@given(curves, st.data())
def test_the_warm_up_is_a_line_from_one_share_to_the_peak(curve: dict, data: st.DataObject) -> None:
    warmup = curve["warmup_steps"]
    if warmup == 0:
        assert learning_rate(1, **curve | {"total_steps": 10**9}) == pytest.approx(curve["peak"])
        return
    step = data.draw(st.integers(1, warmup))
    assert learning_rate(step, **curve) == pytest.approx(curve["peak"] * step / warmup)
    assert learning_rate(warmup, **curve) == pytest.approx(curve["peak"])


@many
@given(curves, st.integers(1, 6000))
def test_it_never_rises_after_the_warm_up(curve: dict, after: int) -> None:
    step = curve["warmup_steps"] + after
    assert learning_rate(step + 1, **curve) <= learning_rate(step, **curve)


@many
@given(curves, st.integers(0, 10000))
def test_the_last_step_has_the_end_and_every_later_one_keeps_it(curve: dict, later: int) -> None:
    curve = curve | {"warmup_steps": curve["warmup_steps"] % curve["total_steps"]}
    end = curve["peak"] * (1.0 if curve["schedule"] == "constant" else curve["min_ratio"])
    assert learning_rate(curve["total_steps"] + later, **curve) == pytest.approx(end, abs=1e-15)


def test_values_by_hand() -> None:
    curve = {"peak": 1.0, "total_steps": 110, "warmup_steps": 10, "min_ratio": 0.2}
    assert learning_rate(60, schedule="linear", **curve) == pytest.approx(0.2 + 0.8 * 0.5)
    assert learning_rate(60, schedule="cosine", **curve) == pytest.approx(0.2 + 0.8 * 0.5)
    assert learning_rate(35, schedule="linear", **curve) == pytest.approx(0.2 + 0.8 * 0.75)
    assert learning_rate(35, schedule="cosine", **curve) == pytest.approx(0.2 + 0.8 * 0.5 * (1 + math.cos(math.pi / 4)))
    assert learning_rate(5000, schedule="constant", **curve) == 1.0


@many
@given(st.integers(3, 40), st.integers(1, 3000), st.floats(0.001, 1), st.data())
def test_gradient_calls_grow_from_two_by_one(full: int, total: int, share: float, data: st.DataObject) -> None:
    def calls(step: int) -> int:
        return grad_calls(step, full=full, total_steps=total, warmup_share=share)

    step = data.draw(st.integers(1, total))
    assert 2 <= calls(step) <= calls(step + 1) <= full
    assert calls(int(share * total) + 1) == full
    if share * total >= 1:
        assert calls(1) == 2
    if share * total >= full - 2:  # at least a step for each number
        # a warm-up that ends between two steps has a shorter last part, which no step may fall into
        assert calls(step + 1) - calls(step) <= (1 if step + 1 <= share * total else 2)


def test_gradient_calls_by_hand() -> None:
    found = [grad_calls(step, full=5, total_steps=30, warmup_share=0.2) for step in range(1, 9)]
    assert found == [2, 2, 3, 3, 4, 4, 5, 5]
