"""The configuration of ``lab train actv1``: a causal text model with ACT."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import Field, model_validator

from hrm_engine.config.base import BelongsTo, Config, Needs
from hrm_engine.config.moe import MoEConfig, MoETrainConfig
from hrm_engine.config.network import NetworkConfig
from hrm_engine.config.text_files import TextFilesConfig
from hrm_engine.config.training import MAY_CHANGE, MAY_MOVE, ComputeConfig, EvaluationConfig, OptimConfig, RunConfig


class StartConfig(Config):
    """What training starts from."""

    model: str = Field(
        "artifacts/hf_implant/base_model",
        description="Hugging Face hub id or local folder. Gives the tokenizer, and where the width fits the token "
        "embeddings and the output head.",
    )
    student_init: Path | None = Field(
        None,
        description="Start from the weights of a bundle folder or a safetensors file. A bundle brings its settings and "
        "its tokenizer: what is not given follows it.",
    )


class TrainingTextConfig(Config):
    """The text to train on."""

    dataset_file: Path = Field(
        description="Training text: a .txt, .csv, .json, .jsonl file or a folder of them.", json_schema_extra=MAY_MOVE
    )


class DataConfig(TextFilesConfig, TrainingTextConfig):
    """Which text, in which order."""

    max_seq_len: int = Field(128, ge=2, le=1_048_576, description="Row length in tokens.")
    linear_dataset: bool = Field(True, description="Rows in the order of the data; off: a new permutation each epoch.")
    dataset_start_offset: int = Field(0, ge=0, description="Row of the dataset to begin with.")


class DepthConfig(Config):
    """How deep positions think, in training and where the model itself decides; for several segments."""

    sample_segments: bool = Field(
        False, description="Run 1 to --halt-max-steps segments in a step, drawn anew for each, in place of all."
    )
    freeze_positions: float = Field(
        0.5,
        ge=0,
        le=1,
        description="Share of the steps in which random positions stop after a random segment, so that the network "
        "knows neighbours that think less than it does.",
    )
    halt_threshold: float = Field(
        0.5,
        ge=0,
        le=1,
        description="Evaluation with adaptive depth: a token goes on while the probability that another segment saves "
        "more than 0.005 nat is above this.",
    )


class TextEvaluationConfig(EvaluationConfig):
    """What is measured on held-out text."""

    eval_file: Annotated[Path | None, BelongsTo("dataset_file")] = Field(
        None,
        description="Held-out text. Default: 5 % of the documents are held out. That of a preset holds for the "
        "preset's own --dataset-file.",
        json_schema_extra=MAY_MOVE,
    )
    eval_batches: int = Field(10, ge=0, description="Batches of an evaluation; 0 = no evaluation.")
    samples: Annotated[bool, Needs("eval_batches"), Needs("expert_id", but=True)] = Field(
        True, description="Continue a held-out text at each evaluation.", json_schema_extra=MAY_CHANGE
    )


class TextRunConfig(RunConfig):
    """How long, in which steps, and what is kept."""

    name_leaf: ClassVar[str] = "brain_name"

    brain_name: str | None = Field(None, description="Name of the run folder. Default: default, default-2, ...")
    bundle_dir: Path = Field(Path("artifacts/brains/actv1"), description="Folder that holds the run folders.")
    expert_id: str | None = Field(
        None,
        description="Train an expert of this id alone, into artifacts/experts: on the frozen bundle of --student-init, "
        "else of --brain-name, else on the network of --model. An id that exists is trained further.",
    )
    allow_other_base: Annotated[bool, Needs("expert_id")] = Field(
        False,
        description="Train an expert further on another base than it was trained on.",
        json_schema_extra=MAY_CHANGE,
    )
    default_goal: str | None = Field(
        None, min_length=1, description="Goal in words, kept with the bundle and its experts."
    )


class TextTrainConfig(MoETrainConfig):
    """All settings of a text training; groups of leaves whose names are the flags of ``lab train actv1``."""

    kind = "actv1"

    network: NetworkConfig = NetworkConfig()
    moe: MoEConfig = MoEConfig()
    depth: DepthConfig = DepthConfig()
    start: StartConfig = StartConfig()
    data: DataConfig
    optim: OptimConfig = OptimConfig()
    compute: ComputeConfig = ComputeConfig()
    evaluation: TextEvaluationConfig = TextEvaluationConfig()
    run: TextRunConfig = TextRunConfig()

    @model_validator(mode="after")
    def _fits_together(self) -> TextTrainConfig:
        if self.run.expert_id is not None and self.kind == TextTrainConfig.kind:
            raise ValueError("--expert-id is for ExpertTrainConfig, which `lab train actv1` takes by itself")
        if self.network.halt_max_steps == 1 and self.depth != DepthConfig():
            raise ValueError(
                "--sample-segments, --freeze-positions and --halt-threshold are for several segments: give "
                "--halt-max-steps 2 or more, or leave them out"
            )
        return self


load_config = TextTrainConfig.load
