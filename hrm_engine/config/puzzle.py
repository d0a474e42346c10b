"""The configuration of ``lab train puzzle``: a solver of grids with ACT in slots."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from hrm_engine.config.base import Config, InPlaceOf, Needs, written_as
from hrm_engine.config.core import MAX_SEGMENTS
from hrm_engine.config.moe import MoETrainConfig, PuzzleMoEConfig
from hrm_engine.config.puzzle_network import PuzzleNetworkConfig
from hrm_engine.config.training import (
    MAY_CHANGE,
    MAY_MOVE,
    ComputeConfig,
    EvaluationConfig,
    GradClip,
    LearningRate,
    NamedRunConfig,
    OptimConfig,
    Scheduler,
    UpdateRule,
)

_CURRICULUM = written_as(
    r"0(\.0+)?:\d+x\d+(,0?\.\d+:\d+x\d+)*", "write it as share:HxL, the first from 0 on, such as 0:1x2,0.3:2x4"
)


class PuzzleStartConfig(Config):
    """What training starts from."""

    student_init: Path | None = Field(
        None, description="Start from the weights of a bundle folder or safetensors file."
    )


class PuzzleDataConfig(Config):
    """Which puzzles."""

    data_path: Path = Field(
        description="Dataset folder with train/ and test/ (lab data build-sudoku, ...).", json_schema_extra=MAY_MOVE
    )
    symmetries: bool = Field(
        False,
        description="A fresh symmetry for each row drawn (Sudoku: digits, bands, stacks, rows, columns, "
        "transpose; maze: rotations and reflections).",
    )


class ObjectiveConfig(Config):
    """What is minimised, and how halting is explored."""

    loss: Literal["stablemax", "softmax"] = Field("stablemax", description="Cross-entropy of the cells.")
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="Share of the label spread over all tokens.")
    halt_loss_weight: float = Field(0.5, ge=0, le=10, description="Weight of the halting losses.")
    halt_exploration_prob: float = Field(
        0.1, ge=0, le=1, description="Share of rows that must think a random number of segments before they may halt."
    )
    depth_curriculum: Annotated[str, _CURRICULUM] | None = Field(
        None,
        description="Fewer cycles early (CGAR, 2511.08653), as share:HxL; 0:1x2,0.3:2x4,0.6:3x6 runs 1 high-level "
        "cycle of 2 low-level calls at first, 3 of 6 from 60 % of the steps on.",
    )


class PuzzleOptimConfig(OptimConfig):
    """The update rules and their learning rates."""

    optimizer: UpdateRule = "adam_atan2"
    lr: LearningRate = 1e-4
    weight_decay: float = Field(1.0, ge=0, le=10, description="Decoupled weight decay on all weights.")
    puzzle_lr: Annotated[float, Needs("puzzle_tokens", 0, but=True)] = Field(
        1e-4, gt=0, le=10, description="Peak learning rate of the puzzle embedding (sign-SGD)."
    )
    puzzle_weight_decay: Annotated[float, Needs("puzzle_tokens", 0, but=True)] = Field(
        1.0, ge=0, le=10, description="Weight decay of the puzzle embedding."
    )
    lr_scheduler: Scheduler = "constant"
    grad_clip: GradClip = 0.0


class PuzzleEvaluationConfig(EvaluationConfig):
    """What is measured on the test split."""

    eval_rows: int = Field(512, ge=0, description="Rows of the periodic evaluation, a fixed subset; 0 = no evaluation.")
    full_eval: bool = Field(True, description="Evaluate all test rows at the end.")
    eval_segments: Annotated[int | None, Needs("eval_rows")] = Field(
        None, ge=1, le=MAX_SEGMENTS, description="Segments of an evaluation. Default: --halt-max-steps."
    )
    early_stopping: Annotated[int | None, Needs("eval_rows")] = Field(
        None, ge=1, description="Stop after so many evaluations in a row without a better one."
    )
    stop_at_train_accuracy: float | None = Field(
        None,
        gt=0,
        le=1,
        description="Stop when so many of the last 1,000 halted training rows were solved exactly: "
        "late in training on few puzzles Q-learning can become unstable.",
    )


class PuzzleRunConfig(NamedRunConfig):
    """How long, in which steps, and what is kept."""

    not_inherited: ClassVar[tuple[str, ...]] = (*NamedRunConfig.not_inherited, "epochs")  # they have become steps
    default_name: ClassVar[str] = "solver"

    run_name: str | None = Field(None, description="Name of the run folder. Default: solver, solver-2, ...")
    steps: Annotated[int, Needs("epochs", but=True)] = Field(
        2000, ge=1, description="Optimizer steps, one segment each.", json_schema_extra=MAY_CHANGE
    )
    epochs: Annotated[float | None, InPlaceOf("steps")] = Field(
        None, gt=0, description="Length in epochs, not steps: steps = epochs x puzzle groups / batch, as published."
    )
    batch_size: int = Field(64, ge=1, description="Slots in a micro-batch.")
    gradient_accumulation_steps: int = Field(1, ge=1, description="Micro-batches in a step; each has its own slots.")


class PuzzleTrainConfig(MoETrainConfig):
    """All settings of a puzzle training; groups of leaves whose names are the flags of ``lab train puzzle``."""

    kind = "puzzle"

    network: PuzzleNetworkConfig = PuzzleNetworkConfig()
    moe: PuzzleMoEConfig = PuzzleMoEConfig()
    start: PuzzleStartConfig = PuzzleStartConfig()
    data: PuzzleDataConfig
    objective: ObjectiveConfig = ObjectiveConfig()
    optim: PuzzleOptimConfig = PuzzleOptimConfig()
    compute: ComputeConfig = ComputeConfig()
    evaluation: PuzzleEvaluationConfig = PuzzleEvaluationConfig()
    run: PuzzleRunConfig = PuzzleRunConfig()

    @model_validator(mode="after")
    def _fits_together(self) -> PuzzleTrainConfig:
        full_h, full_l = self.network.cycles
        for h_cycles, l_cycles in self.curriculum.values():
            if not (1 <= h_cycles <= full_h and min(1, full_l) <= l_cycles <= full_l):
                raise ValueError(f"--depth-curriculum {h_cycles}x{l_cycles}: the network has {full_h}x{full_l} cycles")
        return self

    @property
    def curriculum(self) -> dict[float, tuple[int, int]]:
        """(high-level cycles, low-level calls) by the share of the run from which they hold; empty without one."""
        stages = (part.split(":") for part in (self.objective.depth_curriculum or "").split(",") if part)
        return {float(share): (int(cycles.split("x")[0]), int(cycles.split("x")[1])) for share, cycles in stages}

    def cycles_at(self, share: float) -> tuple[int, int] | None:
        """Cycles at this share of the run under the depth curriculum; None where there is none."""
        reached = [cycles for start, cycles in sorted(self.curriculum.items()) if share >= start]
        return reached[-1] if reached else None

    @property
    def patience(self) -> int | None:
        """Evaluations in a row without a better one after which the run stops."""
        return self.evaluation.early_stopping

    def of_groups(self, groups: int) -> PuzzleTrainConfig:
        """The resolved configuration on a dataset of so many puzzle groups, by which ``epochs`` become steps."""
        if self.run.epochs is None:
            return self.resolved()
        return self.of_steps(max(1, int(self.run.epochs * groups / self.run.rows_per_step)))


load_puzzle_config = PuzzleTrainConfig.load
