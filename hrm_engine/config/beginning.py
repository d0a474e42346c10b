"""What stands beside the settings of a training: how its session begins, and how it is estimated before."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field, model_validator

from hrm_engine.config.base import Config, Needs


class Beginning(Config):
    """Whether a run begins, goes on or is forked."""

    resume: bool = Field(False, description="Go on with the run of that name, from its newest valid checkpoint.")
    fresh: bool = Field(False, description="Begin anew: an existing run of that name moves to .archive.")
    from_checkpoint: Path | None = Field(
        None,
        description="Fork: begin with the state of this checkpoint, or of the newest one of a run (folder or name), "
        "and with its settings; flags go on top.",
    )
    allow_changed_data: Annotated[bool, Needs("resume")] = Field(
        False, description="Accept a changed dataset in --resume."
    )
    extend_schedule: bool = Field(False, description="With --resume: spread the learning rate over the new --steps.")

    @model_validator(mode="after")
    def _is_one_way(self) -> Beginning:
        if self.resume and self.from_checkpoint is not None:
            raise ValueError(
                "--resume and --from-checkpoint exclude each other: the first goes on with a run, the second begins "
                "another one"
            )
        if self.extend_schedule and not self.resume:
            raise ValueError("--extend-schedule is for --resume: a run that begins has the schedule of its --steps")
        return self

    @property
    def has_saved_settings(self) -> bool:
        """Whether the settings of a run or checkpoint hold where nothing else is given."""
        return self.resume or self.from_checkpoint is not None


ANEW = Beginning()


class TrialConfig(Config):
    """What is estimated, and how."""

    measure: bool = Field(True, description="Time a few steps of the real training; off: only what can be calculated.")
    limit_s: Annotated[float, Needs("measure")] = Field(
        20.0, gt=0, description="Seconds in which these steps begin; data, an evaluation and a save come to it."
    )
