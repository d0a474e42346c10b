"""What every training has: update rule, device and precision, length and folders; and how a session of it begins."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator
from pydantic.config import JsonDict

from hrm_engine.config.base import Config, Needs, build_config, flag_of, written_as

MAY_CHANGE: JsonDict = {"resume": True}
MAY_MOVE: JsonDict = {"resume": "place"}
"""Of the place of data: a run that goes on takes it from anywhere, as long as its fingerprint is the same."""

Device = Annotated[
    str,
    written_as(r"auto|cpu|cuda(:\d+)?|mps|xpu(:\d+)?", "use auto, cpu, cuda, cuda:N, mps or xpu"),
    Field(description="auto, cpu, cuda, cuda:N, mps or xpu."),
]
UpdateRule = Annotated[
    str,
    written_as(r"[a-z0-9_]+", "use adamw, adam_atan2, muon, or another name of 'lab optim list'"),
    Field(description="Update rule: adamw, adam_atan2, muon, or another name of `lab optim list`."),
]
LearningRate = Annotated[float, Field(gt=0, le=10, description="Peak learning rate.")]
Scheduler = Annotated[Literal["constant", "linear", "cosine"], Field(description="Decay after the warm-up.")]
GradClip = Annotated[float, Field(ge=0, description="Largest gradient norm; 0 = no clipping.")]


class OptimConfig(Config):
    """The update rule and its learning rate."""

    optimizer: UpdateRule = "adamw"
    use_8bit_optimizer: bool = Field(False, description="bitsandbytes' AdamW8bit: optimizer state in 8 bits.")
    lr: LearningRate = 2e-4
    weight_decay: float = Field(0.1, ge=0, le=10, description="Decoupled weight decay on matrices.")
    beta1: float = Field(0.9, ge=0, lt=1, description="Decay of the mean of the gradients.")
    beta2: float = Field(0.95, ge=0, lt=1, description="Decay of the mean of their squares.")
    adam_lr: float | None = Field(
        None,
        gt=0,
        le=10,
        description="With muon: peak learning rate of what is no hidden matrix (embeddings, heads, routers, biases), "
        "by AdamW. Default: a hundredth of --lr.",
    )
    adam_weight_decay: float | None = Field(
        None, ge=0, le=10, description="With muon: weight decay of the AdamW group. Default: as --weight-decay."
    )
    warmup_steps: int | None = Field(None, ge=0, description="Linear warm-up. Default: 5 % of the steps, at most 200.")
    lr_scheduler: Scheduler = "cosine"
    lr_min_ratio: Annotated[float, Needs("lr_scheduler", "constant", but=True)] = Field(
        0.1, ge=0, le=1, description="Final learning rate as a share of the peak."
    )
    grad_clip: GradClip = 1.0
    ema_decay: float = Field(
        0.0, ge=0, lt=1, description="Exponential moving average of the weights, which is evaluated and kept; 0 = off."
    )
    ema_start_step: int = Field(0, ge=0, description="Step from which the moving average is taken.")


class ComputeConfig(Config):
    """Where and how exactly the arithmetic runs."""

    device: Device = "auto"
    strict: bool = Field(False, description="Refuse to run on another device than the one named.")
    amp: bool = Field(True, description="Compute in bf16 (fp16 with loss scaling where a GPU has no bf16).")
    model_dtype: Literal["fp32", "bf16", "fp16"] = Field(
        "fp32",
        description="Type of the kept weights. bf16: weights and optimizer state in bf16; fp16: fp32 master weights, "
        "computed and stored in fp16.",
    )
    gradient_checkpointing: bool | None = Field(
        None, description="Recompute activations in the backward pass. Default: on, except on CPU."
    )
    compile: Annotated[bool | None, Needs("expert_id", but=True)] = Field(
        None, description="torch.compile of the modules. Default: on CUDA."
    )


class RunConfig(Config):
    """How long, in which steps, and what is kept."""

    steps: int = Field(200, ge=1, description="Optimizer steps.", json_schema_extra=MAY_CHANGE)
    max_minutes: float | None = Field(None, gt=0, description="Save and stop then.", json_schema_extra=MAY_CHANGE)
    batch_size: int = Field(8, ge=1, description="Rows in a micro-batch.")
    gradient_accumulation_steps: int = Field(1, ge=1, description="Micro-batches in an optimizer step.")
    seed: int = Field(0, ge=0, lt=2**63, description="Seed of initial weights, order and samples.")
    nan_patience: int = Field(5, ge=1, description="Non-finite losses in a row that stop the run.")
    save_every: int | None = Field(
        None, ge=1, description="Steps between checkpoints. Default: a tenth of the run.", json_schema_extra=MAY_CHANGE
    )
    keep_last: int = Field(3, ge=1, description="Checkpoints to keep.", json_schema_extra=MAY_CHANGE)
    log_file: Path | None = Field(None, description="Another copy of the metrics.", json_schema_extra=MAY_CHANGE)
    stop_file: Path | None = Field(
        None, description="When this file appears: finish the step, save, exit.", json_schema_extra=MAY_CHANGE
    )

    wandb: Literal["off", "offline", "online"] = Field(
        "off", description="Also log to Weights & Biases, in wandb/ of the run folder; needs the package wandb."
    )
    wandb_project: Annotated[str, Needs("wandb", "off", but=True)] = Field(
        "hrm-lab", min_length=1, description="Project of Weights & Biases."
    )
    bundle_dir: Path = Field(Path("artifacts/runs"), description="Folder that holds the run folders.")

    default_name: ClassVar[str] = "default"
    """Of a run folder that nobody names; a number follows where that is taken."""
    name_leaf: ClassVar[str] = "run_name"
    """The setting that names the run folder."""
    not_inherited: ClassVar[tuple[str, ...]] = ("bundle_dir", "log_file", "stop_file", "max_minutes")
    """Settings that a fork does not take over, beside that name."""

    @property
    def rows_per_step(self) -> int:
        """Effective batch size: rows of an optimizer step, accumulation included."""
        return self.batch_size * self.gradient_accumulation_steps

    @property
    def name(self) -> str | None:
        """Name of the run folder, None where the user gave none."""
        name: str | None = getattr(self, self.name_leaf)
        return name

    @property
    def name_flag(self) -> str:
        """The flag that names the run folder."""
        return flag_of(self.name_leaf)


class NamedRunConfig(RunConfig):
    """How long, in which steps, and what is kept."""

    run_name: str | None = Field(None, description="Name of the run folder. Default: default, default-2, ...")


class EvaluationConfig(Config):
    """When held-out data is measured."""

    eval_every: int | None = Field(
        None, ge=1, description="Steps between evaluations. Default: a tenth of the run.", json_schema_extra=MAY_CHANGE
    )


class TrainConfig(Config):
    """What the trainer itself reads of the settings of any training; each kind adds groups of its own.

    Subclasses declare these four groups, in the order of their documentation.
    """

    weights_name: ClassVar[str] = "model"
    """Of the file with the weights that it leaves, without its ending."""
    trains_further: ClassVar[bool] = False
    """Whether a name that exists is trained further by itself, the folder of before moved away."""

    if TYPE_CHECKING:
        optim: OptimConfig
        compute: ComputeConfig
        evaluation: EvaluationConfig
        run: RunConfig

    @classmethod
    def load(cls, preset: str | Path | None = None, **overrides: Any) -> Self:
        """A configuration from a preset (name or YAML file) with leaf values on top.

        ``TextTrainConfig.load("text-small", steps=50)`` is the shipped preset with another number of steps.

        Raises:
            ConfigError: unknown preset or names, values of the wrong type or out of bounds.
        """
        return build_config(cls, preset=preset, overrides=overrides)

    @classmethod
    def as_of_now(cls, saved: Mapping[str, Any]) -> dict[str, Any]:
        """The nested settings of a run of an older version with what it did not know yet."""
        return dict(saved)

    @property
    def optim_used(self) -> OptimConfig:
        """``optim`` with the learning rates that are really used."""
        return self.optim

    @property
    def lr_reason(self) -> str:
        """Why these are not the given ones."""
        return ""

    @property
    def patience(self) -> int | None:
        """Evaluations in a row without a better one after which the run stops; None: it goes on."""
        return None

    @property
    def eval_every(self) -> int | None:
        """Steps between evaluations; None until it is resolved."""
        return self.evaluation.eval_every

    def resolved(self) -> Self:
        """The same configuration with every default that depends on the number of steps written out."""
        return self.of_steps(self.run.steps)

    def of_steps(self, steps: int) -> Self:
        """The configuration of a run of ``steps``, with every default that depends on their number written out."""
        warmup, tenth = self.optim.warmup_steps, max(1, round(steps / 10))
        warmup = min(200, steps // 20) if warmup is None else warmup
        changes: dict[str, Config] = {
            "optim": self.optim.model_copy(update={"warmup_steps": warmup}),
            "run": self.run.model_copy(update={"steps": steps, "save_every": self.run.save_every or tenth}),
            "evaluation": self.evaluation.model_copy(update={"eval_every": self.eval_every or tenth}),
        }
        return self.model_copy(update=changes)

    @model_validator(mode="after")
    def _rule_fits(self) -> Self:
        optim, model_dtype = self.optim, self.compute.model_dtype
        if optim.ema_start_step and not optim.ema_decay:
            raise ValueError(
                f"--ema-start-step {optim.ema_start_step}: without --ema-decay, such as 0.999, there is no moving "
                "average"
            )
        if optim.use_8bit_optimizer and model_dtype == "fp16":
            raise ValueError("--use-8bit-optimizer works on fp32 or bf16 weights, not with --model-dtype fp16")
        if optim.use_8bit_optimizer and optim.optimizer != "adamw":
            raise ValueError(
                f"--use-8bit-optimizer is AdamW with 8-bit state; it excludes --optimizer {optim.optimizer}"
            )
        if model_dtype == "fp16" and not self.compute.amp:
            raise ValueError("--model-dtype fp16 needs --amp (loss scaling); use bf16 or fp32 without it")
        return self


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
    take_over: Annotated[bool, Needs("resume")] = Field(
        False,
        description="The run's process on another machine has ended: go on at once, not two minutes after its last "
        "heartbeat.",
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
