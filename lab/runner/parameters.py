"""Typed parameters of a notebook: read from its ``parameters`` cell, checked before a kernel starts.

The cell holds assignments with literal defaults and nothing else::

    steps: int = 300                        # comment
    lr: float = 1.5e-3
    brain_name: str | None = None
    schedule: Literal["cosine", "linear"] = "cosine"

It is parsed, never executed. Without an annotation the default's own type holds. A text value (from the command line)
is read by the declared type; a value of another type is refused, except whole numbers where a float is wanted.
"""

from __future__ import annotations

import ast
import difflib
import json
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, TypeAdapter, ValidationError

from hrm_engine.config.reasons import WHOLE_NUMBER, reason, shown
from hrm_engine.errors import NotebookError
from hrm_engine.reading import told_by

TAG = "parameters"

_PLAIN: dict[str, Any] = {kind.__name__: kind for kind in (int, float, str, bool, list, dict)}


@dataclass(frozen=True)
class Parameter:
    """One parameter: its type as written, and the default that the notebook gives."""

    name: str
    annotation: Any
    type_name: str
    default: Any
    comment: str = ""


def read_parameters(notebook: Mapping[str, Any], where: str = "notebook") -> dict[str, Parameter]:
    """The parameters that a notebook declares, by name; none if it has no cell tagged ``parameters``.

    Args:
        notebook: the notebook as JSON (or a NotebookNode).
        where: its name, for messages.

    Raises:
        NotebookError: several such cells; the cell does not parse, or holds more than assignments of literals; a
            default does not fit its own type.
    """
    cells = [
        (number, cell)
        for number, cell in enumerate(notebook.get("cells", ()), start=1)
        if cell.get("cell_type") == "code" and TAG in cell.get("metadata", {}).get("tags", ())
    ]
    if not cells:
        return {}
    if len(cells) > 1:
        numbers = ", ".join(str(number) for number, _ in cells)
        raise NotebookError(f"{where}: cells {numbers} are all tagged '{TAG}'; keep the tag on one of them")
    number, cell = cells[0]
    source = cell.get("source", "")
    place = f"{where}, cell {number}"
    # what nests without end or has unhashable keys fails in many ways
    with told_by(lambda why: NotebookError(f"{place}: the parameters cannot be read: {why}")):
        return _parse("".join(source) if isinstance(source, list) else source, place)


