"""Expert cards: what the registry knows of each expert. ``expert_content`` has the rules that hold between them.

A card describes an expert; its weights lie in ``artifacts/experts/<id>/``. Fields that this version does not know are
kept as they are when a registry is read and written again: refusing them would make one odd entry lock everybody out,
dropping them would lose what somebody stored. What our own code adds or changes must be known, so typing errors show.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    ValidationError,
    field_validator,
)

from hrm_engine.config.base import written_as
from hrm_engine.config.reasons import field_problems
from hrm_engine.errors import ConfigError, RegistryError
from hrm_engine.store.clock import now_iso
from hrm_engine.store.files import finite

REGISTRY_FILE = "registry.json"

_ID = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_DRIVE = re.compile(r"[A-Za-z]:")


def check_expert_id(expert_id: str) -> str:
    """``expert_id`` itself if an expert may be called that, else ConfigError."""
    if not isinstance(expert_id, str) or _ID.fullmatch(expert_id) is None:
        raise ConfigError(
            f"expert id {shown(expert_id)} is not allowed: use 1 to 64 lower-case letters, digits, '.', '_' or '-', "
            "beginning with a letter or digit"
        )
    if expert_id == REGISTRY_FILE:
        raise ConfigError(f"expert id {expert_id!r} is not allowed: the registry's own file has that name")
    return expert_id


def _check_place(path: str) -> str:
    """A path from the workspace root with forward slashes; the registry may come from anywhere, so none leads out."""
    text = path.replace("\\", "/")
    parts = text.split("/")
    if not all(parts) or ".." in parts or "\0" in text or _DRIVE.match(text):
        raise ValueError("a path inside the workspace is expected, relative to its root")
    return text


ExpertId = Annotated[str, AfterValidator(check_expert_id)]
Place = Annotated[str, AfterValidator(_check_place)]


Facts = Annotated[dict[str, JsonValue], BeforeValidator(finite)]
"""Measurements that were not finite are None, as in metrics.jsonl."""


class Stored(BaseModel):
    """Base of what stands in the registry: frozen, unknown fields kept if they are plain JSON, no number infinite."""

    model_config = ConfigDict(frozen=True, extra="allow", allow_inf_nan=False)
    __pydantic_extra__: dict[str, JsonValue]


S = TypeVar("S", bound=Stored)


class GoalLink(Stored):
    """A goal that an expert serves. ``id`` is None for a text of an old registry that is in no database yet."""

    id: int | None = None
    text: str


class ExpertCard(Stored):
    """One expert. Times are ISO 8601 in UTC; ``checkpoint_path`` is relative to the workspace root, or None before the
    first training; ``child_expert_ids`` follows from the parents of the others."""

    expert_id: ExpertId
    name: str = ""
    description: str = ""
    category: str = ""
    goals: tuple[GoalLink, ...] = ()
    created_at: str = Field(default_factory=now_iso)
    last_trained: str | None = None
    training_datasets: tuple[str, ...] = ()
    performance_metrics: Facts = {}
    total_activations: int = Field(default=0, ge=0)
    avg_routing_weight: float = Field(default=0.0, ge=0)
    is_active: bool = True
    is_frozen: bool = False
    parent_expert_id: ExpertId | None = None
    child_expert_ids: tuple[ExpertId, ...] = ()
    model_architecture: str = ""
    checkpoint_path: Place | None = None
    training_config: Facts = {}
    sha256: Annotated[str, written_as(r"[0-9a-f]{64}", "a SHA-256 in 64 hexadecimal digits is needed")] | None = None

    @field_validator("goals", mode="before")
    @classmethod
    def _goals_of_old_registries(cls, value: Any) -> Any:
        if isinstance(value, list | tuple):
            return [{"text": item} if isinstance(item, str) else item for item in value]
        return value

    def dump(self) -> dict[str, Any]:
        """The card as JSON has it."""
        return self.model_dump(mode="json")


def parse_entry(model: type[S], entry: object, where: str) -> S:
    """An entry of a registry as what it should be; RegistryError names the place ``where`` and every problem."""
    try:
        return model.model_validate(entry)
    except ConfigError as problem:  # of an id
        raise RegistryError(f"{where}: {problem}") from problem
    except ValidationError as error:
        raise RegistryError(f"{where}: {field_problems(error)}") from error


def shown(value: object) -> str:
    """``value`` as a message holds it: escaped, and shortened."""
    text = ascii(value)
    return text if len(text) <= 80 else text[:77] + "..."
