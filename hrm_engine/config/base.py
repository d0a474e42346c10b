"""How every configuration of the lab is declared, found by its flag names, and built.

A configuration is a frozen pydantic model whose fields are *groups* (other models) of *leaves*. Leaf names are unique
in a configuration, because they are the flags: ``run.batch_size`` is ``--batch-size``. Command line, YAML presets and
notebook parameters all go through :func:`build_config`, so a value means the same everywhere.
"""

from __future__ import annotations

import difflib
import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from operator import getitem
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import PydanticCustomError

from hrm_engine.config.reasons import field_problems, problems_of, shown
from hrm_engine.errors import ConfigError, HRMError
from hrm_engine.reading import load_yaml

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

PRESETS = Path(__file__).parent / "presets"


class Config(BaseModel):
    """Base of all configuration models: frozen, unknown fields refused, values checked when built."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False)

    kind: ClassVar[str] = ""
    """Of the training that it configures (:mod:`hrm_engine.config.kinds`); empty: it is no training's."""


C = TypeVar("C", bound=Config)
M = TypeVar("M", bound=BaseModel)


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


def given_leaves(model: type[Config], content: Mapping[str, Any]) -> dict[str, Any]:
    """What the content of a preset says, by leaf name; :func:`build_config` refuses what else stands in it."""
    return _read(model, content)[0]


