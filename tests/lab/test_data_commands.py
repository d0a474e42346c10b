"""``lab data build-sudoku`` and ``lab data show``: what they print, what they refuse."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from hrm_engine.data.puzzles.description import About
from hrm_engine.data.puzzles.format import open_dataset
from hrm_engine.data.puzzles.kinds import BOARDS
from hrm_engine.data.puzzles.sudoku.board import parse_sudoku
from hrm_engine.data.puzzles.writer import DatasetWriter
from lab.cli.app import main

BUILD = ["data", "build-sudoku", "--size", "4", "--blanks", "8", "--count", "20", "--test-count", "5"]


def built(folder: str = "puzzles/small", *more: str) -> None:
    assert main([*BUILD, "--output-dir", folder, *more]) == 0


def test_build_and_show(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    built("puzzles/small", "--num-aug", "2")
    told = capsys.readouterr().out
    for line in (
        "folder             puzzles/small",
        "what               generated 4x4 Sudokus, 8 blanks",
        "training           20 puzzles, 60 rows with their variants",
        "test               5 puzzles",
    ):
        assert line in told
    assert open_dataset(workspace / "puzzles" / "small", "train").num_rows == 60
    assert main(["data", "show", "puzzles/small", "--index", "4", "--json"]) == 0
    row = json.loads(capsys.readouterr().out)
    assert (row["kind"], row["group"], row["variant"], row["rows"], row["rating"]) == ("sudoku", 1, 1, 60, 0)
    assert row["solution_is_valid"] is True
    puzzle, solution = parse_sudoku(row["input"]), parse_sudoku(row["solution"])
    assert BOARDS["sudoku"].is_valid(puzzle, solution)
    assert main(["data", "show", "puzzles/small"]) == 0
    shown = capsys.readouterr().out
    for name in ("index", "puzzle", "group", "variant"):
        assert f"{name:17}  0\n" in shown
    assert main(["data", "show", "puzzles/small", "--index", "4"]) == 0
    shown = capsys.readouterr().out
    assert "variant            1" in shown
    assert "PROXY" not in shown
    board = shown.splitlines()[-7:]
    assert {len(line) for line in board} == {2 * 13 + 4}
    assert "".join(cell for line in board for cell in line[:13] if cell in "1234.") == row["input"]
    assert "".join(cell for line in board for cell in line[17:] if cell in "1234") == row["solution"]


def test_the_default_seed_is_a_seed(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    built("one")
    built("two", "--seed", "42")
    built("three", "--seed", "43")
    fingerprints = [open_dataset(workspace / name, "train").fingerprint for name in ("one", "two", "three")]
    assert fingerprints[0] == fingerprints[1] != fingerprints[2]


def test_a_csv_file_through_the_command(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    built("made")
    dataset = open_dataset(workspace / "made", "train").sets[0]
    lines = ["source,question,answer,rating"]
    for inputs, labels in zip(dataset.inputs, dataset.labels, strict=True):
        question, answer = ("".join(str(int(token) - 1) for token in row) for row in (inputs, labels))
        lines.append(f"made,{question},{answer},1")
    (workspace / "a.csv").write_text("\n".join(lines) + "\n")
    words = ["data", "build-sudoku", "--csv", "a.csv", "--output-dir", "from-csv"]
    assert main([*words, "--test-count", "4", "--subsample-size", "10"]) == 0
    assert "training           10 puzzles, 10 rows" in capsys.readouterr().out
    (workspace / "a.csv").write_text("\n".join([*lines, "made,1,1,1"]))
    assert main([*words, "--test-count", "4", "--replace"]) == 2
    assert capsys.readouterr().err.endswith("a.csv, line 22: the question has 1 characters, 16 are expected\n")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--size", "5"], "4, 6 or 9"),
        (["--count", "0"], "--count"),
        (["--blanks", "65"], "--blanks 65: a 9x9 Sudoku with one solution has 1 to 64"),
        (["--csv", "a.csv"], "add --test-csv FILE or --test-count M"),
        (["--csv", "a.csv", "--count", "3", "--blanks", "4"], "--count and --blanks cannot be used with --csv"),
        (["--csv", "a.csv", "--hard-proxy"], "--hard-proxy cannot be used with --csv"),
        (["--csv", "none.csv", "--test-count", "1"], "none.csv does not exist"),
        (["--subsample-size", "3"], "--subsample-size goes with --csv"),
        (["--hard-proxy", "--size", "9"], "--size cannot be used with --hard-proxy"),
        (["--hard-proxy", "--seed", "1"], "--seed cannot be used with --hard-proxy"),
    ],
)
def test_flags_that_do_not_fit(
    words: list[str], told: str, workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["data", "build-sudoku", "--output-dir", "d", *words]) == 2
    shown = capsys.readouterr()
    assert told in shown.err
    assert shown.out == ""
    assert not (workspace / "d").exists()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["nowhere"], "no dataset at"),
        (["small", "--index", "20"], "has rows 0 to 19"),
        (["small", "--index", "-1"], "has rows 0 to 19"),
        (["small", "--split", "dev"], "use train or test"),
        (["small/train"], "give the folder above it"),
    ],
)
def test_what_cannot_be_shown(words: list[str], told: str, workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    built("small")
    capsys.readouterr()
    assert main(["data", "show", *words]) == 2
    shown = capsys.readouterr()
    assert told in shown.err
    assert shown.out == ""


def save(folder: Path, about: About, vocab_size: int, inputs: np.ndarray, labels: np.ndarray) -> None:
    with DatasetWriter(folder, about=about, vocab_size=vocab_size, seq_len=inputs.shape[1]) as dataset:
        dataset.split("test").add_puzzles(inputs, labels)


def test_other_boards_are_drawn(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    maze = np.array([[3, 1, 4, 2, 1, 2, 2, 2, 2]], np.uint8)
    way = np.array([[3, 1, 4, 5, 1, 5, 5, 5, 5]], np.uint8)
    save(workspace / "maze", About(kind="maze", height=3, width=3), 6, maze, way)
    assert main(["data", "show", "maze", "--split", "test"]) == 0
    assert capsys.readouterr().out.splitlines()[-3:] == [
        "S ##G     S ##G ",
        "  ##      o ##o ",
        "          o o o ",
    ]
    grid = np.zeros((1, 900), np.uint8)
    grid.reshape(30, 30)[:3, :3] = [[2, 3, 1], [11, 2, 1], [1, 1, 0]]
    save(workspace / "arc", About(kind="arc", height=30, width=30), 12, grid, grid)
    assert main(["data", "show", "arc", "--split", "test"]) == 0
    shown = capsys.readouterr().out
    assert shown.splitlines()[-3:] == ["0 1 |     0 1 | ", "9 0 |     9 0 | ", "| |       | |   "]
    assert "valid" not in shown
    save(workspace / "other", About(kind="other", height=1, width=3, is_proxy=True), 90, grid[:, :3], grid[:, :3])
    assert main(["data", "show", "other", "--split", "test"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("PROXY: results on this dataset are not comparable with published ones.\n")
    assert shown.splitlines()[-1] == "2 3 1     2 3 1 "


def test_colours_mark_what_is_given(
    workspace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    built("small")
    capsys.readouterr()
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert main(["data", "show", "small"]) == 0
    shown = capsys.readouterr().out
    dataset = open_dataset(workspace / "small", "train").sets[0]
    num_given = int((dataset.inputs[0] > 1).sum())
    assert shown.count("\x1b[1m") == 2 * num_given
    assert shown.count("\x1b[32m") == 16 - num_given
