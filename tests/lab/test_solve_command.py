"""``lab solve``: what it prints, and what it refuses before a model has thought."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hrm_engine.bundles.save import seal_bundle
from hrm_engine.data.puzzles.arc.augment import Augmentation
from hrm_engine.data.puzzles.kinds import BOARDS
from hrm_engine.data.puzzles.maze.build import build_mazes
from hrm_engine.data.puzzles.sudoku.build import build_sudokus
from lab.cli.app import main
from tests.arc_tasks import task_json
from tests.tiny_solvers import copying_solver, save_solver, sudokus, tiny_card, tiny_solver

INPUTS, LABELS = sudokus(2)
PUZZLE, SOLVED = BOARDS["sudoku"].to_text(INPUTS[0]), BOARDS["sudoku"].to_text(LABELS[0])
MAZE = "#####\n#S  #\n### #\n#G  #\n#####\n"


@pytest.fixture
def solvers(workspace: Path) -> Path:
    """A workspace with the test split of a Sudoku dataset and solvers of every kind of board."""
    runs = workspace / "artifacts" / "runs"
    build_sudokus(output_dir=workspace / "training_data" / "four", size=4, count=3, test_count=2, blanks=5, seed=1)
    save_solver(tiny_solver(arch="hrm"), runs / "four", dataset="training_data/four")
    save_solver(copying_solver(), runs / "copy")
    save_solver(tiny_solver(tiny_card("maze", 5)), runs / "maze", dataset="training_data/gone")
    return workspace


def run(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    code = main(["solve", *map(str, words)])
    shown = capsys.readouterr()
    return code, shown.out, shown.err


def as_json(capsys: pytest.CaptureFixture[str], *words: object) -> dict[str, Any]:
    code, out, err = run(capsys, *words, "--json")
    assert (code, err) == (0, "")
    return dict(json.loads(out))


def test_the_first_puzzle_of_the_test_split_comes_by_itself(solvers: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, "--bundle", "four", "--trace", "--segments", "5")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert [line.split(",")[0] for line in lines if line.startswith("segment ")] == [
        f"segment {n}" for n in range(1, 6)
    ]
    assert out.count("halts here") <= 1
    assert all(f"{word} 0." in line for word in ("halt", "go on") for line in lines if line.startswith("segment "))
    assert "row 0 of" in out
    assert "valid     no" in out
    test_row = np.load(solvers / "training_data" / "four" / "test" / "all__inputs.npy")[0]
    assert f"| {' '.join(BOARDS['sudoku'].to_text(test_row)[:2])} |" in out


def test_marks_stand_behind_the_cells_that_changed(solvers: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--bundle", "four", "--puzzle", PUZZLE, "--trace", "--segments", "2")
    traced = as_json(capsys, *words)["boards"][0]["trace"]["segments"]
    _, out, _ = run(capsys, *words)
    drawn = [block.splitlines()[1:] for block in out.split("segment ")[1:3]]
    for segment, lines in zip(traced, drawn, strict=True):
        assert "".join(lines[:7]).count("*") == len(segment["changed"])
        assert f"{len(segment['changed'])} cells changed" in out


def test_answer_beside_the_board(solvers: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, "--bundle", "copy", "--puzzle", SOLVED)
    assert (code, err) == (0, "")
    first = " ".join(SOLVED[:2]), " ".join(SOLVED[2:4])
    assert out.splitlines()[:2] == ["+-----+-----+    +-----+-----+", "    ".join([f"| {first[0]} | {first[1]} |"] * 2)]
    for fact in ("valid     yes", "right     yes", "segments  1, halted by itself"):
        assert fact in out


def test_json_says_what_the_text_says(solvers: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = as_json(capsys, "--bundle", "four", "--puzzle", PUZZLE, "--starts", 3, "--choose", "majority", "--trace")
    (board,) = found["boards"]
    assert found["kind"] == "sudoku"
    assert board["puzzle"] == PUZZLE
    assert len(board["answer"]) == 16
    assert board["is_valid"] is False
    assert board["is_right"] is False
    assert board["segments"] >= 3
    assert len(board["trace"]["segments"]) == 8
    assert found["flops"] > 0


def test_restarts_are_told_apart(solvers: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one_blank = "." + SOLVED[1:]
    words = ("--bundle", "copy", "--puzzle", one_blank, "--starts-from", "noise", "--until-valid", 60)
    (board,) = as_json(capsys, *words)["boards"]
    assert board["is_valid"] is True
    assert board["answer"] == SOLVED
    assert board["solved_by_verifier"] == (board["restarts"] > 0)
    code, out, _ = run(capsys, *words)
    assert code == 0
    assert ("solved by a restart that the verifier accepted" in out) == board["solved_by_verifier"]


def test_mazes_are_read_from_drawings(solvers: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = solvers / "maze.txt"
    file.write_text(MAZE.replace("#####\n#S", "#   \n#S", 1))  # spaces at the end of a line may be missing
    (board,) = as_json(capsys, "--bundle", "maze", "--maze", "maze.txt", "--trace", "--segments", 3)["boards"]
    assert board["puzzle"] == "#    #S  #### ##G  ######"
    code, out, _ = run(capsys, "--bundle", "maze", "--maze", file, "--starts", 8)
    assert code == 0
    assert "##      ##" not in out.splitlines()[0]
    assert "valid" in out


def test_mazes_of_a_test_split(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    build_mazes(output_dir=workspace / "training_data" / "mazes", size=9, count=2, test_count=2, seed=0, min_path=4)
    bundle = tiny_solver(tiny_card("maze", 9))
    save_solver(bundle, workspace / "artifacts" / "runs" / "maze", dataset="training_data/mazes")
    code, out, err = run(capsys, "--bundle", "maze", "--index", 1)
    assert (code, err) == (0, "")
    assert "row 1 of" in out


@pytest.fixture
def arc(workspace: Path) -> Path:
    """A solver that knows two tasks, and a file of one of them with two test pairs."""
    names = ("<blank>", "one", "two", Augmentation(3, "0217654983").identifier("two"))
    bundle = tiny_solver(tiny_card("arc", 30, identifiers=names), num_identifiers=4, hidden_size=16, halt_max_steps=2)
    save_solver(bundle, workspace / "artifacts" / "runs" / "arc")
    for name in ("two", "three"):
        (workspace / f"{name}.json").write_text(json.dumps(task_json(1, num_tests=2)))
    return workspace


def test_all_test_pairs_of_an_arc_task(arc: Path, capsys: pytest.CaptureFixture[str]) -> None:
    boards = as_json(capsys, "--bundle", "arc", "--arc", "two.json", "--starts", 2, "--choose", "majority")["boards"]
    assert [board["source"] for board in boards] == ["two, test pair 1 of 2", "two, test pair 2 of 2"]
    assert all(board["is_valid"] is None and board["is_right"] is False for board in boards)
    code, out, _ = run(capsys, "--bundle", "arc", "--arc", "two.json", "--trace", "--segments", 1)
    assert code == 0
    assert out.count("the expected answer stands on the right") == 2
    assert out.count("segment 1,") == 2


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--arc", "three.json"], "does not know task three: an ARC solver knows the tasks of its dataset alone"),
        (["--arc", "none.json"], "none.json does not exist"),
        (["--puzzle", PUZZLE], "was trained on puzzles of kind 'arc'; give it one with --arc"),
        (["--arc", "two.json", "--starts", "3"], "was trained on in 2 variants"),
        (["--arc", "two.json", "--until-valid", "3"], "arc boards have none"),
        ([], "or give a puzzle with --puzzle, --maze or --arc (lab solve)"),
    ],
)
def test_what_an_arc_solver_cannot_do(
    arc: Path, words: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = run(capsys, "--bundle", "arc", *words)
    assert (code, out) == (2, "")
    assert told in err


def test_a_puzzle_with_several_solutions_is_answered_with_a_warning(
    solvers: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = run(capsys, "--bundle", "four", "--puzzle", "." * 16)
    assert code == 0
    assert "more than one solution" in err
    assert "right" not in out


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--puzzle", PUZZLE[:-1]], "a Sudoku has 16, 36 or 81 cells"),
        (["--puzzle", "." * 81], "this is a 9x9 Sudoku of 81 cells; the solver takes 4x4, 16 cells"),
        (["--puzzle", "x" + PUZZLE[1:]], "character 1 is 'x'"),
        (["--puzzle", "9" + "." * 15], "a 4x4 Sudoku has 1 to 4"),
        (["--puzzle", "11" + "." * 14], "stands twice in its row, column or box"),
        (["--puzzle", "12.." + "..34" + "." * 8], "this Sudoku has no solution"),
        (["--puzzle", PUZZLE, "--index", "1"], "--puzzle and --index each name a puzzle"),
        (["--maze", "maze.txt"], "was trained on puzzles of kind 'sudoku'; give it one with --puzzle"),
        (["--puzzle", PUZZLE, "--segments", "0"], "--segments "),
        (["--puzzle", PUZZLE, "--segments", "65"], "--segments "),
        (["--puzzle", PUZZLE, "--starts", "100"], "--starts "),
        (["--puzzle", PUZZLE, "--until-valid", "-1"], "--until-valid "),
        (["--puzzle", PUZZLE, "--choose", "luck"], "--choose"),
        (["--index", "2"], "row 2: "),
        (["--puzzle", PUZZLE, "--device", "abacus"], "--device "),
    ],
)
def test_bad_input_is_refused_in_one_sentence(
    solvers: Path, words: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = run(capsys, "--bundle", "four", *words)
    assert (code, out) == (2, "")
    assert told in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("drawing", "told"),
    [
        (None, "does not exist"),
        (MAZE + "#####\n", "mazes of 5 lines of 5 characters; this has 6 lines of up to 5"),
        (MAZE.replace("S", "o"), "line 2, column 2 is 'o'"),
        (MAZE.replace("S", " "), "this has 0 S and 1 G"),
        (MAZE.replace("### #", "#####"), "no way leads from S to G"),
        (b"\xff\xfe", "cannot be read as a drawn maze"),
    ],
)
def test_mazes_that_are_none(
    solvers: Path, drawing: str | bytes | None, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if drawing is not None:
        (solvers / "maze.txt").write_bytes(drawing if isinstance(drawing, bytes) else drawing.encode())
    code, out, err = run(capsys, "--bundle", "maze", "--maze", "maze.txt")
    assert (code, out) == (2, "")
    assert told in err


def test_bundles_that_are_none(solvers: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(capsys, "--bundle", "maze")
    assert code == 2
    assert "does not exist: give a puzzle with --puzzle, --maze or --arc" in err
    code, _, err = run(capsys, "--bundle", "nobody")
    assert code == 2
    assert "no run 'nobody'" in err
    text = solvers / "artifacts" / "brains" / "actv1" / "text"
    text.mkdir(parents=True)
    content = json.loads((solvers / "artifacts" / "runs" / "four" / "config.json").read_text())
    (text / "config.json").write_text(json.dumps({**content, "kind": "actv1"}))
    seal_bundle(text, "actv1", [], {})
    code, _, err = run(capsys, "--bundle", "text", "--puzzle", PUZZLE)
    assert code == 2
    assert "describes a bundle of kind 'actv1'; this command needs kind 'puzzle'" in err
