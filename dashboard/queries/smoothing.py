"""The course of a noisy curve."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray


def smoothed(frame: pd.DataFrame, half_life_steps: float) -> pd.Series:
    """The course of one curve: at each point the height of a straight line fitted to it and the points before.

    What comes later changes nothing: a loss that explodes does not lift the smoothed one before it. In the fit another
    point counts half as much per ``half_life_steps`` away. Weights follow the distance in optimizer steps, so a curve
    keeps its shape when its rows are written more seldom or a bucket holds more of them; and a line, unlike a mean,
    does not lag behind a falling curve (local linear regression; Hastie, Tibshirani, Friedman: The Elements of
    Statistical Learning, section 6.1.1). After a spike the line would dive below every loss there was, even below
    zero: it stays within what has been seen.

    ``frame`` has the columns ``step`` and ``last``, sorted by step; the result has its index.
    """
    import numpy as np
    import pandas as pd

    values = frame["last"].to_numpy(dtype="float64")
    if half_life_steps <= 0 or not len(values):
        return pd.Series(values, index=frame.index, dtype="float64")
    steps = frame["step"].to_numpy(dtype="float64")
    weight, first, second, total, slope = _decayed_sums(steps, values, half_life_steps).T
    spread = weight * second - first**2
    flat = spread <= 1e-9 * weight * second
    line = (second * total - first * slope) / np.where(flat, 1.0, spread)
    course = np.where(flat, total / weight, line)
    course = np.clip(course, np.fmin.accumulate(values), np.fmax.accumulate(values))
    return pd.Series(course, index=frame.index, dtype="float64")


def _decayed_sums(steps: NDArray[np.float64], values: NDArray[np.float64], half_life_steps: float) -> Any:
    """For each point, over the points up to it with weight w and (negative) distance d: sums of w, wd, wd², wy, wdy."""
    import numpy as np

    sums = np.zeros((len(steps), 5))
    weight = first = second = total = slope = 0.0
    before = steps[0]
    for at, (step, value) in enumerate(zip(steps.tolist(), values.tolist(), strict=True)):
        gone = step - before
        kept = 0.5 ** (gone / half_life_steps)
        second = kept * (second - 2 * gone * first + gone * gone * weight)
        first = kept * (first - gone * weight)
        slope = kept * (slope - gone * total)
        weight, total, before = kept * weight + 1.0, kept * total + value, step
        sums[at] = weight, first, second, total, slope
    return sums
