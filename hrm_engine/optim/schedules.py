"""Schedules are pure functions of the step, so that an interrupted run continues on the same curve."""

from __future__ import annotations

import math
from typing import Literal

Schedule = Literal["constant", "linear", "cosine"]

FIRST_GRAD_CALLS = 2
"""Module calls with gradient at the beginning of a warm-up: the one-step gradient of arXiv 2506.21734."""


def learning_rate(
    step: int, *, peak: float, total_steps: int, warmup_steps: int, schedule: Schedule, min_ratio: float
) -> float:
    """Learning rate of the update that makes ``step`` (1 is the first).

    Linear from ``peak / warmup_steps`` to ``peak`` over the warm-up, then from ``peak`` to ``peak * min_ratio``, which
    the last of ``total_steps`` has and every later step keeps.
    """
    if step <= warmup_steps:
        return peak * step / warmup_steps
    if schedule == "constant":
        return peak
    share = min(1.0, (step - warmup_steps) / max(1, total_steps - warmup_steps))
    left = 1 - share if schedule == "linear" else 0.5 * (1 + math.cos(math.pi * share))
    return peak * (min_ratio + (1 - min_ratio) * left)


def grad_calls(step: int, *, full: int, total_steps: int, warmup_share: float) -> int:
    """Module calls of a segment that carry gradient in the update that makes ``step`` (1 is the first).

    From 2 on one more after each equal part of the warm-up, which takes ``warmup_share`` of ``total_steps``; ``full``
    after it.
    """
    length = warmup_share * total_steps
    if step > length:
        return full
    return FIRST_GRAD_CALLS + int((full - FIRST_GRAD_CALLS) * (step - 1) / length)
