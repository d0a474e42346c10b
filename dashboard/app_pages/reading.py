"""A brain reads a given text in the Playground: each token coloured by how long the brain thought before it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import streamlit as st

from dashboard.app_pages.forms import control, submitted
from dashboard.app_pages.parts import plain
from dashboard.formats import count, loss
from dashboard.queries.bundles import Brain
from dashboard.resources import text_bundle, workspace
from hrm_engine.config.forms import form_field
from hrm_engine.config.writing import WritingConfig

if TYPE_CHECKING:
    from streamlit.delta_generator import DeltaGenerator

    from hrm_engine.inference.text.reading import ReadToken

_EXAMPLE = "The list is sorted in place, and the first item is returned."


@dataclass(frozen=True, eq=False)
class Read:
    """A text that was read, and how many segments a token could run."""

    tokens: list[ReadToken]
    num_segments: int


def reading_section(brain: Brain, left: DeltaGenerator, right: DeltaGenerator) -> None:
    """A text and a threshold on the left, where the brain thinks long in it on the right."""
    if brain.segments == 1:
        with right:
            plain("This brain runs one segment at every token: there is no depth to look at. Choose another brain.")
        return
    with left:
        text = st.text_area("Text", _EXAMPLE, key="read_text", height=200, max_chars=100_000)
        field = form_field(
            WritingConfig,
            "halt_threshold",
            value=0.5,
            label="Go on above a probability of",
            help="At 0 every token runs all segments, at 1 only the first",
        )
        threshold = control(field, key="read_threshold")
        is_pressed = st.button("Read", type="primary", width="stretch")
    with right:
        question = (brain.id, brain.version)
        result = submitted(
            "read", question, is_pressed, lambda: read(brain, text, threshold), "The brain cannot read this"
        )
        if result is None:
            plain(
                "Read shows the text here; the ground of a token is stronger the more segments the brain ran before it "
                "said what it expects there."
            )
        elif not result.tokens:
            plain("There is no text to read.")
        else:
            show(result)


def read(brain: Brain, text: str, threshold: float) -> Read:
    """Load the brain if need be and read the text.

    Raises:
        HRMError: the bundle cannot be loaded, or the text is refused.
    """
    with st.spinner("Reading"):
        from hrm_engine.bundles.steering import steer
        from hrm_engine.inference.text.reading import read_tokens

        shared = text_bundle(brain.path, brain.version)
        with shared.lock:
            # A text written before may have left its goals in the model.
            steer(shared.bundle, workspace=workspace())
            tokens = read_tokens(shared.bundle, text, halt_threshold=threshold)
    return Read(tokens, shared.bundle.config.halt_max_steps)


def show(result: Read) -> None:
    """The text, its depths and figures. What was typed is escaped there."""
    from hrm_engine.data.text.drawing import depth_html, depth_legend

    depths, losses = [token.depth for token in result.tokens], [token.loss for token in result.tokens]
    texts, most = [token.text for token in result.tokens], result.num_segments
    st.html(f'<div class="written">{depth_html(texts, depths, num_segments=most, losses=losses)}</div>')
    st.html(depth_legend(depths, num_segments=most))
    depth, surprise, tokens = st.columns(3)
    depth.metric("Mean depth", f"{sum(depths) / len(depths):.2f}")
    surprise.metric("Mean loss", loss(sum(losses) / len(losses)), help="Nats per token, at the depth that each ran")
    tokens.metric("Tokens", count(len(depths)))
