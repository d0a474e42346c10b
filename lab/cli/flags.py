"""Flags of a command, made from a configuration model.

Every leaf of the model becomes one flag of the same name: ``data.batch_size`` is ``--batch-size`` (and
``--batch_size``), a bool also has ``--no-...``, a list takes several values, a dict JSON or a Python literal. Help and
default come from the declaration, and each group of the model is a group in the help. The value is read by the leaf's
own type and bounds, so a wrong one is refused by its flag before anything starts. Only what was really given reaches
the command.
"""

from __future__ import annotations

import ast
import inspect
import json
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from cyclopts import Group, Parameter, Token
from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic_core import PydanticUndefined

from hrm_engine.config import Config, Leaf, build_config, leaves
from hrm_engine.config.reasons import reason
from lab.cli.parameters import WITH_ALL_FLAGS

Titles = Mapping[str, str | Group]
NOTHING = "none"
SELF = ""


@dataclass(frozen=True)
class Common:
    """The flags that most command lines need, in a group of their own."""

    group: Group
    names: frozenset[str]


_FINITE = ConfigDict(allow_inf_nan=False)


def config_flags(
    model: type[Config], groups: Titles | None = None, *, common: Common | None = None
) -> Callable[[Callable[..., int]], Callable[..., int]]:
    """Give a command one keyword for each leaf of ``model``.

    The command gets the built configuration as ``settings`` if it has such a parameter, else what was given in its
    ``**given``. Leaves without default are required, but where the command takes a preset (``config``), which can
    bring them.

    Args:
        model: the configuration; a leaf stands in the group that declares it.
        groups: titles of the groups by their field name, in the order of the help; those it does not have are left
            out. By default they are called as their fields, in the order of declaration. Leaves of the model itself
            stand in the group ``SELF``, by default with the command's own.
        common: a group that comes first, and the leaves that stand there, beside those without default. Help shows the
            others only after ``--help-all``.
    """

    def decorate(command: Callable[..., int]) -> Callable[..., int]:
        signature = inspect.signature(command, eval_str=True)
        names = leaves(model) if "settings" in signature.parameters else ()

        def run(*words: Any, **values: Any) -> int:
            if names:
                given = {name: values.pop(name) for name in names if name in values}
                values["settings"] = build_config(model, overrides=given, typed=True)
            return command(*words, **values)

        own = [
            item
            for item in signature.parameters.values()
            if item.name != "settings" and item.kind is not item.VAR_KEYWORD
        ]
        run.__name__, run.__doc__ = command.__name__, command.__doc__
        made = _parameters(model, groups, common, presets="config" in signature.parameters)
        # a preset is named before what goes on top of it; flags such as --json come last
        last = [item for item in own if item.kind is item.KEYWORD_ONLY and "config" not in signature.parameters]
        first = [item for item in own if item not in last]
        run.__signature__ = signature.replace(parameters=[*first, *made, *last])  # type: ignore[attr-defined]
        return run

    return decorate


def _parameters(
    model: type[Config], groups: Titles | None, common: Common | None, *, presets: bool
) -> list[inspect.Parameter]:
    models = _group_models(model)
    titles = groups or {name: name.replace("_", " ").capitalize() for name in models if name != SELF}
    sections = {
        name: title
        if isinstance(title, Group)
        else Group(title, help=(inspect.getdoc(models[name]) or "").partition("\n")[0], sort_key=position)
        for position, (name, title) in enumerate(titles.items(), start=10)
        if name in models
    }
    made = []
    for leaf in leaves(model).values():
        # What a preset can bring need not be on the command line, so even a required leaf may be left out.
        is_required = leaf.default is PydanticUndefined
        default = (inspect.Parameter.empty if not presets else None) if is_required else leaf.default
        annotation = leaf.annotation | None if is_required else leaf.annotation
        group, is_shown = sections.get([SELF, *leaf.path][-2]), True
        if common is not None:
            if is_required or leaf.name in common.names:
                group = common.group
            else:
                is_shown = WITH_ALL_FLAGS.get()
        described = Annotated[annotation, _described(leaf, group, is_shown=is_shown)]
        made.append(inspect.Parameter(leaf.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=described))
    return made


