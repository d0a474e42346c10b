"""Text in the Playground: a brain writes after a prompt or reads a given text; each token is coloured by its depth."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from dashboard.app_pages.parts import control, plain, sentence, submitted
from dashboard.formats import count, loss, rate
from dashboard.queries.bundles import Brain
from dashboard.queries.experts import served_goals
from dashboard.resources import text_bundle, workspace
from hrm_engine.config.forms import form_field
from hrm_engine.config.writing import GoalsConfig, WritingConfig
from hrm_engine.data.text.typed import typed_stop_strings
from hrm_engine.errors import HRMError
from hrm_engine.store.goals import Goals

if TYPE_CHECKING:
    from hrm_engine.bundles.steering import ExpertUse
    from hrm_engine.inference import Generation
    from hrm_engine.inference.text.reading import ReadToken

_REDRAW_S = 0.15
_EXAMPLE = "The list is sorted in place, and the first item is returned."
_ENDS = {
    "stop": "The model ended the text.",
    "stop_string": "The text ended before a stop string.",
    "length": "It has as many tokens as were asked for.",
    "context": "The model's context is full.",
}


@dataclass(frozen=True, eq=False)
class Written:
    """A finished text, and what was used for it."""

    generation: Generation
    experts: list[ExpertUse]
    notes: list[str]


def writing_section(brain: Brain, left: DeltaGenerator, right: DeltaGenerator) -> None:
    """A prompt and settings on the left, what the brain writes on the right."""
    with left:
        prompt = st.text_area("Prompt", "The ", key="prompt", height=110, max_chars=100_000)
        settings = controls(brain)
        goals, strength = goal_controls(brain)
        is_pressed = st.button("Write", type="primary", width="stretch")
    with right:
        box = st.empty()
        question = (brain.id, brain.version)
        write_it = partial(write, brain, prompt, settings, goals, strength, box)
        written = submitted("written", question, is_pressed, write_it, "The brain cannot continue this")
        if written is not None:
            show_written(written, box)
        else:
            box.text("Write continues the prompt here. A darker background means more segments.")


def controls(brain: Brain) -> dict[str, Any]:
    """How to write, as keywords of ``hrm_engine.stream``."""
    most = brain.context - 1
    tokens = form_field(WritingConfig, "max_new_tokens", high=most, label="Tokens at most")
    how: dict[str, Any] = {"max_new_tokens": control(tokens, key=f"tokens {brain.id}")}
    how["temperature"] = control(form_field(WritingConfig, "temperature"))
    if brain.segments > 1 and st.toggle(
        "Adaptive depth", key="adaptive", help="A token goes on only while its halting head finds that worth it"
    ):
        threshold = form_field(WritingConfig, "halt_threshold", value=0.5, label="Go on above a probability of")
        how["halt_threshold"] = control(threshold, key="threshold")
    with st.expander("More settings"):
        depth = form_field(WritingConfig, "segments", value=brain.segments)
        how["segments"] = control(depth, key=f"text segments {brain.id}")
        for name in ("top_k", "top_p", "repetition_penalty"):
            how[name] = control(form_field(WritingConfig, name))
        lines = st.text_area(
            "Stop strings", "", key="stop", height=68, help=r"One a line; \n stands for a line break", max_chars=10_000
        )
        how["stop"] = typed_stop_strings(lines or "")
        how["seed"] = control(form_field(WritingConfig, "seed"))
    return how


def goal_controls(brain: Brain) -> tuple[list[int] | None, float]:
    """Which goals draw tokens to attached experts, and how strongly; None without such experts."""
    if not brain.experts:
        return None, 0.0
    try:
        served = {goal.goal.id: goal for goal in served_goals(Goals(workspace()))}
    except HRMError as problem:
        sentence(f"The goals cannot be read: {problem}", key="sentence goals")
        return None, 0.0
    served = {number: goal for number, goal in served.items() if set(goal.experts) & set(brain.experts)}
    if not served:
        plain(f"Attached experts: {', '.join(brain.experts)}; no goal is served by them.")
        return None, 0.0
    goals = st.multiselect(
        "Goals",
        list(served),
        format_func=lambda number: f"{number}: {served[number].goal.text}",
        key=f"goals {brain.id}",
    )
    strength = control(
        form_field(GoalsConfig, "goal_bias_strength", label="Strength of the goals"), key="strength", disabled=not goals
    )
    return list(goals) or None, float(strength)


def write(
    brain: Brain, prompt: str, settings: dict[str, Any], goals: list[int] | None, strength: float, box: DeltaGenerator
) -> Written:
    """Load the brain if need be and continue the prompt, drawing into ``box`` on the way.

    Raises HRMError: the bundle cannot be loaded, or the prompt or a setting is refused.
    """
    with st.spinner("Writing"):
        from hrm_engine.bundles.steering import steer, watch_experts
        from hrm_engine.inference import stream

        shared = text_bundle(brain.path, brain.version)
        # Pages of all sessions have the same model, and goals are set in it.
        with shared.lock:
            notes = steer(shared.bundle, goals=goals, strength=strength, workspace=workspace())
            with watch_experts(shared.bundle) as used:
                writing, drawn_at = stream(shared.bundle, prompt, **settings), 0.0
                for _ in writing:
                    if time.monotonic() - drawn_at > _REDRAW_S:
                        draw(box, prompt, writing.tokens, writing.depths, writing.num_segments)
                        drawn_at = time.monotonic()
    return Written(writing.result(), used, notes)


def draw(box: DeltaGenerator, prompt: str, tokens: list[str], depths: list[int], num_segments: int) -> None:
    """The text so far. What the model wrote is escaped there."""
    from hrm_engine.data.text.drawing import depth_html

    box.html(f'<div class="written">{depth_html(tokens, depths, num_segments=num_segments, prompt=prompt)}</div>')


def show_written(written: Written, box: DeltaGenerator) -> None:
    """The text, its depths and figures."""
    from hrm_engine.data.text.drawing import depth_legend

    text = written.generation
    draw(box, text.prompt, text.tokens, text.depths, text.num_segments)
    st.html(depth_legend(text.depths, num_segments=text.num_segments))
    depth, tokens, speed = st.columns(3)
    depth.metric("Mean depth", "—" if text.mean_depth is None else f"{text.mean_depth:.2f}")
    tokens.metric("Tokens", count(text.num_tokens))
    speed.metric("Tokens/s", rate(text.num_tokens / text.seconds))
    plain(_ENDS[text.finish_reason] if text.num_tokens else f"{_ENDS[text.finish_reason]} There is nothing to show.")
    for use in written.experts:
        share = "no tokens" if use.token_share is None else f"{use.token_share:.1%} of the tokens"
        plain(f"Expert {use.expert_id} in {use.layer}: {share if use.is_active else 'inactive'}")
    for note in written.notes:
        plain(f"Note: {note}.")


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
                "Read shows the text here. A darker background means that the brain ran more segments before it said "
                "what it expects there."
            )
        elif not result.tokens:
            plain("There is no text to read.")
        else:
            show_read(result)


def read(brain: Brain, text: str, threshold: float) -> Read:
    """Load the brain if need be and read the text. Raises HRMError: it cannot be loaded, or the text is refused."""
    with st.spinner("Reading"):
        from hrm_engine.bundles.steering import steer
        from hrm_engine.inference.text.reading import read_tokens

        shared = text_bundle(brain.path, brain.version)
        with shared.lock:
            # A text written before may have left its goals in the model.
            steer(shared.bundle, workspace=workspace())
            tokens = read_tokens(shared.bundle, text, halt_threshold=threshold)
    return Read(tokens, shared.bundle.config.halt_max_steps)


def show_read(result: Read) -> None:
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
