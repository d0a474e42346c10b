"""Parameters are typed from the notebook's cell and refused before anything runs."""

from __future__ import annotations

import ast
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from papermill.translators import PythonTranslator

from hrm_engine.config.reasons import shown
from hrm_engine.errors import NotebookError
from lab.runner.parameters import check_values, read_parameters

CELL = '''"""What can be changed."""
steps: int = 300  # optimizer steps
lr: float = 1e-3
amp: bool = True
name: str = "brain"
seed: int | None = None
rate: float | None = None
note: str | None = None
schedule: Literal["cosine", "linear"] = "cosine"
sizes: list[int] = [1, 2]
weights: dict[str, float] = {"a": 0.5}
plain = 5
'''


def notebook(source: str, *more: str) -> dict[str, Any]:
    tagged = {"tags": ["parameters"]}
    return {"cells": [{"cell_type": "code", "source": text, "metadata": tagged} for text in (source, *more)]}


DECLARED = read_parameters(notebook(CELL))


def value(name: str, text: object) -> object:
    return check_values(DECLARED, {name: text}, "nb.ipynb")[name]


def test_types_defaults_and_comments_are_read() -> None:
    assert list(DECLARED)[:3] == ["steps", "lr", "amp"]
    assert DECLARED["steps"].type_name == "int"
    assert DECLARED["steps"].default == 300
    assert DECLARED["steps"].comment == "optimizer steps"
    assert DECLARED["seed"].type_name == "int | None"
    assert DECLARED["plain"].type_name == "int"


def test_a_notebook_without_the_cell_has_no_parameters() -> None:
    assert read_parameters({"cells": [{"cell_type": "code", "source": "x = 1", "metadata": {}}]}) == {}


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("steps", "12", 12),
        ("steps", 12, 12),
        ("lr", "1e-3", 0.001),
        ("lr", 3, 3.0),
        ("lr", "3", 3.0),
        ("amp", "False", False),
        ("amp", "true", True),
        ("name", "{x.__class__}", "{x.__class__}"),
        ("name", "5", "5"),
        ("seed", "None", None),
        ("seed", "null", None),
        ("note", "None", None),
        ("note", "none", "none"),
        ("name", "None", "None"),
        ("seed", "7", 7),
        ("rate", "0.5", 0.5),
        ("schedule", "linear", "linear"),
        ("sizes", "[3, 4]", [3, 4]),
        ("sizes", [3], [3]),
        ("weights", '{"b": 1}', {"b": 1.0}),
    ],
)
def test_values_are_read_by_their_type(name: str, text: object, expected: object) -> None:
    found = value(name, text)
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("steps", "1e3"),
        ("steps", "3.0"),
        ("steps", 3.0),
        ("steps", True),
        ("steps", "many"),
        ("lr", "nan"),
        ("lr", float("inf")),
        ("lr", "fast"),
        ("amp", "maybe"),
        ("amp", 1),
        ("name", 5),
        ("seed", "x"),
        ("schedule", "constant"),
        ("sizes", "[1.5]"),
        ("sizes", "1, 2"),
        ("weights", '{"b": "much"}'),
    ],
)
def test_other_values_are_refused_with_name_value_and_type(name: str, text: object) -> None:
    with pytest.raises(NotebookError) as caught:
        value(name, text)
    message = str(caught.value)
    assert message.startswith(f"nb.ipynb: -p {name}={shown(text)}: ")
    assert DECLARED[name].type_name in message


def test_unknown_names_are_refused_with_near_ones_and_all_problems_at_once() -> None:
    with pytest.raises(NotebookError, match=r"unknown parameter 'step'.*did you mean steps.*; -p lr=x: a number"):
        check_values(DECLARED, {"step": "3", "lr": "x"}, "nb.ipynb")
    with pytest.raises(NotebookError, match="takes no parameters"):
        check_values({}, {"steps": "3"}, "nb.ipynb")


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("import os", "holds only lines like"),
        ("steps: int = len('abc')", "not a literal"),
        ("steps: int = 10**9999999", "not a literal"),
        ("steps: int", "has no default"),
        ("steps: Foo = 1", "is not one of"),
        ("steps: os.system('x') = 1", "is not one of"),
        ("steps: int = 'a'", "not of its type"),
        ("steps: int = True", "not of its type"),
        ("a = b = 1", "holds only lines like"),
        ("a.b = 1", "holds only lines like"),
        ("a = None", "write the type"),
        ("a: int = 1\na: int = 2", "line 2: a is declared twice"),
        ("a: int = (", "do not parse"),
        ("a: int = 1\0", "do not parse"),
        ("a = " + "(" * 5000, "do not parse"),
        ("a = " + "-" * 100_000 + "1", "do not parse"),
        ("a = {[]: 1}", "cannot be read: unhashable"),
        ("a = b'bytes'", "the default of a is a bytes"),
        ("a = {1, 2}", "the default of a is a set"),
    ],
)
def test_a_cell_that_is_no_plain_declaration_is_refused(source: str, reason: str) -> None:
    with pytest.raises(NotebookError, match=reason):
        read_parameters(notebook(source), "nb.ipynb")


def test_a_cell_is_parsed_and_never_executed(tmp_path: Any) -> None:
    mark = tmp_path / "mark"
    with pytest.raises(NotebookError):
        read_parameters(notebook(f"a: int = __import__('pathlib').Path({str(mark)!r}).touch()"))
    assert not mark.exists()


def test_two_tagged_cells_are_refused() -> None:
    with pytest.raises(NotebookError, match="cells 1, 2"):
        read_parameters(notebook("a: int = 1", "b: int = 2"))


@settings(max_examples=200, deadline=None)
@given(st.text())
def test_any_text_arrives_in_the_notebook_as_it_was_given(text: str) -> None:
    checked = check_values(DECLARED, {"name": text}, "nb.ipynb")
    line = PythonTranslator.codify(checked).splitlines()[-1]
    assert ast.literal_eval(line.removeprefix("name = ")) == text