def check_values(declared: Mapping[str, Parameter], given: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The values of ``given`` in their declared types.

    Raises:
        NotebookError: names that the notebook does not declare (near ones are listed) and values that do not fit; all
            problems are named at once.
    """
    values: dict[str, Any] = {}
    problems: list[str] = []
    for name, value in given.items():
        if name not in declared:
            problems.append(_unknown(name, declared))
            continue
        try:
            values[name] = convert(declared[name].annotation, value)
        except ValueError as error:
            problems.append(f"-p {name}={shown(value)}: {error} (declared as {declared[name].type_name})")
    if problems:
        raise NotebookError(f"{where}: " + "; ".join(problems))
    return values


def convert(annotation: Any, value: Any) -> Any:
    """``value`` as ``annotation``; text is read, other values must have the type already. Raises ValueError.

    ``None`` and ``null`` are no text where there may be nothing.
    """
    adapter = TypeAdapter(_exact(annotation), config=ConfigDict(allow_inf_nan=False))
    members = typing.get_args(annotation) if _is_union(annotation) else (annotation,)
    try:
        if value in ("None", "null") and type(None) in members:
            return None
        if not isinstance(value, str) or str in members:
            return adapter.validate_python(value, strict=True)
        if {list, dict} & {typing.get_origin(member) or member for member in members}:
            return adapter.validate_python(json.loads(value), strict=True)
        return adapter.validate_strings(value)
    except RecursionError as error:
        raise ValueError("it is nested too deep") from error
    except json.JSONDecodeError as error:
        raise ValueError(f'write it as JSON, like [1, 2] or {{"a": 1}} ({error.msg})') from error
    except ValidationError as error:
        raise ValueError(" or ".join(dict.fromkeys(map(reason, error.errors())))) from error


def _parse(source: str, where: str) -> dict[str, Parameter]:
    try:
        tree = ast.parse(source)
    except SyntaxError as error:
        raise NotebookError(f"{where}, line {error.lineno}: the parameters do not parse: {error.msg}") from error
    except (ValueError, RecursionError, MemoryError) as error:  # a NUL character; brackets nested without end
        raise NotebookError(f"{where}: the parameters do not parse: {error}") from error
    lines = source.splitlines()
    declared: dict[str, Parameter] = {}
    for statement in tree.body:
        if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
            continue  # a text that explains the cell
        place = f"{where}, line {statement.lineno}"
        parameter = _declaration(statement, place, _comment(lines, statement))
        if parameter.name in declared:
            raise NotebookError(f"{place}: {parameter.name} is declared twice")
        declared[parameter.name] = parameter
    return declared


def _declaration(statement: ast.stmt, where: str, comment: str) -> Parameter:
    target: ast.expr | None = None
    if isinstance(statement, ast.AnnAssign):
        target = statement.target
    elif isinstance(statement, ast.Assign) and len(statement.targets) == 1:
        target = statement.targets[0]
    if not isinstance(target, ast.Name) or not isinstance(statement, ast.Assign | ast.AnnAssign):
        raise NotebookError(f"{where}: a parameters cell holds only lines like 'steps: int = 300'")
    if statement.value is None:
        raise NotebookError(f"{where}: {target.id} has no default; give one")
    try:
        default = ast.literal_eval(statement.value)
    except ValueError as error:
        message = f"{where}: the default of {target.id} is not a literal; compute it in a later cell"
        raise NotebookError(message) from error
    if isinstance(statement, ast.Assign):
        if default is None:
            raise NotebookError(f"{where}: write the type of {target.id}, for example '{target.id}: str | None = None'")
        if type(default) not in _PLAIN.values():
            raise NotebookError(f"{where}: the default of {target.id} is a {type(default).__name__}, no value of JSON")
        return Parameter(target.id, type(default), type(default).__name__, default, comment)
    annotation = _type(statement.annotation, where)
    try:
        # A whole number as the default of a float arrives in the notebook as it is written.
        convert(annotation, default)
    except ValueError as error:
        raise NotebookError(f"{where}: the default of {target.id} is not of its type: {error}") from error
    return Parameter(target.id, annotation, ast.unparse(statement.annotation), default, comment)


def _type(node: ast.expr, where: str) -> Any:
    """The type that an annotation names, from a fixed list; nothing is evaluated."""
    if isinstance(node, ast.Constant) and node.value is None:
        return None
    if isinstance(node, ast.Name) and node.id in _PLAIN:
        return _PLAIN[node.id]
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        return typing.Union[_type(node.left, where), _type(node.right, where)]  # noqa: UP007  (may be None)
    if isinstance(node, ast.Subscript):
        name = node.value.attr if isinstance(node.value, ast.Attribute) else getattr(node.value, "id", "")
        inner = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
        if name == "Literal" and all(isinstance(item, ast.Constant) for item in inner):
            return Literal[tuple(item.value for item in inner if isinstance(item, ast.Constant))]
        if name == "Optional" and len(inner) == 1:
            return typing.Optional[_type(inner[0], where)]  # noqa: UP045
        if name == "list" and len(inner) == 1:
            return list[_type(inner[0], where)]  # type: ignore[misc]
        if name == "dict" and len(inner) == 2:
            return dict[_type(inner[0], where), _type(inner[1], where)]  # type: ignore[misc]
    known = "int, float, str, bool, list[...], dict[..., ...], Literal[...], and these with '| None'"
    raise NotebookError(f"{where}: the type {ast.unparse(node)!r} is not one of {known}")


def _exact(annotation: Any) -> Any:
    """``int`` without pydantic's reading of '3.0' as 3: a float is no whole number, whatever its value."""
    if annotation is int:
        return Annotated[int, BeforeValidator(_whole)]
    arguments = typing.get_args(annotation)
    if not arguments or typing.get_origin(annotation) is Literal:
        return annotation
    exact = tuple(_exact(argument) for argument in arguments)
    if _is_union(annotation):
        return typing.Union[exact]  # noqa: UP007  (built from a tuple)
    return typing.get_origin(annotation)[exact]


def _whole(value: Any) -> Any:
    if isinstance(value, str) and not value.strip().lstrip("+-").replace("_", "").isdigit():
        raise ValueError(WHOLE_NUMBER)
    return value


def _is_union(annotation: Any) -> bool:
    return typing.get_origin(annotation) in (typing.Union, types.UnionType)


def _comment(lines: list[str], statement: ast.stmt) -> str:
    """What stands behind the statement on its last line."""
    line = lines[(statement.end_lineno or statement.lineno) - 1]
    # The offset counts bytes of UTF-8.
    rest = line.encode()[statement.end_col_offset or 0 :].decode(errors="replace")
    return rest.partition("#")[2].strip()


def _unknown(name: str, declared: Mapping[str, Parameter]) -> str:
    if not declared:
        return f"{name!r}: this notebook takes no parameters (no cell is tagged '{TAG}')"
    near = difflib.get_close_matches(name, declared, n=3)
    hint = f"did you mean {', '.join(near)}?" if near else f"it takes {', '.join(declared)}"
    return f"unknown parameter {name!r}: {hint}"
