"""Groups of settings that every training has: update rule, device and precision, length and folders."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal, Self

from pydantic import Field
from pydantic.config import JsonDict

from hrm_engine.config.base import Config
from hrm_engine.config.moe import MoEConfig

MAY_CHANGE: JsonDict = {"resume": True}


class OptimConfig(Config):
    """The update rule and its learning rate."""

    optimizer: str = Field(
        "adamw",
        pattern=r"^[a-z0-9_]+$",
        description="Update rule: adamw, adam_atan2, muon, or another name of `lab optim list`.",
    )
    use_8bit_optimizer: bool = Field(False, description="bitsandbytes' AdamW8bit: optimizer state in 8 bits.")
    lr: float = Field(2e-4, gt=0, le=10, description="Peak learning rate.")
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
    lr_scheduler: Literal["constant", "linear", "cosine"] = Field("cosine", description="Decay after the warm-up.")
    lr_min_ratio: float = Field(0.1, ge=0, le=1, description="Final learning rate as a share of the peak.")
    grad_clip: float = Field(1.0, ge=0, description="Largest gradient norm; 0 = no clipping.")
    ema_decay: float = Field(
        0.0, ge=0, lt=1, description="Exponential moving average of the weights, which is evaluated and kept; 0 = off."
    )
    ema_start_step: int = Field(0, ge=0, description="Step from which the moving average is taken.")


class ComputeConfig(Config):
    """Where and how exactly the arithmetic runs."""

    device: str = Field(
        "auto", pattern=r"^(auto|cpu|cuda(:\d+)?|mps|xpu(:\d+)?)$", description="auto, cpu, cuda, cuda:N, mps or xpu."
    )
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
    compile: bool | None = Field(None, description="torch.compile of the modules. Default: on CUDA.")


class RunConfig(Config):
    """How long, in which steps, and what is kept."""

    steps: int = Field(200, ge=1, description="Optimizer steps.", json_schema_extra=MAY_CHANGE)
    max_minutes: float | None = Field(
        None, gt=0, description="Stop like the stop file after this time.", json_schema_extra=MAY_CHANGE
    )
    batch_size: int = Field(8, ge=1, description="Rows in a micro-batch.")
    gradient_accumulation_steps: int = Field(1, ge=1, description="Micro-batches in an optimizer step.")
    seed: int = Field(0, ge=0, lt=2**63, description="Seed of initial weights, order and samples.")
    nan_patience: int = Field(5, ge=1, description="Non-finite losses in a row that stop the run.")
    save_every: int | None = Field(
        None, ge=1, description="Steps between checkpoints. Default: a tenth of the run.", json_schema_extra=MAY_CHANGE
    )
    keep_last: int = Field(3, ge=1, description="Checkpoints to keep.", json_schema_extra=MAY_CHANGE)
    log_file: Path | None = Field(
        None, description="Additional copy of the metrics (JSONL).", json_schema_extra=MAY_CHANGE
    )
    stop_file: Path | None = Field(
        None, description="When this file appears: finish the step, save, exit.", json_schema_extra=MAY_CHANGE
    )

    wandb: Literal["off", "offline", "online"] = Field(
        "off",
        description="Also log to Weights & Biases, in wandb/ of the run folder (extra wandb).",
    )
    wandb_project: str = Field("hrm-lab", min_length=1, description="Project of Weights & Biases.")
    bundle_dir: Path = Field(Path("artifacts/runs"), description="Folder that holds the run folders.")

    @property
    def name(self) -> str | None:
        """Name of the run folder, None where the user gave none."""
        raise NotImplementedError

    @property
    def name_flag(self) -> str:
        """The flag that names the run folder."""
        raise NotImplementedError


class TrainConfig(Config):
    """What the trainer itself reads of the settings of any training; the tasks add the rest.

    Subclasses declare these four groups and ``network``, ``data``, ``start`` and ``evaluation``, in the order of their
    documentation.
    """

    kind: ClassVar[str]
    """Of the bundles that the training leaves."""
    weights_name: ClassVar[str] = "model"
    """Of the file with the weights that it leaves, without its ending."""
    trains_further: ClassVar[bool] = False
    """Whether a name that exists is trained further by itself, the folder of before moved away."""

    if TYPE_CHECKING:
        moe: MoEConfig
        optim: OptimConfig
        compute: ComputeConfig
        run: RunConfig

    @property
    def optim_used(self) -> OptimConfig:
        """``optim`` with the rates that ``--auto-adjust-lr`` makes of the given ones."""
        factor, optim = self.moe.lr_scale, self.optim
        if factor == 1:
            return optim
        adam_lr = None if optim.adam_lr is None else optim.adam_lr * factor
        return optim.model_copy(update={"lr": optim.lr * factor, "adam_lr": adam_lr})

    @property
    def eval_every(self) -> int | None:
        """Steps between evaluations; None until it is resolved."""
        raise NotImplementedError

    def resolved(self) -> Self:
        """The same configuration with every default that depends on the number of steps written out."""
        raise NotImplementedError


def fits_together(config: TrainConfig) -> None:
    """Raise ValueError where settings exclude each other, or one does nothing beside another."""
    if config.optim.ema_start_step and not config.optim.ema_decay:
        raise ValueError(
            f"--ema-start-step {config.optim.ema_start_step}: without --ema-decay, such as 0.999, there is no moving "
            "average"
        )
    if config.optim.use_8bit_optimizer and config.compute.model_dtype == "fp16":
        raise ValueError("--use-8bit-optimizer works on fp32 or bf16 weights, not with --model-dtype fp16")
    if config.optim.use_8bit_optimizer and config.optim.optimizer != "adamw":
        raise ValueError(
            f"--use-8bit-optimizer is AdamW with 8-bit state; it excludes --optimizer {config.optim.optimizer}"
        )
    if config.compute.model_dtype == "fp16" and not config.compute.amp:
        raise ValueError("--model-dtype fp16 needs --amp (loss scaling); use bf16 or fp32 without it")


def resolve_steps(config: TrainConfig, steps: int) -> dict[str, OptimConfig | RunConfig]:
    """The groups ``optim`` and ``run`` with the defaults that depend on the number of steps written out."""
    warmup = config.optim.warmup_steps
    return {
        "optim": config.optim.model_copy(update={"warmup_steps": min(200, steps // 20) if warmup is None else warmup}),
        "run": config.run.model_copy(update={"steps": steps, "save_every": config.run.save_every or tenth(steps)}),
    }


def tenth(steps: int) -> int:
    """A tenth of a run, at least one step."""
    return max(1, round(steps / 10))
