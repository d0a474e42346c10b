"""The configuration of expert-only training: ``lab train actv1 --expert-id ID``."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from pydantic import Field, model_validator

from hrm_engine.config.base import Config, leaves
from hrm_engine.config.text import TextRunConfig, TextTrainConfig
from hrm_engine.config.training import OptimConfig

EXPERTS_FOLDER = Path("artifacts/experts")


class ExpertConfig(Config):
    """What rebuilds an expert: its sizes and where it stands; written as ``config.json`` of its folder."""

    expert_id: str = Field(description="Its id in the registry.")
    hidden_size: int = Field(ge=1, description="Width D of the states it works on.")
    intermediate_size: int = Field(ge=1, description="SwiGLU inner width I.")
    layer: str | None = Field(description="Layer of the base in which it was trained; None: behind its last layer.")
    base: str = Field(description="Bundle, folder or hub id of the base that was frozen.")
    base_hash: str | None = Field(description="Hash over the files of the base; None for a hub id.")


class ExpertRunConfig(TextRunConfig):
    """How long, in which steps, and what is kept."""

    name_leaf: ClassVar[str] = "expert_id"

    bundle_dir: Path = Field(EXPERTS_FOLDER, description="Folder that holds the folders of experts.")


class ExpertTrainConfig(TextTrainConfig):
    """Settings of an expert's training: those of a text training, of which the network is the base's own."""

    kind = "expert"
    weights_name = "expert"
    trains_further = True

    run: ExpertRunConfig = ExpertRunConfig()

    @property
    def optim_used(self) -> OptimConfig:
        """``optim`` as it is: the expert sees every token."""
        return self.optim

    @model_validator(mode="after")
    def _is_an_expert(self) -> ExpertTrainConfig:
        if self.run.expert_id is None:
            raise ValueError("--expert-id names the expert that is to be trained")
        if self.run.bundle_dir != EXPERTS_FOLDER:
            raise ValueError(f"--bundle-dir {self.run.bundle_dir}: experts lie in {EXPERTS_FOLDER.as_posix()}")
        on_a_bundle = self.start.student_init is not None or self.run.brain_name is not None
        used = set() if on_a_bundle else {"expansion"}  # on a bundle the expert is as wide as those of its layer
        ignored = [
            f"--no-{leaf.flag.removeprefix('--').removeprefix('use-')}" if leaf.value(self) is False else leaf.flag
            for name, leaf in leaves(type(self)).items()
            if (leaf.path[0] in {"network", "moe"} or name == "halt_threshold") and name not in used
            if leaf.value(self) != leaf.default
        ]
        if ignored:
            raise ValueError(
                f"{', '.join(ignored)}: not with --expert-id, which trains on the network of its base as that is; "
                "leave them out, and a preset that sets them"
            )
        return self
