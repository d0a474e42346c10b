"""Weights & Biases beside the run's own files: the same rows, offline unless it is told otherwise."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal, Protocol

from hrm_engine.errors import MissingExtraError

EVENTS = ("train", "eval", "system")


class Tracker(Protocol):
    """Takes rows of metrics; never stops a training."""

    def write(self, event: str, step: int, fields: dict[str, Any]) -> None:
        """Take one row."""
        ...

    def close(self) -> None:
        """Bring everything to the disk or the server."""
        ...


class WandbTracker:
    """A run of Weights & Biases in ``wandb/`` of the run folder; ``wandb sync`` uploads an offline one later."""

    def __init__(
        self, mode: Literal["offline", "online"], run_dir: Path, run_id: str, *, project: str, config: dict[str, Any]
    ) -> None:
        try:
            import wandb
        except ImportError as error:
            raise MissingExtraError("--wandb needs the package wandb: pip install 'hrm-lab[wandb]'") from error
        self._run = wandb.init(
            project=project,
            name=run_dir.name,
            id=re.sub(r"[^A-Za-z0-9_-]", "-", run_id),
            resume="allow",
            mode=mode,
            dir=run_dir,
            config=config,
            settings=wandb.Settings(silent=True, console="off", x_disable_stats=True),
        )

    def write(self, event: str, step: int, fields: dict[str, Any]) -> None:
        """Log the numbers of a row under ``event/name``; lists become one number each."""
        if event not in EVENTS:
            return
        numbers: dict[str, float] = {}
        for name, value in fields.items():
            parts = (
                {f"/{place}": part for place, part in enumerate(value, 1)} if isinstance(value, list) else {"": value}
            )
            for place, part in parts.items():
                if isinstance(part, int | float) and not isinstance(part, bool):
                    numbers[f"{event}/{name}{place}"] = part
        self._run.log(numbers, step=step)

    def close(self) -> None:
        """Finish the run's files."""
        self._run.finish()
