"""Settings of ``lab generate`` and ``lab eval text``, and of the functions behind them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, field_validator, model_validator

from hrm_engine.config.base import Config, Form, FreeText, Needs
from hrm_engine.config.core import MAX_SEGMENTS
from hrm_engine.config.text_files import TextFilesConfig
from hrm_engine.config.training import Device

MAX_BATCH_SIZE = 4096

Threshold = Annotated[float, Field(ge=0, le=1)]
Segments = Annotated[
    int | None,
    Field(ge=1, le=MAX_SEGMENTS, description="ACT segments at most. Default: as many as it was trained for."),
]


def _as_tuple(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


class BundleConfig(Config):
    """Which model, and where it runs."""

    bundle: str = Field(description="Name or id of a brain or solver, or the path of a run, best or checkpoint folder.")
    device: Device = "auto"


class SamplingConfig(Config):
    """How the next token is drawn; the repetition penalty is the one of CTRL (arXiv 1909.05858)."""

    temperature: Annotated[float, Form(0, 2, 0.05)] = Field(
        0.8, ge=0, le=100, description="0 always takes the likeliest token."
    )
    top_k: int = Field(0, ge=0, description="Draw from the k likeliest tokens only; 0 = all.")
    top_p: Annotated[float, Form(0.01, 1, 0.01)] = Field(
        1.0, gt=0, le=1, description="Draw from the likeliest tokens that together have this probability."
    )
    repetition_penalty: Annotated[float, Form(0.5, 2, 0.05)] = Field(
        1.0, gt=0, le=100, description="Above 1, tokens that the context has become less likely; 1 = off."
    )
    stop: Annotated[tuple[str, ...], BeforeValidator(_as_tuple), FreeText()] = Field(
        (), description="The text ends before this string; may be given several times."
    )
    seed: int = Field(0, ge=0, lt=2**63, description="The same seed draws the same text.")

    @field_validator("stop")
    @classmethod
    def _is_not_empty(cls, stop: tuple[str, ...]) -> tuple[str, ...]:
        if "" in stop:
            raise ValueError("an empty text would end everything before it begins; leave it out")
        return stop


class WritingConfig(Config):
    """How long a text may become, and how long the model thinks about each token."""

    max_new_tokens: int = Field(100, ge=1, description="Tokens to write at most.")
    segments: Segments = None
    halt_threshold: Annotated[float | None, Form(0, 1, 0.01)] = Field(
        None,
        ge=0,
        le=1,
        description="Go on to the next segment only while the halting head gives more than this for the probability "
        "that it is worth it. Default: every token runs all segments.",
    )
    sampling: SamplingConfig = SamplingConfig()


class PromptFileConfig(Config):
    """Many prompts, each continued by itself."""

    prompt_file: Path | None = Field(
        None, description="A .txt with a prompt a line, or a .jsonl with the field prompt."
    )
    out: Annotated[Path | None, Needs("prompt_file")] = Field(
        None, description="JSONL file for the texts of --prompt-file. Default: standard output."
    )
    batch_size: Annotated[int, Needs("prompt_file")] = Field(
        8, ge=1, le=MAX_BATCH_SIZE, description="Prompts of --prompt-file at a time."
    )
    overwrite: Annotated[bool, Needs("prompt_file"), Needs("out")] = Field(
        False, description="Replace an --out that exists."
    )
    resume: Annotated[bool, Needs("prompt_file"), Needs("out")] = Field(
        False, description="Go on with --out where an interrupted run ended."
    )


class GoalsConfig(Config):
    """Which attached experts get more tokens."""

    goal: str | None = Field(
        None, description="Send more tokens to attached experts that serve these goals: numbers as in 3,5, or 'active'."
    )
    goal_bias_strength: Annotated[float, Needs("goal"), Form(0, 5, 0.1)] = Field(
        1.0, ge=0, le=5, description="What --goal adds to the scores of these experts."
    )


class GenerateConfig(BundleConfig):
    """All settings of ``lab generate``."""

    prompt: Annotated[str | None, FreeText()] = Field(None, description="Text to continue; - reads standard input.")
    stream: Annotated[bool | None, Needs("prompt")] = Field(
        None, description="Show the text while it is written; --no-stream: all at once. Default: the first."
    )
    files: PromptFileConfig = PromptFileConfig()
    writing: WritingConfig = WritingConfig()
    goals: GoalsConfig = GoalsConfig()

    @model_validator(mode="after")
    def _has_one_source(self) -> GenerateConfig:
        if (self.prompt is None) == (self.files.prompt_file is None):
            raise ValueError("give either --prompt TEXT (- reads it from standard input) or --prompt-file FILE")
        if self.files.overwrite and self.files.resume:
            raise ValueError("--resume and --overwrite exclude each other")
        return self


class EvaluateTextConfig(TextFilesConfig, BundleConfig):
    """All settings of ``lab eval text``."""

    dataset_file: Path | None = Field(
        None, description="Text to measure on: .txt, .csv, .json, .jsonl. Default: what its training held out."
    )
    segments: Segments = None
    halt_threshold: tuple[Threshold, ...] | None = Field(
        None,
        description="Also measure where each token halts by itself: it goes on while the probability that another "
        "segment pays is above this. May be repeated. Default: 0.25, 0.5 and 0.75 where the brain has a halting head.",
    )
    max_rows: int = Field(200, ge=1, description="Rows of the model's context, at most.")
    batch_size: int = Field(8, ge=1, description="Rows at a time.")
