"""Flags of a command, made from a configuration model.

Every leaf of the model becomes one flag of the same name: ``data.batch_size`` is ``--batch-size`` (and
``--batch_size``), a bool also has ``--no-...``, help and default come from the declaration, and each group of the
model is a group in the help. The value is read by the leaf's own type and bounds, so a wrong one is refused by its
flag before anything starts. Only what was really given reaches the command.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

from cyclopts import Group, Parameter, Token
from pydantic import TypeAdapter, ValidationError
from pydantic_core import PydanticUndefined

from hrm_engine.config import Config, Leaf, leaves

NOTHING = "none"


def config_flags(model: type[Config], groups: Mapping[str, str]) -> Callable[[Callable[..., int]], Callable[..., int]]:
    """Replace a command's ``**given`` by one keyword for each leaf of ``model``.

    Args:
        model: the configuration; its groups are the first part of each leaf's path.
        groups: titles of the groups by their field name, in the order of the help; those it does not have are left out.
    """

    def decorate(command: Callable[..., int]) -> Callable[..., int]:
        def run(**values: Any) -> int:
            return command(**values)

        signature = inspect.signature(command, eval_str=True)
        own = [item for item in signature.parameters.values() if item.kind is not inspect.Parameter.VAR_KEYWORD]
        run.__name__, run.__doc__ = command.__name__, command.__doc__
        run.__signature__ = signature.replace(  # type: ignore[attr-defined]
            parameters=[*own, *_parameters(model, groups)]
        )
        return run

    return decorate


def _parameters(model: type[Config], groups: Mapping[str, str]) -> list[inspect.Parameter]:
    sections = {
        name: Group(title, help=_first_line(model, name), sort_key=position)
        for position, (name, title) in enumerate(groups.items(), start=10)
        if name in model.model_fields
    }
    return [
        inspect.Parameter(
            leaf.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=None if leaf.default is PydanticUndefined else leaf.default,
            annotation=Annotated[_accepted(leaf), _described(leaf, sections[leaf.path[0]])],
        )
        for leaf in leaves(model).values()
    ]


def _accepted(leaf: Leaf) -> Any:
    # What a preset can bring need not be on the command line, so even a required leaf may be left out here.
    return leaf.annotation if leaf.default is not PydanticUndefined else leaf.annotation | None


def _described(leaf: Leaf, group: Group) -> Parameter:
    return Parameter(
        group=group,
        help=leaf.description,
        negative=_negatives(leaf),
        show_default=_shown if leaf.default not in (None, PydanticUndefined) else False,
        converter=None if _is_switch(leaf.annotation) else _reader(leaf),
    )


def _reader(leaf: Leaf) -> Callable[[Any, Sequence[Token]], Any]:
    """Read one token by the leaf's type and bounds; ``none`` is no value, where the leaf allows it."""

    def read(type_: Any, tokens: Sequence[Token]) -> Any:
        text = tokens[0].value
        if text.lower() == NOTHING and type(None) in typing.get_args(leaf.annotation):
            return None
        # its bounds alone: with the field there would come a default that may follow other settings
        declared: TypeAdapter[Any] = TypeAdapter(Annotated[(leaf.annotation, leaf.name, *leaf.field.metadata)])
        try:
            return declared.validate_strings(text)
        except ValidationError as error:
            problems = dict.fromkeys(problem["msg"] for problem in error.errors())
            raise ValueError(f"{' or '.join(problems)} (given: {text!r})") from error

    return read


def _negatives(leaf: Leaf) -> list[str] | None:
    """``--no-NAME`` of a switch, and for ``use_NAME`` the short one as well; None: as the library makes it."""
    if not _is_switch(leaf.annotation) or not leaf.name.startswith("use_"):
        return None
    name = leaf.name.replace("_", "-")
    return [f"--no-{name}", f"--no-{name.removeprefix('use-')}"]


def _shown(value: Any) -> str:
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else str(value)


def _is_switch(annotation: Any) -> bool:
    return annotation is bool or (bool in typing.get_args(annotation))


def _first_line(model: type[Config], group: str) -> str:
    inner = model.model_fields[group].annotation
    return (inspect.getdoc(inner) or "").partition("\n")[0] if inner else ""
