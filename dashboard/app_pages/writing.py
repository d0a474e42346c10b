"""Text in the Playground: a prompt, settings, and what a brain writes, each token coloured by its depth."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import streamlit as st

from dashboard.app_pages.forms import control, submitted
from dashboard.app_pages.parts import plain, sentence
from dashboard.formats import count, rate
from dashboard.queries.bundles import Brain
from dashboard.queries.goals import served_goals
from dashboard.resources import text_bundle, workspace
from hrm_engine.config.forms import form_field
from hrm_engine.config.writing import GoalsConfig, WritingConfig
from hrm_engine.data.text.typed import typed_stop_strings
from hrm_engine.errors import HRMError
from hrm_engine.store.goals import Goals

if TYPE_CHECKING:
    from streamlit.delta_generator import DeltaGenerator

    from hrm_engine.bundles.steering import ExpertUse
    from hrm_engine.inference import Generation

_REDRAW_S = 0.15
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
            show(written, box)
        else:
            box.text("Write continues the prompt here; the ground of a token is stronger the more segments it ran.")


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

    Raises:
        HRMError: the bundle cannot be loaded, or the prompt or a setting is refused.
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


def show(written: Written, box: DeltaGenerator) -> None:
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
