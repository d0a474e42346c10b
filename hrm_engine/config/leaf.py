"""How one setting is declared: a field of a configuration model, and the marks that stand beside its type."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict
from pydantic.fields import FieldInfo
from pydantic_core import PydanticCustomError


class Config(BaseModel):
    """Base of all configuration models: frozen, unknown fields refused, values checked when built."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False)

    kind: ClassVar[str] = ""
    """Of the training that it configures (:mod:`hrm_engine.config.kinds`); empty: it is no training's."""


def flag_of(name: str) -> str:
    """A setting as it is written on the command line."""
    return "--" + name.replace("_", "-")


@dataclass(frozen=True)
class Needs:
    """Another leaf's value without which a leaf does nothing; stands in ``Annotated``.

    ``Needs("use_moe")`` asks for anything but off, zero or nothing; ``Needs("balance", "bias")`` for that value. With
    ``but=True`` it is the other way round: ``Needs("lr_scheduler", "constant", but=True)``. Where the leaf ``unless``
    is set, there is no need.
    """

    name: str
    value: Any = None
    but: bool = False
    unless: str | None = None

    def is_met(self, config: Config, known: Mapping[str, Leaf]) -> bool:
        """Whether the other leaf has such a value; so is the need of a leaf that this configuration has not."""
        waived = known.get(self.unless or "")
        if self.name not in known or (waived is not None and waived.value(config)):
            return True
        value = known[self.name].value(config)
        is_such = value not in (None, 0, ()) if self.value is None else value == self.value
        return is_such is not self.but

    @property
    def other(self) -> str:
        """The other leaf as it is written on the command line, with the value that is needed or excluded."""
        return flag_of(self.name) if self.value is None or self.value is True else f"{flag_of(self.name)} {self.value}"

    @property
    def sentence(self) -> str:
        """What a message says behind the flags that would do nothing."""
        return (
            f"cannot be used with {self.other}: leave out one or the other" if self.but else f"goes with {self.other}"
        )


@dataclass(frozen=True)
class Alias:
    """Another name of a leaf, as a flag and in YAML; stands in ``Annotated``."""

    name: str


@dataclass(frozen=True)
class Form:
    """Narrower ends for a leaf in forms, and the step between its values there; stands in ``Annotated``."""

    low: float
    high: float
    step: float


@dataclass(frozen=True)
class BelongsTo:
    """Another leaf, whose value in a preset a leaf there is for: where that is given anew, so is this, or left out.

    Stands in ``Annotated``.
    """

    name: str


@dataclass(frozen=True)
class InPlaceOf:
    """Another leaf that says the same in other words: where that is given, one of a preset gives way.

    Stands in ``Annotated``.
    """

    name: str


def written_as(pattern: str, cure: str) -> AfterValidator:
    """A check that a text fits a pattern; ``cure`` says to the user how it is written. Stands in ``Annotated``."""

    def check(text: str) -> str:
        if re.fullmatch(pattern, text) is None:
            raise PydanticCustomError("written_as", cure)
        return text

    return AfterValidator(check)


@dataclass(frozen=True)
class FreeText:
    """Marks a leaf whose value may begin with a hyphen on the command line; stands in ``Annotated``."""


@dataclass(frozen=True)
class Leaf:
    """One setting: where it stands in the nested model and what the field declares about it."""

    name: str
    path: tuple[str, ...]
    field: FieldInfo

    @property
    def annotation(self) -> Any:
        """The declared type without its bounds."""
        return self.field.annotation

    @property
    def default(self) -> Any:
        """The declared default (every leaf has one, or ``PydanticUndefined`` where a value is required).

        Of a default that follows other settings: the one beside their defaults.
        """
        return self.field.get_default(call_default_factory=True, validated_data={})

    @property
    def value_name(self) -> str:
        """A word for the value in messages: ``FILE``, ``FOLDER``, ``NAME`` or ``VALUE``."""
        if Path in (self.annotation, *get_args(self.annotation)):
            return "FILE" if self.name.endswith("file") else "FOLDER"
        return "NAME" if self.annotation is str else "VALUE"

    @property
    def description(self) -> str:
        """What the setting does, with its unit."""
        return self.field.description or ""

    @property
    def flag(self) -> str:
        """The setting as it is written on the command line."""
        return flag_of(self.name)

    def value(self, config: Config) -> Any:
        """The value in a configuration."""
        return functools.reduce(getattr, self.path, config)

    @property
    def aliases(self) -> tuple[str, ...]:
        """Other names of the setting."""
        return tuple(item.name for item in self.field.metadata if isinstance(item, Alias))

    @property
    def needs(self) -> tuple[Needs, ...]:
        """Values of other leaves without which the setting does nothing."""
        return tuple(item for item in self.field.metadata if isinstance(item, Needs))

    @property
    def belongs_to(self) -> str | None:
        """The leaf that it goes with in a preset."""
        return next((item.name for item in self.field.metadata if isinstance(item, BelongsTo)), None)

    @property
    def in_place_of(self) -> str | None:
        """The leaf that says the same in other words."""
        return next((item.name for item in self.field.metadata if isinstance(item, InPlaceOf)), None)

    @property
    def is_free_text(self) -> bool:
        """Whether a value may begin with a hyphen."""
        return any(isinstance(item, FreeText) for item in self.field.metadata)

    @property
    def may_change_on_resume(self) -> bool:
        """Whether a resumed run accepts another value than the one it was started with."""
        extra = self.field.json_schema_extra
        return isinstance(extra, dict) and bool(extra.get("resume"))

    @property
    def is_place_of_data(self) -> bool:
        """Whether it says where data lies, which is known by its fingerprint and not by this."""
        extra = self.field.json_schema_extra
        return isinstance(extra, dict) and extra.get("resume") == "place"


def leaves(model: type[Config]) -> dict[str, Leaf]:
    """All settings of a configuration model by leaf name, in the order of declaration.

    Raises:
        ValueError: two leaves share a name or an alias (a mistake in the declaration).
    """
    declared: dict[str, Leaf] = {}
    names: set[str] = set()

    def walk(current: type[Config], path: tuple[str, ...]) -> None:
        for name, field in current.model_fields.items():
            if isinstance(field.annotation, type) and issubclass(field.annotation, Config):
                walk(field.annotation, (*path, name))
                continue
            leaf = Leaf(name, (*path, name), field)
            for own in (name, *leaf.aliases):
                if own in names:
                    raise ValueError(f"{model.__name__} declares the leaf {own!r} twice: flags must be unique")
                names.add(own)
            declared[name] = leaf

    walk(model, ())
    return declared


def leaf_named(known: Mapping[str, Leaf], name: str) -> Leaf | None:
    """The leaf of that name, alias or flag; None where there is none."""
    plain = name.removeprefix("--").replace("-", "_")
    return known.get(plain) or next((leaf for leaf in known.values() if plain in leaf.aliases), None)
