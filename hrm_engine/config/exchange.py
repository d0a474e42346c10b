"""Settings of ``lab bundle import`` and ``lab bundle export``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from hrm_engine.config.base import Alias, Config, Needs
from hrm_engine.config.core import PositionEncoding

OfReference = Needs("format", "hf", but=True)
Size = Annotated[int | None, OfReference]
Format = Literal["sapient-hrm", "trm", "hf"]

_FORMAT = "Whose: sapientinc/HRM or TRM (SamsungSAILMontreal), solvers; hf: hrm_text in transformers."


class SizesConfig(Config):
    """What its own configuration does not say."""

    seq_len: Size = Field(None, description="Cells of a row, where there is no dataset.")
    num_heads: Size = Field(None, description="Attention heads. Default: its configuration, else 8.")
    h_cycles: Size = Field(None, description="High-level cycles. Default: its configuration, else 2; trm 3.")
    l_cycles: Size = Field(None, description="Low-level calls in a cycle. Default: its configuration, else 2; trm 6.")
    halt_max_steps: Size = Field(None, description="Segments. Default: its configuration, else 16.")
    puzzle_tokens: Size = Field(
        None, description="Positions of trm's puzzle embedding. Default: its configuration, else 16."
    )
    pos_encodings: Annotated[PositionEncoding | None, OfReference] = Field(
        None, description="Position encoding. Default: its weights or configuration, else rope."
    )


class ImportConfig(Config):
    """All settings of ``lab bundle import``."""

    format: Format = Field(description=_FORMAT)
    name: str = Field(description="Name of the new brain: in artifacts/runs, a text brain in artifacts/brains/actv1.")
    data_path: Annotated[Path | None, OfReference] = Field(None, description="Dataset that it was trained on.")
    config_file: Annotated[Path | None, OfReference, Alias("model_config")] = Field(
        None, description="Its configuration. Default: all_config.yaml beside the checkpoint."
    )
    sizes: SizesConfig = SizesConfig()


class ExportConfig(Config):
    """All settings of ``lab bundle export``."""

    format: Format = Field(description=_FORMAT)
    forward_dtype: Annotated[Literal["bfloat16", "float16", "float32"] | None, OfReference] = Field(
        None, description="What theirs computes in. Default: as it was when imported, else bfloat16."
    )
    compiled: Annotated[bool | None, OfReference] = Field(
        None, description="Names as of a compiled network. Default: as they were when imported, else yes."
    )
    segments: Annotated[int | None, Needs("format", "hf")] = Field(
        None, description="hf: depth at which the brain is read. Needed where it has more than one."
    )
