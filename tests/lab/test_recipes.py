"""Every recipe that is shipped can be run; what is no recipe is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from hrm_engine.config import flat
from hrm_engine.config.puzzle import load_puzzle_config
from hrm_engine.config.text import load_config
from hrm_engine.errors import ConfigError, NotebookError
from hrm_engine.store.paths import Workspace
from lab.runner.execute import plan_run, read_notebook
from lab.runner.recipes import find_recipe, list_recipes, load_recipe
from tests.lab.notebooks import write_notebook


@pytest.fixture
def here(workspace: Path) -> Workspace:
    return Workspace(workspace)


def recipe_file(here: Workspace, text: str, name: str = "mine") -> Path:
    write_notebook(here.root / "nb.ipynb", "x = 1", parameters="steps: int = 3\nhidden_size: int = 64\n")
    path = here.root / f"{name}.yaml"
    path.write_text(text, encoding="utf8")
    return path


@pytest.mark.parametrize("name", list_recipes())
def test_shipped_recipe_is_ready_to_run(name: str, here: Workspace) -> None:
    recipe = find_recipe(name, here)
    plan = plan_run(recipe, {})
    assert recipe.description.endswith(".")
    assert recipe.time
    assert recipe.hardware
    assert set(recipe.parameters) <= set(plan.declared)
    assert all(parameter.comment for parameter in plan.declared.values()), "every parameter is explained"
    assert all(not cell.get("outputs") for cell in read_notebook(recipe.notebook).cells), "no outputs are committed"


def test_quickstart_declares_the_settings_of_its_preset(here: Workspace) -> None:
    plan = plan_run(find_recipe("quickstart", here), {})
    preset = flat(load_config("text-small"))
    shared = set(plan.declared) & set(preset) - {"brain_name"}
    assert {"steps", "batch_size", "hidden_size", "max_seq_len", "lr", "seed"} <= shared
    assert {name: plan.declared[name].default for name in shared} == {name: preset[name] for name in shared}


def test_puzzles_leaves_the_settings_to_its_preset(here: Workspace) -> None:
    plan = plan_run(find_recipe("puzzles", here), {})
    preset = flat(load_puzzle_config("sudoku-4x4"))
    shared = set(plan.declared) & set(preset) - {"run_name"}
    assert {"steps", "batch_size", "seed"} <= shared
    assert {name for name in shared if plan.declared[name].default not in (None, preset[name])} == set()
    assert plan.declared["preset"].default == plan.recipe.preset


@pytest.mark.parametrize(
    ("recipe", "given", "reason"),
    [
        (
            "quickstart",
            {"brain_name": "{x.__class__}"},
            r"-p brain_name=\{x.__class__\}: name .* is not allowed: use 1",
        ),
        (
            "quickstart",
            {"brain_name": "taken"},
            "-p brain_name=taken: .*brains/actv1/taken exists: choose another name",
        ),
        ("experts", {"brain_name": "../b"}, "-p brain_name=../b: .*not allowed"),
        ("experts", {"brain_name": "x" * 51}, "-p brain_name=x{51}: use at most 50 characters"),
        ("experts", {"brain_name": "taken"}, "-p brain_name=taken: .*choose another name"),
        ("experts", {"strength": "6"}, "-p strength=6.0: use 0 to 5"),
        ("experts", {"expert_steps": "0"}, "-p expert_steps=0: use at least 1"),
        ("experts", {"num_experts": "1"}, "-p num_experts=1: use at least 2"),
        ("experts-bench", {"puzzle_steps": "0"}, "-p puzzle_steps=0: use at least 1"),
        ("experts-bench", {"num_seeds": "-1"}, "-p num_seeds=-1: use at least 1"),
        ("puzzles", {"run_name": "solved"}, "-p run_name=solved: .*runs/solved exists: choose another name"),
        ("puzzles", {"segments": "0"}, "-p segments=0: use at least 1"),
        ("puzzles", {"num_failures": "-1"}, "-p num_failures=-1: use at least 0"),
        ("adaptive-depth", {"brain": "nope"}, "-p brain=nope: no run 'nope' in .*Runs here: solved, taken"),
        ("adaptive-depth", {"brain": "solved"}, "-p brain=solved: .*cannot be loaded"),
        ("adaptive-depth", {"dataset_file": "no.txt"}, "-p dataset_file=no.txt: .*no.txt does not exist; a relative"),
        ("adaptive-depth", {"dataset_file": " "}, "-p dataset_file=' ': name a file or folder"),
        ("adaptive-depth", {"dataset_file": "/no.txt"}, "-p dataset_file=/no.txt: /no.txt does not exist$"),
        ("adaptive-depth", {"halt_max_steps": "1"}, "-p halt_max_steps=1: use at least 2"),
        ("adaptive-depth", {"num_documents": "0"}, "-p num_documents=0: use at least 1"),
        ("adaptive-depth", {"brain_name": "a b", "brain": "no"}, "-p brain=no: .*; -p brain_name=a b: "),
        ("transformer-bench", {"depths": "[]"}, r"-p depths=\[\]: name at least one"),
        ("transformer-bench", {"depths": "[2, 0]"}, r"-p depths=\[2, 0\]: use at least 1"),
        ("transformer-bench", {"learning_rates": "[0.0]"}, r"-p learning_rates=\[0.0\]: use above 0"),
        ("transformer-bench", {"level_layers": "0"}, "-p level_layers=0: use at least 1"),
        ("transformer-bench", {"num_evals": "0"}, "-p num_evals=0: use at least 1"),
    ],
)
def test_what_a_recipe_cannot_end_with_is_refused_before_it_starts(
    recipe: str, given: dict[str, str], reason: str, here: Workspace
) -> None:
    for folder in (here.brains / "taken", here.runs / "solved"):
        folder.mkdir(parents=True)
        (folder / "training_args.json").write_text("{}", encoding="utf8")
    with pytest.raises(NotebookError, match=f"^{reason}"):
        plan_run(find_recipe(recipe, here), given)


def test_the_notebook_of_a_recipe_has_its_rules(here: Workspace) -> None:
    recipe = find_recipe(str(find_recipe("quickstart", here).notebook), here)
    assert (recipe.name, recipe.preset) == ("quickstart", "text-small")
    with pytest.raises(NotebookError, match="-p brain_name=a/b: name 'a/b' is not allowed"):
        plan_run(recipe, {"brain_name": "a/b"})


@pytest.mark.parametrize("name", list_recipes())
def test_a_parameter_that_no_preset_checks_has_a_rule(name: str, here: Workspace) -> None:
    recipe = find_recipe(name, here)
    plan = plan_run(recipe, {})
    settings = {"amp", "seed", "lr", "prompt", "preset", "arch", "freeze_positions"}
    sizes = {"steps", "batch_size", "hidden_size", "max_seq_len", "halt_max_steps"}
    assert set(plan.declared) - settings - sizes <= set(recipe.must_be)


@pytest.mark.parametrize(
    ("rule", "reason"),
    [
        ("{steps: tall}", r"must_be.steps: 'tall' is no rule: use one of name of a new run"),
        ("{stp: at least 1}", "'stp'"),
    ],
)
def test_a_rule_that_does_not_exist_or_fits_nothing_is_refused(rule: str, reason: str, here: Workspace) -> None:
    text = f"{{title: T, description: D., notebook: nb.ipynb, must_be: {rule}}}"
    with pytest.raises(NotebookError, match=reason):
        plan_run(load_recipe(recipe_file(here, text), here), {})


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"steps": "0"}, "--steps"),
        ({"batch_size": "-1"}, "--batch-size"),
        ({"steps": "many"}, "-p steps=many"),
        ({"preset": "sudoku-5x5"}, "no such preset"),
        (
            {"preset": "text-small"},
            "--config text-small is for a training of kind actv1, .* puzzle: presets for it are arc-1",
        ),
        ({"preset": "mine.yaml"}, "mine.yaml"),
    ],
)
def test_settings_of_a_solver_are_checked_like_flags(given: dict[str, str], reason: str, here: Workspace) -> None:
    with pytest.raises(NotebookError, match=reason):
        plan_run(find_recipe("puzzles", here), given)


def test_another_preset_is_the_one_that_is_checked(here: Workspace) -> None:
    puzzles = find_recipe("puzzles", here)
    assert plan_run(puzzles, {"preset": "sudoku-6x6", "steps": "5"}).parameters["preset"] == "sudoku-6x6"
    file = here.root / "mine.yaml"
    file.write_text("network: {hidden_size: 250}\ndata: {data_path: x}\n", encoding="utf8")
    with pytest.raises(NotebookError, match=r"--hidden-size 250 is not divisible by --num-heads"):
        plan_run(puzzles, {"preset": str(file)})


def test_a_preset_of_no_training_is_refused(here: Workspace) -> None:
    (here.root / "odd.yaml").write_text("data: {colour: red}\n", encoding="utf8")
    text = f"{{title: T, description: D., notebook: nb.ipynb, preset: {here.root / 'odd.yaml'}}}"
    with pytest.raises(NotebookError, match="for no training of the lab .*kind: actv1"):
        plan_run(load_recipe(recipe_file(here, text), here), {})


def test_parameters_that_are_settings_are_checked_like_flags(here: Workspace) -> None:
    quickstart = find_recipe("quickstart", here)
    with pytest.raises(NotebookError, match="--steps"):
        plan_run(quickstart, {"steps": "0"})
    with pytest.raises(NotebookError, match=r"--hidden-size 250 is not divisible by --num-heads"):
        plan_run(quickstart, {"hidden_size": "250"})
    assert list(here.root.glob("artifacts/notebooks/*")) == []


def test_values_of_the_recipe_stand_between_notebook_and_user(here: Workspace) -> None:
    recipe = load_recipe(
        recipe_file(here, "{title: T, description: D., notebook: nb.ipynb, parameters: {steps: 5}}"), here
    )
    assert plan_run(recipe, {}).parameters == {"steps": 5, "hidden_size": 64}
    assert plan_run(recipe, {"steps": "9"}).parameters == {"steps": 9, "hidden_size": 64}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("!!python/object/apply:os.system ['touch mark']", "not plain YAML"),
        ("[1, 2]", "is not a recipe"),
        ("{title: T, description: D, notebook: nb.ipynb, colour: red}", "colour"),
        ("{title: T, notebook: nb.ipynb}", "description"),
        ("{title: T, description: D, notebook: none.ipynb}", "none.ipynb does not exist"),
        ("title: [", "not plain YAML"),
    ],
)
def test_a_file_that_is_no_recipe_is_refused(
    text: str, reason: str, here: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(here.root)
    with pytest.raises(NotebookError, match=reason):
        load_recipe(recipe_file(here, text), here)
    assert not (here.root / "mark").exists()


def test_a_recipe_with_wrong_values_is_refused(here: Workspace) -> None:
    recipe = load_recipe(
        recipe_file(here, "{title: T, description: D., notebook: nb.ipynb, parameters: {stps: 5}}"), here
    )
    with pytest.raises(NotebookError, match="did you mean steps"):
        plan_run(recipe, {})


@pytest.mark.parametrize("name", ["quickstrt", "../quickstart", "/etc/passwd", "quick\0start", "", "%252e%252e"])
def test_unknown_names_are_refused(name: str, here: Workspace) -> None:
    with pytest.raises(NotebookError, match="no recipe is called"):
        find_recipe(name, here)


def test_near_names_are_offered(here: Workspace) -> None:
    with pytest.raises(NotebookError, match="Did you mean quickstart"):
        find_recipe("quickstrt", here)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"cells": 3}', '{"nbformat": 4}', "\x00\x01"])
def test_a_file_that_is_no_notebook_is_refused(content: str, here: Workspace) -> None:
    (here.root / "bad.ipynb").write_text(content, encoding="utf8")
    with pytest.raises(NotebookError, match=r"bad\.ipynb"):
        plan_run(find_recipe("bad.ipynb", here), {})


def test_missing_and_foreign_notebooks_are_refused(here: Workspace) -> None:
    with pytest.raises(NotebookError, match="does not exist"):
        find_recipe("none.ipynb", here)
    with pytest.raises(ConfigError, match="NUL"):
        find_recipe("no\0ne.ipynb", here)
    path = write_notebook(here.root / "r.ipynb", "x <- 1")
    path.write_text(path.read_text().replace('"metadata": {}', '"metadata": {"kernelspec": {"language": "R"}}', 99))
    with pytest.raises(NotebookError, match="written in R"):
        plan_run(find_recipe("r.ipynb", here), {})
