"""Settings of ``lab solve``, and of the function behind it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from hrm_engine.config.base import Config, FreeText
from hrm_engine.config.writing import BundleConfig, GoalsConfig, Segments

StartsFrom = Literal["symmetries", "noise"]
Choose = Literal["first_to_halt", "majority", "lowest_residual", "q_weighted"]


class PuzzleConfig(Config):
    """The puzzle; without one, the first of the test split of the solver's dataset."""

    puzzle: Annotated[str | None, FreeText()] = Field(
        None, description="A Sudoku of 81, 36 or 16 cells; a blank is . or 0."
    )
    arc: Path | None = Field(None, description="An ARC task file, named after a task that the solver knows.")
    maze: Path | None = Field(None, description="A maze drawn in a text file with # S G.")
    index: int | None = Field(None, description="Row of the test split of the solver's dataset. Default: 0.")

    @model_validator(mode="after")
    def _names_one(self) -> PuzzleConfig:
        flags = [f"--{name}" for name in type(self).model_fields if getattr(self, name) is not None]
        if len(flags) > 1:
            raise ValueError(f"{' and '.join(flags)} each name a puzzle: give one of them")
        return self


class EffortConfig(Config):
    """How long a solver thinks, from how many sides, and which of its answers counts."""

    segments: Segments = None
    starts: int = Field(1, ge=1, le=64, description="Starts of each puzzle; the first looks at the board as it is.")
    starts_from: StartsFrom = Field(
        "symmetries", description="Further starts see the board under symmetries, or begin with random states."
    )
    choose: Choose = Field("first_to_halt", description="Which of several starts answers.")
    halt_confidence: float = Field(0.0, ge=0, le=1, description="Halting probability that a start needs to halt.")
    until_valid: int = Field(0, ge=0, le=1000, description="Most restarts while the rules refuse the answer.")


class PuzzleTestConfig(Config):
    """Which puzzles a solver is measured on, and how."""

    data_path: Path | None = Field(
        None, description="Dataset whose test split it is measured on. Default: the one it was trained on."
    )
    eval_rows: int | None = Field(
        None, ge=1, description="Puzzles at most, always the same ones. Default: the whole test split."
    )
    batch_size: int = Field(256, ge=1, description="Puzzles at a time.")
    effort: EffortConfig = EffortConfig()


class EvaluatePuzzleConfig(BundleConfig):
    """All settings of ``lab eval puzzle``."""

    output_dir: Path | None = Field(
        None,
        description="Folder for a line of each puzzle (rows.jsonl), and for ARC arc_results.json and submission.json.",
    )
    test: PuzzleTestConfig = PuzzleTestConfig()


class SolveConfig(BundleConfig):
    """All settings of ``lab solve``."""

    trace: bool = Field(False, description="Show what it would answer after every segment.")
    board: PuzzleConfig = PuzzleConfig()
    effort: EffortConfig = EffortConfig()
    goals: GoalsConfig = GoalsConfig()
