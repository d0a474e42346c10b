"""How every configuration of the lab is declared, found by its flag names, and built.

A configuration is a frozen pydantic model whose fields are *groups* (other models) of *leaves*. Leaf names are unique
in a configuration, because they are the flags: ``run.batch_size`` is ``--batch-size``. Command line, YAML presets and
notebook parameters all go through :func:`build_config`, so a value means the same everywhere.
"""

from __future__ import annotations

import difflib
import functools
from collections.abc import Mapping
from operator import getitem
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel, ValidationError

from hrm_engine.config.leaf import (
    Alias,
    BelongsTo,
    Config,
    Form,
    FreeText,
    InPlaceOf,
    Leaf,
    Needs,
    flag_of,
    leaf_named,
    leaves,
    written_as,
)
from hrm_engine.config.reasons import field_problems, problems_of, shown
from hrm_engine.errors import ConfigError, HRMError
from hrm_engine.reading import load_yaml

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

__all__ = [
    "PRESETS",
    "Alias",
    "BelongsTo",
    "Config",
    "Form",
    "FreeText",
    "InPlaceOf",
    "Leaf",
    "Needs",
    "build_config",
    "field_problems",
    "flag_of",
    "flat",
    "given_leaves",
    "is_preset_for",
    "leaf_named",
    "leaves",
    "load_preset",
    "presets_of",
    "validated",
    "written_as",
]

PRESETS = Path(__file__).parent / "presets"


C = TypeVar("C", bound=Config)
M = TypeVar("M", bound=BaseModel)


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
            f"--config {shown(str(name_or_file))}: no such preset or YAML file. Presets: {', '.join(presets_of(model))}"
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
