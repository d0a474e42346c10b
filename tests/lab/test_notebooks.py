"""Notebooks hold engine calls: whatever needs a function, a class or a cache is part of the product."""

from __future__ import annotations

import ast
from pathlib import Path

import nbformat
import pytest

from lab.runner.parameters import TAG
from tests.tiny_runs import REPOSITORY

NOTEBOOKS = sorted((REPOSITORY / "notebooks").glob("*.ipynb"))


def test_the_notebooks_are_there() -> None:
    assert len(NOTEBOOKS) >= 6


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_one_cell_of_parameters_and_calls_of_the_engine(path: Path) -> None:
    cells = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    assert [TAG in cell.metadata.get("tags", ()) for cell in cells] == [True, *[False] * (len(cells) - 1)]
    nodes = [node for cell in cells for node in ast.walk(ast.parse(cell.source))]
    definitions = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
    assert [node.name for node in nodes if isinstance(node, definitions)] == []
    named = [node for node in nodes if isinstance(node, ast.Assign) and isinstance(node.value, ast.Lambda)]
    assert [ast.unparse(node) for node in named] == [], "a function by another name"
    words = {node.id for node in nodes if isinstance(node, ast.Name)}
    words |= {node.attr for node in nodes if isinstance(node, ast.Attribute)}
    modules = {node.module for node in nodes if isinstance(node, ast.ImportFrom)}
    modules |= {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    assert [word for word in words if "cache" in word.lower()] == []
    assert modules.isdisjoint({"functools", "hashlib", "pickle", "shelve", "joblib"}), "what caches are made of"
