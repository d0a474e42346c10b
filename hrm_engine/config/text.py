"""The configuration of ``lab train actv1``: a causal text model with ACT."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator
from pydantic.config import JsonDict

from hrm_engine.config.base import Config, build_config
from hrm_engine.config.network import NetworkConfig

MAY_CHANGE: JsonDict = {"resume": True}


class StartConfig(Config):
    """What training starts from."""

    model: str = Field(
        "artifacts/hf_implant/base_model",
        description="Hugging Face hub id or local folder. Gives the tokenizer, and where the width fits the token "
        "embeddings and the output head.",
    )
    student_init: Path | None = Field(
        None, description="Start from the weights of a bundle folder or a safetensors file."
    )


class DataConfig(Config):
    """Which text, in which order."""

    dataset_file: Path = Field(description="Training text: a .txt, .csv, .json, .jsonl file or a folder of them.")
    ascii_only: bool = Field(False, description="Drop lines with non-ASCII characters; the count is reported.")
    document_separator: str | None = Field(
        None, description="Line that separates documents in .txt files. Default: <|endoftext|>, else blank lines."
    )
    text_field: str = Field("text", min_length=1, description="Field or column with the text (.csv, .json, .jsonl).")
    skip_bad_records: bool = Field(False, description="Skip and count records that cannot be read.")
    max_seq_len: int = Field(128, ge=2, le=1_048_576, description="Row length in tokens.")
    linear_dataset: bool = Field(True, description="Rows in the order of the data; off: a new permutation each epoch.")
    dataset_start_offset: int = Field(0, ge=0, description="Row of the dataset to begin with.")


class OptimConfig(Config):
    """The update rule and its learning rate."""

    optimizer: Literal["adamw"] = Field("adamw", description="Optimizer.")
    use_8bit_optimizer: bool = Field(False, description="bitsandbytes' AdamW8bit: optimizer state in 8 bits.")
    lr: float = Field(2e-4, gt=0, le=10, description="Peak learning rate.")
    weight_decay: float = Field(0.1, ge=0, le=10, description="Decoupled weight decay on matrices.")
    warmup_steps: int | None = Field(None, ge=0, description="Linear warm-up. Default: 5 % of the steps, at most 200.")
    lr_scheduler: Literal["constant", "linear", "cosine"] = Field("cosine", description="Decay after the warm-up.")
    lr_min_ratio: float = Field(0.1, ge=0, le=1, description="Final learning rate as a share of the peak.")
    grad_clip: float = Field(1.0, ge=0, description="Largest gradient norm; 0 = no clipping.")


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


class EvaluationConfig(Config):
    """What is measured on held-out text."""

    eval_file: Path | None = Field(None, description="Held-out text. Default: 5 % of the documents are held out.")
    eval_batches: int = Field(10, ge=0, description="Batches of an evaluation; 0 = no evaluation.")
    eval_every: int | None = Field(
        None, ge=1, description="Steps between evaluations. Default: a tenth of the run.", json_schema_extra=MAY_CHANGE
    )


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
    brain_name: str | None = Field(None, description="Name of the run folder. Default: default, default-2, ...")
    bundle_dir: Path = Field(Path("artifacts/brains/actv1"), description="Folder that holds the run folders.")


class TextTrainConfig(Config):
    """All settings of a text training; groups of leaves whose names are the flags of ``lab train actv1``."""

    network: NetworkConfig = NetworkConfig()
    start: StartConfig = StartConfig()
    data: DataConfig
    optim: OptimConfig = OptimConfig()
    compute: ComputeConfig = ComputeConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    run: RunConfig = RunConfig()

    @model_validator(mode="after")
    def _fits_together(self) -> TextTrainConfig:
        if self.optim.use_8bit_optimizer and self.compute.model_dtype == "fp16":
            raise ValueError("--use-8bit-optimizer works on fp32 or bf16 weights, not with --model-dtype fp16")
        if self.compute.model_dtype == "fp16" and not self.compute.amp:
            raise ValueError("--model-dtype fp16 needs --amp (loss scaling); use bf16 or fp32 without it")
        return self

    def resolved(self) -> TextTrainConfig:
        """The same configuration with every default that depends on the number of steps written out."""
        steps = self.run.steps
        tenth = max(1, round(steps / 10))
        warmup = self.optim.warmup_steps
        return self.model_copy(
            update={
                "optim": self.optim.model_copy(
                    update={"warmup_steps": min(200, steps // 20) if warmup is None else warmup}
                ),
                "evaluation": self.evaluation.model_copy(update={"eval_every": self.evaluation.eval_every or tenth}),
                "run": self.run.model_copy(update={"save_every": self.run.save_every or tenth}),
            }
        )


def load_config(preset: str | Path | None = None, **overrides: Any) -> TextTrainConfig:
    """A configuration from a preset (name or YAML file) with leaf values on top.

    ``load_config("text-small", steps=50)`` is the shipped preset with another number of steps.

    Raises:
        ConfigError: unknown preset or names, values of the wrong type or out of bounds.
    """
    return build_config(TextTrainConfig, preset=preset, overrides=overrides)
