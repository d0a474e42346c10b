"""Steps of a training that cost the same: a run under a depth curriculum begins with cheaper ones."""

from __future__ import annotations

import math
from dataclasses import dataclass

from hrm_engine.config import PuzzleTrainConfig, TrainConfig


@dataclass(frozen=True)
class Stage:
    """``num_steps`` steps after the first ``first``. ``cycles`` as in a depth curriculum, None: all."""

    first: int
    num_steps: int
    cycles: tuple[int, int] | None = None


def stages(config: TrainConfig) -> list[Stage]:
    """The stages of a run, in order; one where all steps are alike."""
    steps = config.run.steps
    curriculum = config.curriculum if isinstance(config, PuzzleTrainConfig) else {}
    starts = [(math.ceil(share * steps), cycles) for share, cycles in sorted(curriculum.items())] or [(0, None)]
    ends = [start for start, _ in starts[1:]] + [steps]
    found = [Stage(start, end - start, cycles) for (start, cycles), end in zip(starts, ends, strict=True)]
    return [stage for stage in found if stage.num_steps > 0]
