"""Flags made from the configuration: every leaf, read by its own type, and only what was given."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

import pytest
from cyclopts import App, CycloptsError
from pydantic import Field
from pydantic_core import PydanticUndefined

from hrm_engine.config import Config, TextTrainConfig, leaves
from hrm_engine.config.base import Alias
from lab.cli.flags import config_flags
from lab.cli.usage import usage_problem


class Inner(Config):
    """One group."""

    num_rows: Annotated[int, Alias("rows"), Alias("lines_read")] = Field(1, ge=1, description="Rows.")
    kwargs: dict[str, Any] | None = Field(None, description="Keywords.")


class Toy(Config):
    """A configuration with what the trainings have not."""

    inner: Inner = Inner()


def given(*words: str, model: type[Config] = TextTrainConfig) -> dict[str, Any]:
    """What a command with these flags receives."""
    received: list[dict[str, Any]] = []
    app = App(result_action="return_value")

    @app.default
    @config_flags(model)
    def command(*, resume: bool = False, config: str | None = None, **values: Any) -> int:
        received.append(values)
        return 0

    app(list(words), exit_on_error=False, print_error=False)
    return received[0]


def test_only_what_was_given_arrives() -> None:
    assert given() == {}
    assert given("--steps", "200") == {"steps": 200}
    assert given("--resume") == {}


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--batch-size", "3"], {"batch_size": 3}),
        (["--batch_size", "3"], {"batch_size": 3}),
        (["--batch-size=3"], {"batch_size": 3}),
        (["--lr", "1e-3"], {"lr": 0.001}),
        (["--lr=5"], {"lr": 5.0}),
        (["--amp"], {"amp": True}),
        (["--no-amp"], {"amp": False}),
        (["--no_amp"], {"amp": False}),
        (["--attention-gate"], {"attention_gate": True}),
        (["--no-attention-gate"], {"attention_gate": False}),
        (["--no-linear-dataset"], {"linear_dataset": False}),
        (["--grad-calls", "3"], {"grad_calls": 3}),
        (["--grad-calls", "full"], {"grad_calls": "full"}),
        (["--arch", "hrm"], {"arch": "hrm"}),
        (["--dataset-file", "a b.txt"], {"dataset_file": Path("a b.txt")}),
        (["--eval-file", "none"], {"eval_file": None}),
        (["--window-size", "None"], {"window_size": None}),
        (["--document-separator=--"], {"document_separator": "--"}),
        (["--brain-name", "[red]x"], {"brain_name": "[red]x"}),
    ],
)
def test_values_are_read_by_the_leafs_type(words: list[str], expected: dict[str, Any]) -> None:
    received = given(*words)
    assert received == expected
    assert [type(value) for value in received.values()] == [type(value) for value in expected.values()]


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        ("--steps", "1.5"),
        ("--steps", "0"),
        ("--steps", "none"),
        ("--batch-size", "-1"),
        ("--lr", "0"),
        ("--lr", "inf"),
        ("--lr", "nan"),
        ("--grad-calls", "2.5"),
        ("--grad-calls", "half"),
        ("--arch", "gpt"),
        ("--device", "gpu"),
        ("--lr-scheduler", "step"),
        ("--max-minutes", "0"),
    ],
)
def test_wrong_values_are_refused_by_their_flag(flag: str, value: str) -> None:
    with pytest.raises(CycloptsError) as caught:
        given(flag, value)
    text = usage_problem(caught.value)
    assert text.startswith(f"{flag} {value}: ")
    assert any(words in text for words in ("is needed", "must be ", "use "))


@pytest.mark.parametrize("leaf", list(leaves(TextTrainConfig).values()), ids=lambda leaf: leaf.name)
def test_every_default_can_be_given_back(leaf: Any) -> None:
    """The flag of every leaf accepts the leaf's own default in writing, and hands it over unchanged."""
    if leaf.default is PydanticUndefined or leaf.default is None:
        words = (
            [leaf.flag, "none"] if leaf.default is None and bool not in getattr(leaf.annotation, "__args__", ()) else []
        )
        assert given(*words) == ({leaf.name: None} if words else {})
    elif isinstance(leaf.default, bool):
        assert given(leaf.flag if leaf.default else leaf.flag.replace("--", "--no-", 1)) == {leaf.name: leaf.default}
    else:
        assert given(leaf.flag, str(leaf.default)) == {leaf.name: leaf.default}


@pytest.mark.parametrize("flag", ["--num-rows", "--rows", "--lines-read", "--lines_read", "--num_rows"])
def test_an_alias_is_the_same_flag(flag: str) -> None:
    assert given(flag, "3", model=Toy) == {"num_rows": 3}
    with pytest.raises(CycloptsError, match="must be at least 1"):
        given(flag, "0", model=Toy)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"betas": [0.9, 0.5], "on": true}', {"betas": [0.9, 0.5], "on": True}),
        ("{'betas': (0.9, 0.5), 'on': True}", {"betas": (0.9, 0.5), "on": True}),
        ("{}", {}),
        ("none", None),
    ],
)
def test_a_dict_is_json_or_a_python_literal(text: str, value: dict[str, Any] | None) -> None:
    assert given("--kwargs", text, model=Toy) == {"kwargs": value}


@pytest.mark.parametrize("text", ["{", "[1]", "3", "__import__('os')", "{'a': open('x')}", "(" * 9999])
def test_what_is_no_dict_is_refused(text: str) -> None:
    with pytest.raises(CycloptsError) as caught:
        given("--kwargs", text, model=Toy)
    assert re.match("--kwargs .*: (write it as JSON|a group of names)", usage_problem(caught.value))
