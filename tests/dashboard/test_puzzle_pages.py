"""Playground, Puzzles, and the pages of runs for puzzle solvers, without a browser; the solver is a real one."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from dashboard.queries.puzzles import ROWS_FILE
from hrm_engine.data.puzzles.maze.build import build_mazes
from hrm_engine.store.files import read_json, write_json
from hrm_engine.store.paths import Workspace
from tests.dashboard.reading import assert_clean, html, markup, texts, warnings
from tests.dashboard.run_folders import write_puzzle_rows, write_run

OpenApp = Callable[..., AppTest]
TABS = ("Curves", "Evaluation", "Throughput", "Learning rate", "System", "Parameters", "Checkpoints", "Log")
KNOWN = "1.3.34....43.3.1"


def button(app: AppTest, label: str) -> AppTest:
    return next(found for found in app.button if found.label == label).click().run()


def typed(app: AppTest, text: str) -> AppTest:
    app.get_by_key("way runs/tiny").set_value("Text").run()
    return app.get_by_key("text runs/tiny").input(text).run()


@pytest.mark.parametrize("page", ["puzzles", "playground"])
def test_a_workspace_without_solvers_says_what_to_do(open_app: OpenApp, lab: Workspace, page: str) -> None:
    write_run(lab.root, "text", last=10)
    app = open_app(page)
    assert_clean(app)
    assert "lab train puzzle" in markup(app)


def test_thinking_shows_every_segment(open_app: OpenApp, tiny_solver: Path) -> None:
    app = open_app("playground", bundle="runs/tiny", puzzle="2")
    assert_clean(app)
    assert "4 x 4 Sudoku" in texts(app)
    app = button(app, "Think")
    assert_clean(app)
    shown = html(app)
    for caption in ("Puzzle", "After segment 3", "Solution", "1 · halt", "2 · halt", "3 · halt"):
        assert caption in shown
    assert "cells changed" in shown
    assert len(app.get("plotly_chart")) == 4
    next(slider for slider in app.slider if slider.label == "Segment").set_value(1).run()
    assert_clean(app)
    assert "After segment 1" in html(app)


def test_another_puzzle_waits_for_another_thought(open_app: OpenApp, tiny_solver: Path) -> None:
    app = button(open_app("playground", puzzle="2"), "Think")
    app.number_input[0].set_value(3).run()
    assert_clean(app)
    assert "After segment" not in html(app)
    assert app.query_params["puzzle"] == ["3"] or app.query_params["puzzle"] == "3"


def test_several_starts_have_their_own_answer(open_app: OpenApp, tiny_solver: Path) -> None:
    app = open_app("playground")
    app.get_by_key("starts").set_value(4).run()
    app = button(app, "Think")
    assert_clean(app)
    assert "Answer of 4 starts" in html(app)
    assert "4 starts:" in texts(app)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("12", "16, 36 or 81 cells"),
        ("x" * 16, "character 1 is 'x'"),
        ("." * 81, "the solver takes 4x4, 16 cells"),
        ("12....3...4.....", "has no solution"),
        ("<b>*x*</b>", "16, 36 or 81 cells"),
        ("  ", "the text is empty"),
    ],
)
def test_a_wrong_puzzle_gets_one_sentence(open_app: OpenApp, tiny_solver: Path, text: str, message: str) -> None:
    app = typed(open_app("playground"), text)
    assert_clean(app)
    assert "This puzzle cannot be used" in texts(app)
    assert message in texts(app)
    assert not [found for found in app.button if found.label == "Think"]


def test_a_typed_puzzle_is_thought_about(open_app: OpenApp, tiny_solver: Path) -> None:
    app = button(typed(open_app("playground"), KNOWN), "Think")
    assert_clean(app)
    assert "After segment 3" in html(app)
    assert "Solution" in html(app)


def test_the_grid_begins_with_the_puzzle_shown_before(open_app: OpenApp, tiny_solver: Path) -> None:
    app = open_app("playground", puzzle="1")
    app.get_by_key("way runs/tiny").set_value("Grid").run()
    assert_clean(app)
    assert [found for found in app.button if found.label == "Think"]


@pytest.mark.parametrize("wanted", ["text", "../../etc", "<script>alert(1)</script>", "runs/gone"])
def test_a_link_to_no_solver_gets_a_sentence(open_app: OpenApp, lab: Workspace, tiny_solver: Path, wanted: str) -> None:
    write_run(lab.root, "text", last=10)
    app = open_app("playground", bundle=wanted)
    assert_clean(app)
    assert "choose a solver below" in texts(app)
    assert wanted not in markup(app)


@pytest.mark.parametrize("puzzle", ["-1", "99", "x", "1e3", "9" * 50])
def test_a_bad_number_in_the_link_is_the_first_puzzle(open_app: OpenApp, tiny_solver: Path, puzzle: str) -> None:
    app = open_app("playground", bundle="runs/tiny", puzzle=puzzle)
    assert_clean(app)
    assert app.number_input[0].value == 0


def test_without_the_dataset_one_can_still_type(open_app: OpenApp, lab: Workspace, tiny_solver: Path) -> None:
    shutil.rmtree(lab.training_data / "puzzles")
    app = open_app("playground")
    assert_clean(app)
    assert "use Text or Grid" in texts(app)
    app = button(typed(app, KNOWN), "Think")
    assert_clean(app)
    assert "After segment 3" in html(app)


def test_a_damaged_solver_is_a_sentence(open_app: OpenApp, tiny_solver: Path) -> None:
    (tiny_solver / "model.safetensors").write_bytes(b"cut")
    app = button(open_app("playground"), "Think")
    assert_clean(app)
    assert "The solver cannot think about it" in texts(app)


def test_a_maze_is_drawn_with_clicks(open_app: OpenApp, lab: Workspace, tiny_solver: Path) -> None:
    # The folder of another solver with a maze's card: drawing needs no model.
    build_mazes(output_dir=lab.root / "training_data/puzzles/mazes", size=6, count=4, test_count=4, min_path=4)
    card = read_json(tiny_solver / "puzzle.json")
    write_json(tiny_solver / "puzzle.json", {**card, "puzzle": "maze", "height": 6, "width": 6})
    parameters = read_json(tiny_solver / "training_args.json")
    parameters["parameters"]["data"]["data_path"] = "training_data/puzzles/mazes"
    write_json(tiny_solver / "training_args.json", parameters)
    app = open_app("playground")
    assert_clean(app)
    assert "Difficulty rating" in texts(app)
    app.get_by_key("way runs/tiny").set_value("Drawing").run()
    assert_clean(app)
    board = json.loads(app.get("plotly_chart")[0].proto.spec)["data"][0]
    assert len(board["x"]) == 36
    assert {"wall", "free", "start", "goal"} <= set(board["text"])
    app.get_by_key("way runs/tiny").set_value("Text").run()
    text = app.get_by_key("text runs/tiny").value
    assert [len(line) for line in text.split("\n")] == [6] * 6


def test_an_evaluation_is_shown_by_difficulty(open_app: OpenApp, tiny_solver: Path) -> None:
    write_puzzle_rows(tiny_solver / ROWS_FILE, 90, ratings=3)
    app = open_app("puzzles")
    assert_clean(app)
    figures = [json.loads(chart.proto.spec) for chart in app.get("plotly_chart")]
    bars = figures[0]["data"][0]
    assert bars["x"] == ["0", "1", "2"]
    assert "45 of 90 puzzles are not solved exactly" in texts(app)
    assert {"Exactly solved", "When halting", "Cells right"} <= {metric.label for metric in app.metric}
    assert app.metric[-1].delta == "whole test split"
    assert len(app.dataframe[0].value) == 45


def test_damaged_rows_are_counted(open_app: OpenApp, tiny_solver: Path) -> None:
    path = tiny_solver / ROWS_FILE
    path.write_bytes(path.read_bytes() + b"junk\n" + b'{"row": 1, "exa')
    app = open_app("puzzles", run="tiny")
    assert_clean(app)
    assert "2 lines of evaluation/rows.jsonl could not be read" in warnings(app)


@pytest.mark.parametrize("damage", ["no rows", "no metrics", "no parameters"])
def test_missing_files_are_told(open_app: OpenApp, tiny_solver: Path, damage: str) -> None:
    names = {"no rows": "evaluation/rows.jsonl", "no metrics": "metrics.jsonl", "no parameters": "training_args.json"}
    (tiny_solver / names[damage]).unlink()
    app = open_app("puzzles")
    assert_clean(app)
    if damage == "no rows":
        assert "no full evaluation" in markup(app)


def test_a_link_to_no_puzzle_run_gets_a_sentence(open_app: OpenApp, lab: Workspace, tiny_solver: Path) -> None:
    write_run(lab.root, "text", last=10)
    app = open_app("puzzles", run="brains/actv1/text")
    assert_clean(app)
    assert "is no puzzle run" in texts(app)
    assert not app.metric


@pytest.mark.parametrize("tab", TABS)
def test_every_section_of_a_puzzle_run(open_app: OpenApp, tiny_solver: Path, tab: str) -> None:
    app = open_app("run", run="tiny", tab=tab, x="Rows")
    assert_clean(app)
    shown = {metric.label for metric in app.metric}
    assert {"Exactly solved", "Cells right", "Segments/s", "Validation loss"} <= shown
    assert not {"Perplexity", "Tokens/s", "Unigram model"} & shown
    titles = [json.loads(chart.proto.spec)["layout"]["yaxis"]["title"]["text"] for chart in app.get("plotly_chart")]
    assert not [title for title in titles if "token" in title]
    if tab == "Curves":
        assert {"loss (nats/cell)", "accuracy", "segments, on average"} <= set(titles)


def test_the_table_of_runs_has_the_exact_accuracy(open_app: OpenApp, lab: Workspace, tiny_solver: Path) -> None:
    write_run(lab.root, "text", last=10)
    app = open_app()
    assert_clean(app)
    table = app.dataframe[0].value.set_index("name")
    assert table.loc["tiny", "kind"] == "puzzle"
    assert 0 <= table.loc["tiny", "exact_accuracy"] <= 1
    assert table.loc["tiny", "row_segments_per_s"] > 0
    assert table.loc["text", "tokens_per_s"] > 0
    assert table["exact_accuracy"].isna().tolist().count(True) == 1
