"""Steps of a training that cost the same: a depth curriculum or a warm-up of the gradient begins with cheaper ones."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from itertools import groupby

from hrm_engine.training.costs import Costs


@dataclass(frozen=True)
class Stage:
    """``num_steps`` steps after the first ``first``, with what makes them cost what they cost (None: as all do)."""

    first: int
    num_steps: int
    setting: Hashable = None


def stages(costs: Costs) -> list[Stage]:
    """The stages of a run, in order; one where all steps are alike."""
    steps, setting_of = costs.config.run.steps, costs.setting_of()
    if setting_of is None:
        return [Stage(0, steps)]
    plan: list[Stage] = []
    for setting, group in groupby(range(steps), setting_of):
        numbers = list(group)
        plan.append(Stage(numbers[0], len(numbers), setting))
    return plan
