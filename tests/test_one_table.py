"""What kind of training something is, is asked of the table of kinds and of the task, nowhere else."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from pkgutil import walk_packages
from typing import Any

import pytest

import hrm_engine.config
import hrm_engine.training.tasks
from hrm_engine.config import Config, PuzzleTrainConfig, kinds
from hrm_engine.training.task import Task

ROOT = Path(__file__).parents[1]
MAY_ASK = ("hrm_engine/config/", "hrm_engine/training/tasks/")
TABLE = "hrm_engine/config/kinds.py"


def sources() -> Iterator[tuple[str, ast.Module]]:
    for room in ("hrm_engine", "lab", "dashboard"):
        for path in sorted((ROOT / room).rglob("*.py")):
            yield path.relative_to(ROOT).as_posix(), ast.parse(path.read_text(encoding="utf8"))


def subclasses(base: type) -> set[str]:
    return {base.__name__}.union(*map(subclasses, base.__subclasses__()))


def words(node: ast.AST) -> set[str]:
    """Names and last parts of dotted names in an expression."""
    names = {each.id for each in ast.walk(node) if isinstance(each, ast.Name)}
    return names | {each.attr for each in ast.walk(node) if isinstance(each, ast.Attribute)}


def literals(node: ast.AST) -> set[object]:
    """Constants that a comparison or a case compares with, alone or in a literal collection."""
    if isinstance(node, ast.MatchValue):
        operands = [node.value]
    elif isinstance(node, ast.Compare):
        operands = [node.left, *node.comparators]
    else:
        return set()
    parts = [
        part
        for each in operands
        for part in (each.elts if isinstance(each, ast.Tuple | ast.List | ast.Set) else [each])
    ]
    return {part.value for part in parts if isinstance(part, ast.Constant)}


class Unregistered(PuzzleTrainConfig):
    kind = "unregistered"


def test_no_switch_on_the_type_of_a_config_a_task_or_a_core() -> None:
    for package in (hrm_engine.config, hrm_engine.training.tasks):
        for module in walk_packages(package.__path__, f"{package.__name__}."):
            import_module(module.name)
    # flags ask whether a field is a group of settings at all, which is no question of its kind
    types = (subclasses(Config) | subclasses(Task) | {"RecurrentCore", "ExpertModel"}) - {"Config"}
    assert {"TextTrainConfig", "PuzzleTask", "CoreConfig"} <= types
    switches = [
        f"{name}:{node.lineno}"
        for name, tree in sources()
        if not name.startswith(MAY_ASK)
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id in ("isinstance", "issubclass")
        and words(node.args[1]) & types
    ]
    assert switches == []


def test_no_comparison_with_the_name_of_a_kind() -> None:
    names = set(kinds.table())
    assert {"actv1", "puzzle", "expert"} <= names
    comparisons = [
        f"{name}:{node.lineno}"
        for name, tree in sources()
        if name != TABLE
        for node in ast.walk(tree)
        if names & literals(node)
    ]
    assert comparisons == []


def test_every_row_of_the_table_is_whole() -> None:
    for name, kind in kinds.table().items():
        module, task = kind.task.split(":")
        found = getattr(import_module(module), task)
        assert issubclass(found, Task)
        assert found.kind == kind.name == name
        assert kind.run.name_leaf in type(kind.run).model_fields
        assert kind.words.panels in ("text", "puzzle", "generic")
        if kind.check is not None:
            module, check = kind.check.split(":")
            assert callable(getattr(import_module(module), check))


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"task": "somewhere:Else"}, "'puzzle' is registered already, with the task hrm_engine.training.tasks.puzzle"),
        ({"config": Unregistered, "command": "actv1"}, "lab train actv1 trains the kind 'actv1' already"),
    ],
)
def test_a_name_or_a_command_that_is_taken_is_refused(changes: dict[str, Any], match: str) -> None:
    before = kinds.table()
    with pytest.raises(ValueError, match=match):
        kinds.register(replace(kinds.PUZZLE, **changes))
    assert kinds.table() == before