def _group_models(model: type[Config]) -> dict[str, type[Config]]:
    """The groups of a configuration by their field name, inner ones after those that they are in."""
    models: dict[str, type[Config]] = {SELF: model}
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Config):
            models |= {name: field.annotation, **_group_models(field.annotation)}
    return {**models, SELF: model}


def _described(leaf: Leaf, group: Group | None, *, is_shown: bool) -> Parameter:
    is_dict = _holds(leaf.annotation, dict)
    return Parameter(
        **({} if group is None else {"group": group}),
        help=leaf.description,
        show=None if is_shown else False,
        alias=[f"--{name.replace('_', '-')}" for name in leaf.aliases],
        negative=_negatives(leaf),
        show_default=_shown if leaf.default not in (None, (), PydanticUndefined) else False,
        allow_leading_hyphen=leaf.is_free_text,
        # a value that may begin with a hyphen would take the flags behind it
        consume_multiple=None if leaf.is_free_text else _holds(leaf.annotation, tuple) or None,
        converter=None if _is_switch(leaf.annotation) else _reader(leaf),
        # a dict is one token, which is read as a whole
        n_tokens=1 if is_dict else None,
        accepts_keys=False if is_dict else None,
    )


def _reader(leaf: Leaf) -> Callable[[Any, Sequence[Token]], Any]:
    """Read by the leaf's type and bounds; ``none`` is no value, where the leaf allows it."""

    def read(type_: Any, tokens: Sequence[Token]) -> Any:
        text = tokens[0].value
        if text.lower() == NOTHING and type(None) in typing.get_args(leaf.annotation):
            return None
        # its bounds alone: with the field there would come a default that may follow other settings
        declared: TypeAdapter[Any] = TypeAdapter(
            Annotated[(leaf.annotation, leaf.name, *leaf.field.metadata)], config=_FINITE
        )
        try:
            if _holds(leaf.annotation, dict):
                return declared.validate_python(_literal(text))
            if _holds(leaf.annotation, tuple):
                return declared.validate_python([token.value for token in tokens])
            numbers = _numbers_of(leaf.annotation)
            return numbers[text] if text in numbers else declared.validate_strings(text)
        except ValidationError as error:
            raise ValueError(" or ".join(dict.fromkeys(map(reason, error.errors())))) from error

    return read


def _numbers_of(annotation: Any) -> dict[str, Any]:
    """The numbers that a ``Literal`` allows by how they are written, which pydantic does not read from text."""
    parts = [part for part in (annotation, *typing.get_args(annotation)) if typing.get_origin(part) is typing.Literal]
    return {str(value): value for part in parts for value in typing.get_args(part) if isinstance(value, int)}


def _literal(text: str) -> Any:
    """A value written as JSON or as a Python literal; neither executes anything. Raises ValueError."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        pass
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError) as error:
        raise ValueError("write it as JSON or as a Python literal, such as '{\"name\": 1}'") from error


def _negatives(leaf: Leaf) -> list[str] | None:
    """``--no-NAME`` of a switch, and for ``use_NAME`` the short one as well; None: as the library makes it."""
    if _holds(leaf.annotation, tuple):
        return []
    if not _is_switch(leaf.annotation) or not leaf.name.startswith("use_"):
        return None
    name = leaf.name.replace("_", "-")
    return [f"--no-{name}", f"--no-{name.removeprefix('use-')}"]


def _shown(value: Any) -> str:
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else str(value)


def _is_switch(annotation: Any) -> bool:
    return annotation is bool or (bool in typing.get_args(annotation))


def _holds(annotation: Any, kind: type) -> bool:
    """Whether values are of this container, or may be."""
    return any(typing.get_origin(part) is kind for part in (annotation, *typing.get_args(annotation)))
