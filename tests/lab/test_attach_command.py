"""``lab experts attach | detach``, and what follows: the brain is listed, shown, steered, and not exported."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hrm_engine.data.puzzles.kinds import BOARDS
from hrm_engine.store.experts import ExpertRegistry
from hrm_engine.store.files import write_json
from hrm_engine.store.goals import Goals
from hrm_engine.store.paths import Workspace
from lab.cli.app import main
from tests.tiny_experts import make_expert
from tests.tiny_runs import Lab
from tests.tiny_solvers import save_solver, sudokus, tiny_solver

PROMPT = ("--prompt", "the cat", "--max-new-tokens", 4, "--device", "cpu")


@pytest.fixture
def brain(lab: Lab) -> Lab:
    """A brain ``base`` with experts in its layers, and an expert ``poems`` that serves goal 1."""
    path = lab.train("base", steps=2, eval_every=2, save_every=2, use_moe=True, num_experts=4).run_dir
    make_expert(lab.workspace, "poems", inner=json.loads((path / "config.json").read_text())["intermediate_size"])
    Goals(lab.workspace).add("Rhyme", expert_id="poems")
    return lab


def run(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    code = main([*map(str, words)])
    shown = capsys.readouterr()
    return code, shown.out, shown.err


def as_json(capsys: pytest.CaptureFixture[str], *words: object) -> Any:
    code, out, err = run(capsys, *words, "--json")
    assert (code, err) == (0, "")
    return json.loads(out)


def test_attach_show_detach(brain: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, "experts", "attach", "poems", "--bundle", "base")
    assert (code, err) == (0, "")
    assert out == (
        "Expert poems is attached in artifacts/brains/actv1/base-poems. Attached there: poems (layer H.0, column 4).\n"
    )
    made = as_json(capsys, "experts", "attach", "poems", "--bundle", "base", "--layer", "L.0", "--name", "low")
    sha256 = ExpertRegistry(brain.workspace).get("poems").sha256
    entry = {"expert_id": "poems", "module": "L", "layer": "L.0", "column": 4, "sha256": sha256}
    assert made == {"path": str(brain.run_dir("low")), "name": "low", "experts": [entry]}
    code, out, _ = run(capsys, "bundle", "show", "low")
    assert code == 0
    assert out.splitlines()[-2].split() == ["expert", "layer", "column", "sha256"]
    assert out.splitlines()[-1].split() == ["poems", "L.0", "4", str(sha256)[:12]]
    assert as_json(capsys, "bundle", "show", "low")["metadata"]["experts"] == [entry]
    assert as_json(capsys, "bundle", "verify", "low")["valid"]
    listed = {row["name"]: row for row in as_json(capsys, "bundle", "list")}
    assert set(listed) == {"base", "base-poems", "low"}
    assert all(row["problems"] == [] for row in listed.values())
    assert listed["low"]["num_parameters"] > listed["base"]["num_parameters"]
    card = as_json(capsys, "experts", "show", "poems")
    assert card["attached_to"] == ["artifacts/brains/actv1/base-poems", "artifacts/brains/actv1/low"]
    code, _, err = run(capsys, "experts", "delete", "poems", "--yes")
    assert code == 2
    assert "is attached to artifacts/brains/actv1/base-poems" in err
    code, out, _ = run(capsys, "experts", "detach", "poems", "--bundle", "low")
    assert (code, out) == (
        0, "Without expert poems: artifacts/brains/actv1/low-without-poems. Attached there: none.\n"
    )  # fmt: skip
    code, _, err = run(capsys, "bundle", "export", "low", "out.pt", "--format", "trm")
    assert code == 2
    assert "needs kind 'puzzle'" in err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("attach", "poem", "--bundle", "base"), "Did you mean poems?"),
        (("attach", "poems", "--bundle", "bass"), "no run 'bass'"),
        (("attach", "poems", "--bundle", "base", "--layer", "M.1"), "no layer 'M.1': use one of H.0, L.0"),
        (("attach", "poems", "--bundle", "base", "--name", "base"), "choose another --name"),
        (("detach", "poems", "--bundle", "base"), "not attached to base. Attached: none"),
    ],
)
def test_refused_in_one_sentence(
    brain: Lab, words: tuple[str, ...], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = run(capsys, "experts", *words)
    assert (code, out) == (2, "")
    assert told in err
    assert len(err.splitlines()) == 1
    assert [path.name for path in brain.workspace.brains.iterdir()] == ["base"]


def test_generation_towards_a_goal(brain: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    run(capsys, "experts", "attach", "poems", "--bundle", "base")
    asked = ("generate", "--bundle", "base-poems", *PROMPT)
    plain = as_json(capsys, *asked)
    [use] = plain["experts"]
    assert (use["expert_id"], use["layer"], use["is_active"], use["bias"]) == ("poems", "H.0", True, 0)
    zero = as_json(capsys, *asked, "--goal", "1", "--goal-bias-strength", "0")
    assert (zero["text"], zero["experts"]) == (plain["text"], plain["experts"])
    [strong] = as_json(capsys, *asked, "--goal", "active", "--goal-bias-strength", 5)["experts"]
    assert strong["bias"] == 5
    assert strong["token_share"] > use["token_share"]
    assert strong["mean_probability"] > use["mean_probability"]
    assert as_json(capsys, *asked, "--goal", "1")["experts"][0]["bias"] == 1
    code, out, err = run(capsys, *asked, "--goal", "1", "--goal-bias-strength", 5)
    assert code == 0
    assert out.startswith("the cat")
    assert err == "expert poems in H.0: bias 5, 100.0% of the tokens\n"
    assert "experts" not in as_json(capsys, "generate", "--bundle", "base", *PROMPT)


def test_goals_that_cannot_steer(brain: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    run(capsys, "experts", "attach", "poems", "--bundle", "base")
    asked = ("generate", "--bundle", "base-poems", *PROMPT)
    for words, told in (
        (("--goal", "9"), "9"),
        (("--goal", "rhyme"), "give numbers of goals such as 3 or 3,5, or 'active'"),
        (("--goal", "1,"), "give numbers of goals"),
        (("--goal", "1", "--goal-bias-strength", "6"), "--goal-bias-strength "),
        (("--goal-bias-strength", "1"), "goes with --goal"),
    ):
        code, out, err = run(capsys, *asked, *words)
        assert (code, out) == (2, "")
        assert told in err
    Goals(brain.workspace).add("Explain")
    code, _, err = run(capsys, *asked, "--goal", "2,1")
    assert code == 0
    assert err.splitlines()[0] == (
        "warning: goal 2 is served by no expert that is attached to base-poems: it steers nothing (its experts: none)"
    )
    ExpertRegistry(brain.workspace).update("poems", is_active=False)
    code, _, err = run(capsys, *asked, "--goal", "1")
    assert code == 0
    assert err.splitlines() == [
        "warning: expert poems is inactive: it gets no token, whatever goal it serves",
        "expert poems in H.0: inactive, 0.0% of the tokens",
    ]
    brain.workspace.expert_registry.unlink()
    code, _, err = run(capsys, *asked)
    assert code == 0
    assert err.count("warning") == 1
    assert "has no card" in err


def test_a_solver_towards_a_goal(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = Workspace(workspace)
    save_solver(tiny_solver(), place.runs / "four")
    write_json(place.runs / "four" / "training_args.json", {"schema_version": 1, "kind": "puzzle", "parameters": {}})
    make_expert(place, "digits", width=32, inner=32)
    Goals(place).add("Count", expert_id="digits")
    assert main(["experts", "attach", "digits", "--bundle", "four"]) == 0
    capsys.readouterr()
    puzzle = BOARDS["sudoku"].to_text(sudokus(1)[0][0])
    asked = ("solve", "--bundle", "four-digits", "--puzzle", puzzle, "--device", "cpu")
    plain, steered = (as_json(capsys, *asked, *more)["experts"][0] for more in ((), ("--goal", "1")))
    assert (plain["bias"], steered["bias"]) == (0, 1)
    assert steered["mean_probability"] > plain["mean_probability"]
    code, _, err = run(capsys, *asked, "--goal", "1")
    assert (code, err) == (0, "expert digits in H.0: bias 1, 100.0% of the tokens\n")
    code, _, err = run(capsys, "bundle", "export", "four-digits", "out.pt", "--format", "trm")
    assert code == 2
    assert "it has experts, which the format does not know" in err
