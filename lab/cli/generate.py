"""``lab generate``: continue a prompt with a trained brain."""

from __future__ import annotations

import sys
from typing import Annotated, Any

from cyclopts import Group, Parameter

from hrm_engine.store.paths import Workspace
from lab.cli.console import printable, show_json
from lab.cli.steering import Goal, Strength, show_use, steered, use_json

_SAMPLING = Group("Sampling", sort_key=2)
_OUTPUT = Group("Output", sort_key=4)


def generate(
    *,
    bundle: Annotated[str, Parameter(help="Name of a brain, or the path of a run, best or checkpoint folder.")],
    prompt: Annotated[str, Parameter(help="Text to continue.", allow_leading_hyphen=True)],
    max_new_tokens: Annotated[int, Parameter(help="Tokens to write at most.")] = 100,
    segments: Annotated[
        int | None, Parameter(help="ACT segments for each token. Default: as many as the brain was trained for.")
    ] = None,
    device: Annotated[str, Parameter(help="auto, cpu, cuda, cuda:N, mps or xpu.")] = "auto",
    temperature: Annotated[float, Parameter(group=_SAMPLING, help="0 always takes the likeliest token.")] = 0.8,
    top_k: Annotated[int, Parameter(group=_SAMPLING, help="Draw from the k likeliest tokens only; 0 = all.")] = 0,
    top_p: Annotated[
        float, Parameter(group=_SAMPLING, help="Draw from the likeliest tokens that together have this probability.")
    ] = 1.0,
    seed: Annotated[int, Parameter(group=_SAMPLING, help="The same seed draws the same text.")] = 0,
    goal: Goal = None,
    goal_bias_strength: Strength = None,
    stream: Annotated[bool, Parameter(group=_OUTPUT, help="Show the text while it is written.")] = True,
    json: Annotated[
        bool, Parameter(group=_OUTPUT, negative="", show_default=False, help="Write one JSON object instead.")
    ] = False,
) -> int:
    """Continue a prompt with a trained brain; prints the prompt and what follows it."""
    from dataclasses import asdict

    from hrm_engine import inference
    from hrm_engine.bundles import load_bundle
    from hrm_engine.bundles.steering import watch_experts

    workspace = Workspace.find()
    loaded = load_bundle(bundle, device=device, workspace=workspace)
    steered(loaded, goal, goal_bias_strength, workspace)
    how: dict[str, Any] = {
        "max_new_tokens": max_new_tokens,
        "segments": segments,
        "temperature": temperature,
        "top_k": top_k,
        "top_p": top_p,
        "seed": seed,
    }
    if json:
        with watch_experts(loaded) as used:
            found = inference.generate(loaded, prompt, **how)
        show_json({**asdict(found), **use_json(used)})
        return 0
    with watch_experts(loaded) as used:
        pieces = inference.stream(loaded, prompt, **how) if stream else [inference.generate(loaded, prompt, **how).text]
        _write(prompt)
        for piece in pieces:
            _write(piece)
        _write("\n")
    show_use(used, goal)
    return 0


def _write(text: str) -> None:
    # A pipe gets the bytes as they are; a terminal must not be steered by what a model wrote.
    sys.stdout.write(printable(text) if sys.stdout.isatty() else text)
    sys.stdout.flush()
