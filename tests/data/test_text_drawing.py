"""Text coloured by depth: what is drawn of any text, and that it cannot leave its place."""

from __future__ import annotations

import re

import pytest
from bs4 import BeautifulSoup
from hypothesis import given, settings
from hypothesis import strategies as st

from hrm_engine.data.text.drawing import depth_html, depth_legend, depth_text


def strengths(html: str) -> list[float]:
    """How strong the ground of each token is."""
    return [float(share) for share in re.findall(r"rgba\(\d+,\d+,\d+,([\d.]+)\)", html)]


def test_deeper_tokens_have_a_stronger_ground_and_say_their_depth() -> None:
    html = depth_html(["a", " b", "c"], [1, 2, 4], num_segments=4, prompt="p ")
    assert strengths(html) == sorted(set(strengths(html)))
    assert re.findall(r'title="([^"]+)"', html) == [
        "token 1: 1 segment of 4",
        "token 2: 2 segments of 4",
        "token 3: 4 segments of 4",
    ]
    assert BeautifulSoup(html, "html.parser").get_text() == "p a bc"


def test_the_legend_counts_tokens_by_depth() -> None:
    shown = BeautifulSoup(depth_legend([1, 1, 3], num_segments=3), "html.parser").get_text().replace("\xa0", " ")
    assert re.findall(r" (\d)  (\d)", shown) == [("1", "2"), ("2", "0"), ("3", "1")]
    assert "mean 1.67 of 3" in shown
    assert "no token" in depth_legend([], num_segments=3)
    assert strengths(depth_legend([64], num_segments=64)) == [0.6]
    assert len(strengths(depth_legend([1], num_segments=1))) == 1


def test_line_ends_and_spaces_stay() -> None:
    html = depth_html(["a  b", "\n", "\t"], [1, 1, 1], num_segments=1)
    assert "a&nbsp; b" in html
    assert "&#8629;<br>" in html
    assert "&nbsp;&nbsp; </span>" in html


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.text(max_size=6), st.integers(1, 5)), max_size=8), st.text(max_size=8))
def test_text_cannot_leave_its_place(tokens: list[tuple[str, int]], prompt: str) -> None:
    html = depth_html([text for text, _ in tokens], [depth for _, depth in tokens], num_segments=5, prompt=prompt)
    soup = BeautifulSoup(html, "html.parser")
    assert {tag.name for tag in soup.find_all()} <= {"div", "span", "br"}
    assert all(set(tag.attrs) <= {"style", "title"} for tag in soup.find_all())
    assert len(soup.find_all("span")) == bool(prompt) + sum(bool(text) for text, _ in tokens)


def test_hostile_text_is_escaped() -> None:
    html = depth_html(['<script>"', "</span>"], [1, 1], num_segments=1, prompt="<img src=x>\x1b[2J")
    assert "<script" not in html
    assert "<img" not in html
    assert "\x1b" not in html


def test_plain_text_has_the_depth_behind_every_token() -> None:
    assert depth_text(["the", "", " cat"], [2, 1, 3], prompt="See ") == "See the/2 cat/3\nmean depth 2.00"
    assert depth_text([], [], prompt="x") == "x"


def test_losses_are_said_beside_depths() -> None:
    html = depth_html(["a", "", "b"], [1, 1, 2], num_segments=2, losses=[0.25, 1.0, 12.3456])
    assert re.findall(r'title="([^"]+)"', html) == [
        "token 1: 1 segment of 2, loss 0.250",
        "token 3: 2 segments of 2, loss 12.346",
    ]
    assert "mean 1.50 of 2, mean loss 0.750 nats/token" in depth_legend([1, 2], num_segments=2, losses=[0.5, 1.0])
    assert depth_text(["a"], [1], losses=[0.5]) == "a/1\nmean depth 1.00, mean loss 0.500 nats/token"
    assert "loss" not in depth_legend([], num_segments=2, losses=[])


def test_every_token_needs_a_depth() -> None:
    with pytest.raises(ValueError, match="zip"):
        depth_html(["a"], [], num_segments=1)
    with pytest.raises(ValueError, match="zip"):
        depth_html(["a"], [1], num_segments=1, losses=[])
