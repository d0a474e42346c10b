"""What notebooks show of puzzles: still and moving, as picture and as text."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hrm_engine.data.puzzles.board import PAD
from hrm_engine.data.puzzles.drawing import WRONG
from hrm_engine.data.puzzles.format import open_dataset
from hrm_engine.data.puzzles.kinds import BOARDS
from hrm_engine.errors import DataError
from hrm_engine.inference import Segment, Trace
from lab.runner.sanitize import clean_html
from lab.widgets import LatentView, PuzzleView, TraceViewer
from lab.widgets.trace_pictures import TracePictures, wrong_cells
from lab.widgets.trace_text import trace_text
from tests.lab.traces import SOLUTION, sudoku_trace
from tests.tiny_puzzles import make_puzzles

WIDGET = "application/vnd.jupyter.widget-view+json"
PLOTLY = "application/vnd.plotly.v1+json"


def pictures(html: str) -> list[str]:
    """The SVGs in the images of a page."""
    found = re.findall(r'src="data:image/svg\+xml;base64,([^"]+)"', html)
    return [base64.b64decode(one).decode() for one in found]


def told(svg: str) -> list[str]:
    """All texts of a picture."""
    return [element.text or "" for element in ElementTree.fromstring(svg).iter() if element.tag.endswith("}text")]


def test_the_slider_goes_through_the_puzzle_and_all_segments() -> None:
    viewer = TraceViewer(sudoku_trace(), solution=SOLUTION)
    assert (viewer.slider.min, viewer.slider.max) == (0, 3)
    assert viewer.stack.selected_index == viewer.slider.value == 1
    assert len(viewer.stack.children) == 4
    halting = [re.findall(r">([^<]+)</text>", child.value) for child in viewer.stack.children]
    assert [texts[0] for texts in halting] == ["the puzzle", "segment 1", "segment 2", "segment 3"]
    assert all("probability of halting" in texts for texts in halting)
    # The browser moves it: the links are widgets themselves and need no kernel.
    play, slide = viewer.links
    assert (play.target, slide.source) == ((viewer.slider, "value"), (viewer.slider, "value"))
    assert slide.target == (viewer.stack, "selected_index")


def test_a_page_shows_every_moment_side_by_side() -> None:
    viewer = TraceViewer(sudoku_trace(), solution=SOLUTION)
    shown = viewer._repr_mimebundle_()
    assert shown[WIDGET]["model_id"] == viewer.model_id
    drawn = pictures(shown["text/html"])
    assert [told(svg)[0] for svg in drawn] == ["the puzzle", "segment 1", "segment 2", "segment 3"]
    assert "halt 0.25, 7 changed" in told(drawn[1])
    assert "1 wrong" in told(drawn[1])
    assert "halt 0.88, 1 changed" in told(drawn[2])
    assert "all right" in told(drawn[2])
    assert ["halts here" in told(svg) for svg in drawn] == [False, False, True, False]
    assert ["opacity=" in svg.split("<text")[0] for svg in drawn] == [False, False, False, True], "pale after the halt"
    assert [svg.count('data-mark="changed"') for svg in drawn] == [0, 7, 1, 0]
    assert [svg.count('data-mark="wrong"') for svg in drawn] == [0, 1, 0, 0]


def test_what_a_page_shows_survives_its_cleaning() -> None:
    html = TraceViewer(sudoku_trace(), solution=SOLUTION).still()
    cleaned = clean_html(html)
    assert pictures(cleaned) == pictures(html)
    assert cleaned.count("alt=") == 4
    assert WRONG in cleaned


def test_the_text_ends_where_the_solver_halts() -> None:
    assert trace_text(sudoku_trace(), solution=SOLUTION) == "\n".join(
        [
            "the puzzle       segment 1        segment 2",
            "+-----+-----+    +-----+-----+    +-----+-----+",
            "| 4 . | . 1 |    | 4 3*| 2*1 |    | 4 3 | 2 1 |",
            "| . 1 | 4 3 |    | 2*1 | 4 3 |    | 2 1 | 4 3 |",
            "+-----+-----+    +-----+-----+    +-----+-----+",
            "| 3 . | 1 . |    | 3 4*| 1 2*|    | 3 4 | 1 2 |",
            "| . 2 | . 4 |    | 1*2 | 2*4 |    | 1 2 | 3*4 |",
            "+-----+-----+    +-----+-----+    +-----+-----+",
            "                 7 changed *      1 changed *",
            "                 1 wrong          all right",
            "                 halt 0.25        halt 0.88",
            "                                  halts here",
        ]
    )
    assert "segment 3" in trace_text(sudoku_trace(halts=False))
    assert "wrong" not in trace_text(sudoku_trace())
    assert TraceViewer(sudoku_trace())._repr_mimebundle_()["text/plain"] == trace_text(sudoku_trace())


@pytest.mark.parametrize(("width", "in_a_row"), [(1, 1), (13, 1), (30, 2), (80, 4), (1000, 4)])
def test_boards_stand_in_as_many_rows_as_the_width_asks_for(width: int, in_a_row: int) -> None:
    lines = trace_text(sudoku_trace(halts=False), width=width).splitlines()
    names = [line for line in lines if "segment" in line or "puzzle" in line]
    assert len(names) == -(-4 // in_a_row)
    assert max(map(len, lines)) <= max(width, 13)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_every_kind_of_board_is_drawn(data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(list(BOARDS)))
    side = data.draw(st.sampled_from((4, 6, 9)) if kind == "sudoku" else st.integers(1, 12))
    most = {"sudoku": side + 1, "maze": 5, "arc": 11, "other": 40}[kind]
    boards = data.draw(
        st.lists(st.lists(st.integers(0, most), min_size=side * side, max_size=side * side), min_size=2, max_size=5)
    )
    inputs, solution, *predictions = (np.array(board) for board in [boards[0], *boards])
    made, before = [], inputs
    for number, board in enumerate(predictions, start=1):
        halt = data.draw(st.floats(0, 1))
        made.append(Segment(number, board, board != before, halt, None, halt > 0.5, 0.0))
        before = board
    trace = Trace(BOARDS[kind], side, side, inputs, tuple(made))
    viewer = TraceViewer(trace, solution=solution)
    drawn = pictures(viewer.still())
    assert len(drawn) == len(made) + 1
    for svg, segment in zip(drawn[1:], made, strict=True):
        wrong = int(((segment.prediction != solution) & (solution != PAD)).sum())
        assert (f"{wrong} wrong" if wrong else "all right") in told(svg)
    for child in viewer.stack.children:
        ElementTree.fromstring(child.value.replace("&nbsp;", " "))
    assert viewer.text()
    viewer.close_all()


def test_padding_of_the_solution_is_not_asked_for() -> None:
    segment = Segment(1, np.array([1, 2, 3]), np.zeros(3, bool), 0.0, None, False, 0.0)
    assert wrong_cells(segment, np.array([1, 3, PAD])).tolist() == [False, True, False]


def test_a_solution_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match="the board has 16 cells"):
        TraceViewer(sudoku_trace(), solution=SOLUTION[:9])


def test_text_in_a_picture_cannot_leave_it() -> None:
    svg = TracePictures(sudoku_trace(), ink='"/><script>1</script>', paper='"/><script>2</script>').moment(1)
    assert [element.tag for element in ElementTree.fromstring(svg).iter() if element.tag.endswith("script")] == []


@pytest.mark.parametrize("by_position", [False, True])
def test_the_latent_view_is_a_figure_with_a_ring_where_it_halts(by_position: bool) -> None:
    view = LatentView(sudoku_trace(states=True), by_position=by_position)
    shown = view._repr_mimebundle_()
    json.dumps(shown)
    paths = shown[PLOTLY]["data"]
    assert [len(path["x"]) for path in paths] == [3, 3]
    assert [path["text"] for path in paths] == [["1", "2", "3"]] * 2
    assert [path["marker"]["line"]["width"] for path in paths] == [[1, 3, 1]] * 2
    assert np.allclose(paths[0]["x"], view.paths["z_h"][:, 0])
    assert len(shown["text/plain"].splitlines()) == 6


def test_one_segment_has_a_latent_view_too() -> None:
    assert LatentView(sudoku_trace(states=True, num_segments=1)).paths["z_l"].tolist() == [[0.0, 0.0]]


def test_states_that_were_not_kept_cannot_be_seen() -> None:
    with pytest.raises(ValueError, match="keep_states"):
        LatentView(sudoku_trace())


def test_a_row_of_a_dataset_as_picture_and_as_text(tmp_path: Path) -> None:
    dataset = open_dataset(make_puzzles(tmp_path / "tiny"), "test")
    view = PuzzleView(dataset, 3)
    puzzle, solution = (told(svg) for svg in pictures(view._repr_html_()))
    assert (len(puzzle), len(solution)) == (10, 16)
    assert pictures(clean_html(view._repr_html_())) == pictures(view._repr_html_())
    # the page around it may be dark
    assert all('height="179.00" fill="#ffffff"/>' in picture for picture in pictures(view._repr_html_()))
    assert repr(view).splitlines()[0].split() == ["puzzle", "solution"]
    assert repr(view).count(".") == 6
    with pytest.raises(DataError, match="row 16"):
        PuzzleView(dataset, 16)
