"""Small pieces that several pages show. Text from files goes through ``st.text`` and ``st.code``, never Markdown."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import streamlit as st

from dashboard.charts.style import BLUE, CONFIG

if TYPE_CHECKING:
    import plotly.graph_objects as go

BadgeColour = Literal["blue", "green", "gray", "red", "orange"]

STATE_COLOURS: dict[str, BadgeColour] = {
    "running": "blue",
    "finished": "green",
    "stopped": "gray",
    "failed": "red",
    "dead": "orange",
    "unknown": "gray",
}
# The same in the table of runs, whose cells take no theme colours: pale enough for dark text, dark enough to be seen.
STATE_CHIPS = {
    "running": "#9cc8ea",
    "finished": "#9ed8c2",
    "stopped": "#c9ced6",
    "failed": "#f6b8b8",
    "dead": "#f1c196",
    "unknown": "#dcdfe4",
}

# Of experts and goals.
USE_CHIPS = {
    "active": "#9cc8ea",
    "inactive": "#c9ced6",
    "frozen": "#9ed8c2",
    "attached": "#f1c196",
}

_STYLE = """<style>
[data-testid="stText"] { font-size: 0.9rem; opacity: 0.75; }
.st-key-run_title [data-testid="stText"] { font-size: 1.6rem; font-weight: 600; opacity: 1; overflow-wrap: anywhere; }
[class*="st-key-sentence"] { border-left: 4px solid #d1651a; }
[class*="st-key-sentence"] [data-testid="stText"] { white-space: pre-wrap; overflow-wrap: anywhere; opacity: 1; }
.st-key-card_title [data-testid="stText"] { font-size: 1.25rem; font-weight: 600; opacity: 1; overflow-wrap: anywhere; }
[class*="st-key-words"] [data-testid="stText"] { white-space: pre-wrap; overflow-wrap: anywhere; opacity: 1; }
.boards { display: flex; flex-wrap: wrap; gap: 0.9rem 1.1rem; align-items: flex-start; }
.boards figure { margin: 0; max-width: 100%; }
.boards img { display: block; max-width: 100%; height: auto; }
.boards figcaption { font-size: 0.82rem; opacity: 0.75; margin-bottom: 0.25rem; font-variant-numeric: tabular-nums; }
.boards figure.shown figcaption { opacity: 1; font-weight: 600; }
.written { font-size: 1.05rem; line-height: 1.75; overflow-wrap: anywhere; }
.written span { border-radius: 0.2rem; padding: 0.12rem 0; }
[data-testid="stMetricValue"] { font-variant-numeric: tabular-nums; }
</style>"""

_LOGO = f"""<svg xmlns="http://www.w3.org/2000/svg" width="116" height="28" viewBox="0 0 116 28">
<g fill="none" stroke="{BLUE}" stroke-width="2.4"><circle cx="11" cy="14" r="8.5"/><circle cx="11" cy="14" r="3"/></g>
<text x="28" y="20" font-family="sans-serif" font-weight="600" font-size="17" fill="{BLUE}">HRM Lab</text>
</svg>"""


def house_style() -> None:
    """Name, and the few rules that the theme has no setting for. Constants: no text from a file goes through here."""
    st.logo(_LOGO, size="large")
    st.html(_STYLE)


def plain(text: str) -> None:
    """Text as it is, small and quiet."""
    st.text(text)


def chart(figure: go.Figure, key: str, description: str) -> None:
    """A figure across the page. ``description`` is what a screen reader says of it."""
    st.plotly_chart(figure, key=key, config=CONFIG, alt=description)


def problem_box(headline: str, details: str = "") -> None:
    """Something is wrong and the page says so; ``details`` may hold anything."""
    st.error(headline)
    if details:
        st.code(details, language=None, wrap_lines=True)


def sentence(text: str, key: str = "sentence") -> None:
    """What is wrong and what to do, in one sentence that may quote anything; quieter than an error of the program.

    Where a page may show several, each has a ``key`` that begins with ``sentence``.
    """
    with st.container(border=True, key=key):
        st.text(text if text.endswith((".", "!", "?")) else f"{text}.")


def nothing_yet(headline: str, advice: str) -> None:
    """An empty state: what is missing, and what to do. Both are fixed sentences."""
    with st.container(border=True):
        st.markdown(f"**{headline}**")
        st.markdown(advice)
