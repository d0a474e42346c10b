"""Everything that can influence the rest of a run, as numbers beside the named tensors.

Weights and optimizer state are tensors (``MasterWeights``, ``Updater``); this is the rest. Randomness is a function of
the seed and of these counters, so nothing else has to be kept: what is not here cannot influence the run.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import Annotated, Any

from pydantic import Field, TypeAdapter

SPIKE_WINDOW = 50
Count = Annotated[int, Field(ge=0, lt=1 << 62)]


@dataclass
class TrainState:
    """Counters of a run; ``rows`` are fresh rows, ``tokens`` fresh label tokens."""

    step: Count = 0
    rows: Count = 0
    tokens: Count = 0
    token_segments: Count = 0
    micro_batch_size: Count = 0
    schedule_steps: Count = 0
    """Length of the learning-rate schedule; a run that is extended keeps the one it began with."""
    nonfinite_in_a_row: Count = 0
    recent_losses: list[float] = field(default_factory=list)
    best_step: int | None = None
    best_score: list[float] | None = None
    """Of the best evaluation; lower is better, later entries decide between equals."""
    evals_since_best: int = 0
    first_score: list[float] | None = None
    """Of the first evaluation that has one."""
    is_diverged: bool = False
    """Whether the last evaluation is worse than the first one."""
    first_eval: dict[str, Any] | None = None
    last_eval: dict[str, Any] | None = None
    full_eval: dict[str, Any] | None = None
    """Evaluation of the finished bundle on all held-out data."""
    last_sample: str | None = None
    trained_s: float = 0.0
    created: str = ""
    """When the run began, ISO 8601."""
    parent: dict[str, Any] | None = None
    """Path and hash of what the first weights came from; of a fork's checkpoint also its step."""
    datasets: list[dict[str, Any]] = field(default_factory=list)
    """Data trained on, the present one last: its path, fingerprint, documents, and the rows consumed by its end."""
    of_task: dict[str, Any] = field(default_factory=dict)
    """What the task keeps beside its tensors, as plain values by name; in ``state.json`` it stands among the rest."""

    def as_json(self) -> dict[str, Any]:
        """Plain values, for ``state.json``."""
        content = asdict(self)
        return {**content.pop("of_task"), **content}

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> TrainState:
        """Read back; missing fields keep their default, and what is not ours is the task's.

        Raises what pydantic raises where a value is of another type.
        """
        if content.get("best_loss") is not None:  # its name in version 1
            content = {"best_score": [content["best_loss"]], **content}
        names = {f.name for f in fields(cls)}
        own = {name: value for name, value in content.items() if name in names}
        TypeAdapter(cls).validate_python(own)
        return cls(**own, of_task={name: value for name, value in content.items() if name not in names})
