"""The published CSV form: what it means, what is refused and where."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hrm_engine.data.puzzles.rated import Puzzles
from hrm_engine.data.puzzles.sudoku.csv_files import Selection, read_csv
from hrm_engine.data.puzzles.sudoku.generate import generate
from hrm_engine.errors import DataError
from tests.data.puzzles.csv_text import HEADER, written

QUESTION, ANSWER = "12..341.21434.2.", "1234341221434321"
NINE = (
    "53..7....6..195....98....6.8...6...34..8.3..17...2...6.6....28....419..5....8..79",
    "534678912672195348198342567859761423426853791713924856961537284287419635345286179",
)
GOOD = f"here,{QUESTION},{ANSWER},3\n"


def save(folder: Path, text: str) -> Path:
    path = folder / "puzzles.csv"
    path.write_text(text, encoding="utf8", newline="")
    return path


@pytest.mark.parametrize("size", [4, 6, 9])
def test_puzzles_come_back_with_their_lines(size: int, tmp_path: Path) -> None:
    puzzles = Puzzles.joined(list(generate(size, 30, seed=1)))
    (block,) = read_csv(save(tmp_path, written(puzzles)))
    for name in ("inputs", "labels", "ratings"):
        np.testing.assert_array_equal(getattr(block.puzzles, name), getattr(puzzles, name))
    assert block.lines.tolist() == list(range(2, 32))


def test_zero_is_a_blank_and_line_ends_and_marks_of_windows_are_read(tmp_path: Path) -> None:
    text = "\ufeff" + (HEADER + f'"a, ""b""",{QUESTION.replace(".", "0")},{ANSWER},7\n\n' + GOOD).replace("\n", "\r\n")
    (block,) = read_csv(save(tmp_path, text))
    assert (block.puzzles.inputs[0] == block.puzzles.inputs[1]).all()
    assert (block.puzzles.ratings.tolist(), block.lines.tolist()) == ([7, 3], [2, 4])


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "line 1: the header source,question,answer,rating is expected, found ''"),
        ("question,answer\n", "line 1: the header .* found 'question,answer'"),
        (GOOD, "line 1: the header"),
        (HEADER + GOOD + "here,12\n", "line 3: 4 columns are expected, found 2"),
        (HEADER + GOOD + f"here,{QUESTION[:-1]},{ANSWER},0\n", "line 3: the question has 15 characters, 16 are"),
        (HEADER + GOOD + f"here,{QUESTION},{ANSWER}1,0\n", "line 3: the answer has 17 characters, 16 are"),
        (HEADER + GOOD + f"here,{NINE[0]},{NINE[1]},0\n", "line 3: the question has 81 characters, 16 are"),
        (HEADER + f"here,{'.' * 25},{'1' * 25},0\n", "line 2: question: a Sudoku has 16, 36 or 81 cells"),
        (HEADER + GOOD + f"here,5{QUESTION[1:]},{ANSWER},0\n", "line 3: character 1 of the question is '5'"),
        (HEADER + GOOD + f"here,{QUESTION[:15]}x,{ANSWER},0\n", "line 3: character 16 of the question is 'x'"),
        (HEADER + GOOD + f"here,{QUESTION[:15]}ø,{ANSWER},0\n", "line 3: character 16 of the question is 'ø'"),
        (HEADER + GOOD + f"here,{QUESTION[:15]}木,{ANSWER},0\n", "line 3: character 16 of the question is '木'"),
        (HEADER + GOOD + f"here,{QUESTION},.{ANSWER[1:]},0\n", r"line 3: character 1 of the answer is '\.'.* 1 to 4$"),
        (
            HEADER + f"here,2{QUESTION[1:]},{ANSWER},0\n",
            "line 2: the answer contradicts .* in row 1, column 1",
        ),
        (HEADER + f"here,{'.' * 16},1{ANSWER[:15]},0\n", "line 2: the answer has a digit twice"),
        (HEADER + GOOD + f"here,{QUESTION},{ANSWER},hard\n", "line 3: the rating 'hard' is not a whole number"),
        (HEADER + GOOD + f"here,{QUESTION},{ANSWER},{'9' * 30}\n", "line 3: the rating '9"),
        (HEADER + GOOD + f'here,"{QUESTION},{ANSWER},0\n', "line 3: cannot be read as CSV"),
    ],
)
def test_a_bad_line_is_named(text: str, told: str, tmp_path: Path) -> None:
    path = save(tmp_path, text)
    with pytest.raises(DataError, match=rf"puzzles\.csv, {told}"):
        list(read_csv(path))


def test_a_bad_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.csv does not exist"):
        list(read_csv(tmp_path / "none.csv"))
    (tmp_path / "binary.csv").write_bytes(HEADER.encode() + b"here,\xff\xfe,1,1\n")
    with pytest.raises(DataError, match=r"binary\.csv, after line 0: not UTF-8 text"):
        list(read_csv(tmp_path / "binary.csv"))
    with pytest.raises(DataError, match=r"puzzles\.csv holds no puzzle with a rating of 0"):
        Selection(save(tmp_path, HEADER)).board_size()
    with pytest.raises(DataError, match=r"line 2: the question has 16 characters, 81"):
        list(read_csv(save(tmp_path, HEADER + GOOD), size=9))


def test_a_puzzle_with_several_solutions_is_refused_by_its_line(tmp_path: Path) -> None:
    path = save(tmp_path, HEADER + GOOD + "\n" + f"here,{'.' * 16},{ANSWER},0\n")
    with pytest.raises(DataError, match=r"puzzles\.csv, line 4: the puzzle has more than one solution: remove"):
        list(Selection(path).blocks())


def test_a_file_is_parted_without_loss(tmp_path: Path) -> None:
    puzzles = Puzzles.joined(list(generate(4, 40, seed=1)))
    ratings = np.arange(40)
    source = Selection(save(tmp_path, written(Puzzles(puzzles.inputs, puzzles.labels, ratings))), min_difficulty=10)
    assert source.board_size() == 4
    test, rest = source.parted(8, seed=3, name="test")
    some, others = rest.parted(12, seed=3, name="train")
    parts = [Puzzles.joined(list(part.blocks())) for part in (test, some, others)]
    assert [len(part) for part in parts] == [8, 12, 10]
    for part in parts:
        assert (np.diff(part.ratings) > 0).all()
        np.testing.assert_array_equal(part.inputs, puzzles.inputs[part.ratings])
    assert sorted(np.concatenate([part.ratings for part in parts])) == list(range(10, 40))
    again, _ = source.parted(8, seed=3, name="test")
    np.testing.assert_array_equal(Puzzles.joined(list(again.blocks())).inputs, parts[0].inputs)
    with pytest.raises(DataError, match="has 30 puzzles to choose from, but 31 are needed"):
        source.parted(31, seed=0, name="test")
