"""Boards as SVG: well-formed, every cell once, marks where they belong, nothing that a page would interpret."""

from __future__ import annotations

import base64
import re
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hrm_engine.data.puzzles.arc.board import ARC_COLOURS
from hrm_engine.data.puzzles.board import extent
from hrm_engine.data.puzzles.drawing import OWN, WRONG, board_svg, data_uri
from hrm_engine.data.puzzles.kinds import BOARDS

NAMESPACE = "{http://www.w3.org/2000/svg}"
PUZZLE = BOARDS["sudoku"].to_tokens("1.3.34....43.3.1")
ANSWER = BOARDS["sudoku"].to_tokens("1234341221434321")


def elements(svg: str, name: str) -> list[ElementTree.Element]:
    return ElementTree.fromstring(svg).findall(f".//{NAMESPACE}{name}")


def marks(svg: str, name: str) -> int:
    return sum(element.get("data-mark") == name for element in ElementTree.fromstring(svg).iter())


def test_givens_are_bold_and_answers_are_not() -> None:
    texts = elements(board_svg(BOARDS["sudoku"], ANSWER, 4, 4, given=PUZZLE), "text")
    assert "".join(text.text or "" for text in texts) == "1234341221434321"
    bold = [text.text for text in texts if text.get("font-weight") == "700"]
    assert bold == [*"1334" + "4331"]
    assert {text.get("fill") for text in texts if text.get("font-weight") == "400"} == {OWN}


def test_blanks_are_empty() -> None:
    assert len(elements(board_svg(BOARDS["sudoku"], PUZZLE, 4, 4), "text")) == 8


def test_changed_and_wrong_cells_are_marked() -> None:
    changed, wrong = ANSWER != PUZZLE, np.zeros(16, dtype=bool)
    wrong[[1, 6]] = True
    svg = board_svg(BOARDS["sudoku"], ANSWER, 4, 4, given=PUZZLE, changed=changed, wrong=wrong)
    assert marks(svg, "changed") == changed.sum()
    assert marks(svg, "wrong") == 2
    assert sum(text.get("fill") == WRONG for text in elements(svg, "text")) == 2


@pytest.mark.parametrize(("kind", "token"), [("maze", 5), ("arc", 5)])
def test_marks_on_coloured_cells(kind: str, token: int) -> None:
    cells = np.arange(9) < 4
    svg = board_svg(BOARDS[kind], np.full(9, token), 3, 3, changed=cells, wrong=~cells)  # type: ignore[arg-type]
    assert marks(svg, "changed") == 4
    assert marks(svg, "wrong") == 5


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 8), st.integers(1, 8), st.randoms(use_true_random=False))
def test_every_coloured_cell_has_its_area_once(height: int, width: int, draw: object) -> None:
    tokens = np.array([draw.randrange(0, 12) for _ in range(height * width)])  # type: ignore[attr-defined]
    svg = board_svg(BOARDS["arc"], tokens, height, width, side_px=20 * max(height, width))
    areas = dict.fromkeys(ARC_COLOURS, 0.0)
    for rect in elements(svg, "rect"):
        if rect.get("fill") in areas:
            areas[str(rect.get("fill"))] += float(rect.get("width", 0)) * float(rect.get("height", 0))
    for number, colour in enumerate(ARC_COLOURS):
        assert areas[colour] == pytest.approx(400 * int((tokens == number + 2).sum()), abs=1)


def test_a_region_alone_is_drawn() -> None:
    board = np.zeros((30, 30), dtype=np.int64)
    board[:2, :3] = 4
    svg = board_svg(BOARDS["arc"], board.ravel(), 30, 30, region=extent([board.ravel()], 30, 30))
    root = ElementTree.fromstring(svg)
    assert float(root.get("width", 0)) / float(root.get("height", 1)) == pytest.approx(3 / 2, rel=0.05)


def test_other_boards_show_numbers() -> None:
    texts = elements(board_svg(BOARDS["other"], np.array([3, 14, 0]), 1, 3), "text")
    assert [text.text for text in texts] == ["3", "14", "0"]


def test_a_title_is_text() -> None:
    title = '<script>alert(1)</script> & "x"'
    svg = board_svg(BOARDS["sudoku"], PUZZLE, 4, 4, title=title, ink='red" onload="alert(1)')
    assert elements(svg, "title")[0].text == title
    assert not re.search(r"<script|\sonload=\"", svg)


def test_a_uri_holds_the_picture() -> None:
    svg = board_svg(BOARDS["sudoku"], PUZZLE, 4, 4, title="Größe 4")
    kind, _, content = data_uri(svg).partition(",")
    assert kind == "data:image/svg+xml;base64"
    assert base64.b64decode(content).decode() == svg


def test_cells_of_another_number_are_refused() -> None:
    with pytest.raises(ValueError, match="a board of 4 x 4 is drawn"):
        board_svg(BOARDS["sudoku"], PUZZLE[:9], 4, 4)
    with pytest.raises(ValueError, match="a board of 4 x 4 is drawn"):
        board_svg(BOARDS["sudoku"], PUZZLE, 4, 4, changed=np.zeros(3, dtype=bool))