def _read(model: type[Config], content: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The settings of a preset by leaf name, and what is none where it stands.

    A preset has groups of leaves, or leaves by their flag names (``batch-size: 8``), or both.
    """
    known = leaves(model)
    grouped, single, unknown = dict[str, Any](), dict[str, Any](), dict[str, Any]()
    for key, value in content.items():
        if key in model.model_fields and isinstance(value, Mapping):
            for name, setting in value.items():
                leaf = leaf_named(known, str(name))
                if leaf is not None and leaf.path[0] == key:
                    grouped[leaf.name] = setting
                else:
                    unknown.setdefault(key, {})[name] = setting
        elif leaf := leaf_named(known, str(key)):
            single[leaf.name] = value
        else:
            unknown[key] = value
    return {**grouped, **single}, unknown


def load_preset(name_or_file: str | Path, model: type[Config] | None = None) -> dict[str, Any]:
    """Read a training configuration in YAML, by the name of a shipped preset or by path.

    Args:
        model: the training it is for; a message names its presets only.

    Raises:
        ConfigError: no such preset or file, it is for another training, or not a mapping in plain YAML (tags that build
            objects are refused).
    """
    path = Path(name_or_file)
    if path.suffix not in {".yaml", ".yml"}:
        path = PRESETS / f"{name_or_file}.yaml"
    if not path.is_file():
        raise ConfigError(
            f"--config {name_or_file}: no such preset or YAML file. Presets: {', '.join(presets_of(model))}"
        )
    content = load_yaml(path, ConfigError)
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: expected a mapping of configuration groups, found {type(content).__name__}")
    if model is not None:
        _check_kind(model, content, f"--config {name_or_file}")
    return content


def _check_kind(model: type[Config], preset: Mapping[str, Any], place: str) -> None:
    if not is_preset_for(model, preset):
        raise ConfigError(
            f"{place} is for a training of kind {shown(preset['kind'])}, and this one is of kind {model.kind}: "
            f"presets for it are {', '.join(presets_of(model)) or 'not shipped'}"
        )


def presets_of(model: type[Config] | None) -> list[str]:
    """Names of the shipped presets, all of them or those for a training configuration."""
    names = sorted(path.stem for path in PRESETS.glob("*.yaml"))
    return [name for name in names if model is None or is_preset_for(model, load_preset(name))]


def is_preset_for(model: type[Config], preset: Mapping[str, Any]) -> bool:
    """Whether a preset is for this training configuration, or one that it is a special case of."""
    return preset.get("kind", model.kind) in {base.kind for base in model.__mro__ if issubclass(base, Config)}


def build_config(
    model: type[C],
    *,
    preset: str | Path | Mapping[str, Any] | None = None,
    overrides: Mapping[str, Any] | None = None,
    typed: bool = False,
) -> C:
    """Build a configuration from a preset (name, file or nested mapping) with leaf values on top.

    Args:
        typed: somebody typed each of the overrides; else one with its default is as good as not given.

    Raises:
        ConfigError: unknown names (near matches are listed), wrong types, values out of bounds, fields that do not fit
            together. All problems are named at once, each by its flag. An override that would do nothing beside the
            other settings.
    """
    known, tree, given = leaves(model), dict[str, Any](), dict[str, Any]()
    if preset is not None:
        nested = dict(preset) if isinstance(preset, Mapping) else load_preset(preset, model)
        _check_kind(model, nested, "the preset")
        nested.pop("kind", None)
        given, tree = _read(model, nested)
    overrides = {_known_leaf(known, name).name: value for name, value in (overrides or {}).items()}
    meant = {name for name, value in overrides.items() if typed or value != known[name].default}
    given = {
        name: value
        for name, value in given.items()
        if known[name].belongs_to not in overrides and known[name].in_place_of not in meant
    }
    for name, value in {**given, **overrides}.items():
        branch = tree
        for part in known[name].path[:-1]:
            branch = branch.setdefault(part, {})
            if not isinstance(branch, dict):
                raise ConfigError(f"{part}: expected a group of settings (given: {branch!r})")
        branch[name] = value
    for leaf in known.values():  # so that what is missing is named by its flag, not by the group that was not given
        if len(leaf.path) > 1:
            tree.setdefault(leaf.path[0], {})
    try:
        config = model.model_validate(tree)
    except ValidationError as error:
        raise ConfigError(_explain(error, model, beside_preset=bool(preset))) from error
    chosen = (known[name] for name in overrides if typed or known[name].value(config) != known[name].default)
    problems: dict[str, list[str]] = {}
    for leaf in chosen:
        if need := next((need for need in leaf.needs if not need.is_met(config, known)), None):
            problems.setdefault(need.sentence, []).append(leaf.flag)
    if problems:
        raise ConfigError("; ".join(f"{' and '.join(flags)} {sentence}" for sentence, flags in problems.items()))
    return config


def validated(model: type[M], content: object, error: type[HRMError], where: str) -> M:
    """``content`` as a model; ``error`` says ``where``, and every field that is wrong with the reason."""
    try:
        return model.model_validate(content)
    except ValidationError as problem:
        raise error(f"{where}: {field_problems(problem)}") from problem


def _known_leaf(known: Mapping[str, Leaf], name: str) -> Leaf:
    if leaf := leaf_named(known, name):
        return leaf
    near = difflib.get_close_matches(name, known, n=3)
    hint = f" Did you mean {', '.join(near)}?" if near else ""
    raise ConfigError(f"unknown setting {name!r}.{hint}")


def flat(config: Config) -> dict[str, Any]:
    """The leaf values of a configuration by leaf name (JSON types)."""
    dumped: Any = config.model_dump(mode="json")
    return {leaf.name: functools.reduce(getitem, leaf.path, dumped) for leaf in leaves(type(config)).values()}


def _explain(error: ValidationError, model: type[Config], *, beside_preset: bool) -> str:
    known = leaves(model)
    problems: list[tuple[str, ErrorDetails]] = []
    missing: list[Leaf] = []
    for problem in error.errors():
        if problem["type"] == "default_factory_not_called":  # it follows a setting that is wrong, which is named
            continue
        where = [str(part) for part in problem["loc"]]
        name = next((part for part in where if part in known), None)
        if name is not None and problem["type"] == "missing":
            missing.append(known[name])
            continue
        # a check of a whole group names the flags that it is about
        label = known[name].flag if name else "" if problem["type"] == "value_error" else ".".join(where)
        problems.append((label, problem))
    sentences = [problems_of(problems)] if problems else []
    if missing:
        presets = [] if beside_preset else presets_of(model)
        or_preset = f" or --config {presets[0]}" if len(presets) == 1 else ""
        or_preset = f", or a preset by --config: {', '.join(presets)}" if len(presets) > 1 else or_preset
        sentences.append(f"Give {' and '.join(f'{leaf.flag} {leaf.value_name}' for leaf in missing)}{or_preset}")
    return "; ".join(sentences)
