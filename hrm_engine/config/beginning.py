"""How a session of training begins, beside its settings."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hrm_engine.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Beginning:
    """A run begins anew, goes on, or is a fork. Raises ConfigError where that contradicts itself."""

    resume: bool = False
    """Go on with the run that the settings name, exactly."""
    fresh: bool = False
    """Move a run of that name away."""
    from_checkpoint: Path | None = None
    """Begin with the state of this checkpoint, or of the newest one of a run: a fork."""
    allow_changed_data: bool = False
    """With ``resume``: accept a dataset that has changed."""
    extend_schedule: bool = False
    """With ``resume`` and more steps: recompute the learning rate over all of them."""

    def __post_init__(self) -> None:
        if self.resume and self.from_checkpoint is not None:
            raise ConfigError(
                "--resume and --from-checkpoint exclude each other: the first goes on with a run, the second begins "
                "another one"
            )
        if self.extend_schedule and not self.resume:
            raise ConfigError("--extend-schedule is for --resume: a run that begins has the schedule of its --steps")

    @property
    def has_saved_settings(self) -> bool:
        """Whether the settings of a run or checkpoint hold where nothing else is given."""
        return self.resume or self.from_checkpoint is not None


ANEW = Beginning()
