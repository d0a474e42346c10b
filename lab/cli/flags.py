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
from typing import Annotated, Any

from cyclopts import Group, Parameter, Token
from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic_core import PydanticUndefined

from hrm_engine.config import Config, Leaf, leaves

Titles = Mapping[str, str | Group]
NOTHING = "none"
SELF = ""
_FINITE = ConfigDict(allow_inf_nan=False)


def config_flags(
    model: type[Config], groups: Titles | None = None
) -> Callable[[Callable[..., int]], Callable[..., int]]:
    """Replace a command's ``**given`` by one keyword for each leaf of ``model``.

    Leaves without default are required, but where the command takes a preset (``config``), which can bring them.

    Args:
        model: the configuration; a leaf stands in the group that declares it.
        groups: titles of the groups by their field name, in the order of the help; those it does not have are left
            out. By default they are called as their fields, in the order of declaration. Leaves of the model itself
            stand in the group ``SELF``, by default with the command's own.
    """

    def decorate(command: Callable[..., int]) -> Callable[..., int]:
        def run(*words: Any, **values: Any) -> int:
            return command(*words, **values)

        signature = inspect.signature(command, eval_str=True)
        own = [item for item in signature.parameters.values() if item.kind is not inspect.Parameter.VAR_KEYWORD]
        run.__name__, run.__doc__ = command.__name__, command.__doc__
        made = _parameters(model, groups, presets="config" in signature.parameters)
        # a preset is named before what goes on top of it; flags such as --json come last
        last = [item for item in own if item.kind is item.KEYWORD_ONLY and "config" not in signature.parameters]
        first = [item for item in own if item not in last]
        run.__signature__ = signature.replace(parameters=[*first, *made, *last])  # type: ignore[attr-defined]
        return run

    return decorate


def taken(model: type[Config], given: dict[str, Any]) -> dict[str, Any]:
    """Take the leaves of ``model`` out of what a command was given, and return them."""
    return {name: given.pop(name) for name in leaves(model) if name in given}


def _parameters(
    model: type[Config], groups: Mapping[str, str | Group] | None, *, presets: bool
) -> list[inspect.Parameter]:
    models = _group_models(model)
    titles = groups or {name: name.replace("_", " ").capitalize() for name in models if name != SELF}
    sections = {
        name: title if isinstance(title, Group) else Group(title, help=_first_line(models[name]), sort_key=position)
        for position, (name, title) in enumerate(titles.items(), start=10)
        if name in models
    }
    return [
        inspect.Parameter(
            leaf.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=inspect.Parameter.empty if _is_required(leaf) and not presets else _default(leaf),
            annotation=Annotated[_accepted(leaf), _described(leaf, sections.get([SELF, *leaf.path][-2]))],
        )
        for leaf in leaves(model).values()
    ]


def _group_models(model: type[Config]) -> dict[str, type[Config]]:
    """The groups of a configuration by their field name, inner ones after those that they are in."""
    models: dict[str, type[Config]] = {SELF: model}
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Config):
            models |= {name: field.annotation, **_group_models(field.annotation)}
    return {**models, SELF: model}


def _is_required(leaf: Leaf) -> bool:
    return leaf.default is PydanticUndefined


def _default(leaf: Leaf) -> Any:
    return None if _is_required(leaf) else leaf.default


def _accepted(leaf: Leaf) -> Any:
    # What a preset can bring need not be on the command line, so even a required leaf may be left out.
    return leaf.annotation | None if _is_required(leaf) else leaf.annotation


def _described(leaf: Leaf, group: Group | None) -> Parameter:
    return Parameter(
        **({} if group is None else {"group": group}),
        help=leaf.description,
        alias=[f"--{name.replace('_', '-')}" for name in leaf.aliases],
        negative=_negatives(leaf),
        show_default=_shown if leaf.default not in (None, (), PydanticUndefined) else False,
        allow_leading_hyphen=leaf.is_free_text,
        # a value that may begin with a hyphen would take the flags behind it
        consume_multiple=None if leaf.is_free_text else _is_list(leaf.annotation) or None,
        converter=None if _is_switch(leaf.annotation) else _reader(leaf),
        # a dict is one token, which is read as a whole
        n_tokens=1 if _is_dict(leaf.annotation) else None,
        accepts_keys=False if _is_dict(leaf.annotation) else None,
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
            if _is_dict(leaf.annotation):
                return declared.validate_python(_literal(text))
            if _is_list(leaf.annotation):
                text = " ".join(token.value for token in tokens)
                return declared.validate_python([token.value for token in tokens])
            numbers = _numbers_of(leaf.annotation)
            return numbers[text] if text in numbers else declared.validate_strings(text)
        except ValidationError as error:
            problems = dict.fromkeys(problem["msg"] for problem in error.errors())
            raise ValueError(f"{' or '.join(problems)} (given: {text!r})") from error

    return read


def _numbers_of(annotation: Any) -> dict[str, Any]:
    """The numbers that a ``Literal`` allows by how they are written, which pydantic does not read from text."""
    parts = [part for part in (annotation, *typing.get_args(annotation)) if typing.get_origin(part) is typing.Literal]
    return {str(value): value for part in parts for value in typing.get_args(part) if isinstance(value, int)}


def _literal(text: str) -> Any:
    """A value written as JSON or as a Python literal; neither executes anything. Raises ValueError."""
    try:
        return json.loads(text)
    except ValueError:
        pass
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError) as error:
        raise ValueError(f"neither JSON nor a Python literal, such as '{{\"name\": 1}}' (given: {text!r})") from error


def _negatives(leaf: Leaf) -> list[str] | None:
    """``--no-NAME`` of a switch, and for ``use_NAME`` the short one as well; None: as the library makes it."""
    if _is_list(leaf.annotation):
        return []
    if not _is_switch(leaf.annotation) or not leaf.name.startswith("use_"):
        return None
    name = leaf.name.replace("_", "-")
    return [f"--no-{name}", f"--no-{name.removeprefix('use-')}"]


def _shown(value: Any) -> str:
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else str(value)


def _is_switch(annotation: Any) -> bool:
    return annotation is bool or (bool in typing.get_args(annotation))


def _is_dict(annotation: Any) -> bool:
    return any(typing.get_origin(part) is dict for part in (annotation, *typing.get_args(annotation)))


def _is_list(annotation: Any) -> bool:
    return any(typing.get_origin(part) is tuple for part in (annotation, *typing.get_args(annotation)))


def _first_line(model: type[Config]) -> str:
    return (inspect.getdoc(model) or "").partition("\n")[0]
