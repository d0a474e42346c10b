"""Stop strings: the same end however the text is cut into pieces, and nothing is held back without need."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hrm_engine.config import build_config
from hrm_engine.config.writing import SamplingConfig
from hrm_engine.errors import ConfigError
from hrm_engine.inference.text.stop_strings import StopFinder

LETTERS = st.text("abc", min_size=1, max_size=4)


def by_definition(text: str, strings: list[str]) -> tuple[str, bool]:
    """Read character by character: the text ends at the first moment at which it ends with a stop string."""
    for end in range(1, len(text) + 1):
        complete = [string for string in strings if text[:end].endswith(string)]
        if complete:
            return text[: end - max(map(len, complete))], True
    return text, False


@settings(deadline=None)
@given(st.lists(LETTERS, max_size=3), st.lists(st.text("abcx", max_size=5), max_size=8))
def test_the_end_does_not_depend_on_the_pieces(strings: list[str], pieces: list[str]) -> None:
    finder, shown = StopFinder(strings), ""
    for piece in pieces:
        if finder.has_ended:
            break
        shown += finder.push(piece)
    shown += finder.rest()
    assert (shown, finder.has_ended) == by_definition("".join(pieces), strings)


@settings(deadline=None)
@given(st.lists(LETTERS, min_size=1, max_size=3), st.text("abcx", max_size=12))
def test_only_the_beginning_of_a_stop_string_is_held_back(strings: list[str], text: str) -> None:
    finder = StopFinder(strings)
    shown = finder.push(text)
    if not finder.has_ended:
        held = text[len(shown) :]
        assert not held or any(string.startswith(held) and string != held for string in strings)
        assert finder.rest() == held
        assert finder.rest() == ""


def test_one_string_is_one_string() -> None:
    assert build_config(SamplingConfig, overrides={"stop": "END"}).stop == ("END",)
    assert build_config(SamplingConfig, overrides={"stop": ["a", "b"]}).stop == ("a", "b")
    with pytest.raises(ConfigError, match="empty"):
        build_config(SamplingConfig, overrides={"stop": ["a", ""]})
