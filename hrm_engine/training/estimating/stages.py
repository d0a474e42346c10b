"""Steps of a training that cost the same: a depth curriculum or a warm-up of the gradient begins with cheaper ones."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby

from hrm_engine.config import CoreConfig, PuzzleTrainConfig, TextTrainConfig
from hrm_engine.optim.schedules import grad_calls


@dataclass(frozen=True)
class Stage:
    """``num_steps`` steps after the first ``first``; ``cycles`` and ``grad_calls``: None where they are as ever."""

    first: int
    num_steps: int
    cycles: tuple[int, int] | None = None
    grad_calls: int | None = None


def stages(config: TextTrainConfig | PuzzleTrainConfig, core: CoreConfig) -> list[Stage]:
    """The stages of a run, in order; one where all steps are alike."""
    steps, warmup = config.run.steps, config.network.grad_calls_warmup
    curriculum = sorted(config.curriculum.items()) if isinstance(config, PuzzleTrainConfig) else []

    def depth(step: int) -> tuple[tuple[int, int] | None, int | None]:
        reached = [cycles for share, cycles in curriculum if step / steps >= share]
        cycles = reached[-1] if reached else None
        if not warmup:
            return cycles, None
        return cycles, grad_calls(step + 1, full=core.grad_calls, total_steps=steps, warmup_share=warmup)

    if not curriculum and not warmup:
        return [Stage(0, steps)]
    found: list[Stage] = []
    for (cycles, calls), group in groupby(range(steps), depth):
        numbers = list(group)
        found.append(Stage(numbers[0], len(numbers), cycles, calls))
    return found
