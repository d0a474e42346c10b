"""``lab generate``: continue a prompt, or a file of prompts, with a trained brain."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Group, Parameter

from hrm_engine.errors import ConfigError
from hrm_engine.store.paths import Workspace
from lab.cli.console import console, printable, show_json
from lab.cli.steering import Goal, Strength, show_use, steered, use_json

_FILES = Group("Many prompts", sort_key=1)
_SAMPLING = Group("Sampling", sort_key=2)
_OUTPUT = Group("Output", sort_key=4)
_STDIN = "-"


def generate(
    *,
    bundle: Annotated[str, Parameter(help="Name of a brain, or the path of a run, best or checkpoint folder.")],
    prompt: Annotated[
        str | None,
        Parameter(help="Text to continue; - reads it from standard input.", allow_leading_hyphen=True),
    ] = None,
    max_new_tokens: Annotated[int, Parameter(help="Tokens to write at most.")] = 100,
    segments: Annotated[
        int | None,
        Parameter(help="ACT segments for each token, at most. Default: as many as the brain was trained for."),
    ] = None,
    halt_threshold: Annotated[
        float | None,
        Parameter(
            help="Go on to the next segment only while the halting head gives more than this, 0 to 1, for the "
            "probability that it is worth it. Default: every token runs all segments."
        ),
    ] = None,
    device: Annotated[str, Parameter(help="auto, cpu, cuda, cuda:N, mps or xpu.")] = "auto",
    prompt_file: Annotated[
        Path | None,
        Parameter(group=_FILES, help="A .txt with one prompt a line, or a .jsonl with the field 'prompt'."),
    ] = None,
    out: Annotated[
        Path | None,
        Parameter(group=_FILES, help="JSONL file for the texts of --prompt-file. Default: standard output."),
    ] = None,
    batch_size: Annotated[
        int | None, Parameter(group=_FILES, help="Prompts of --prompt-file at a time. Default: 8.")
    ] = None,
    overwrite: Annotated[
        bool, Parameter(group=_FILES, negative="", show_default=False, help="Replace --out if it exists.")
    ] = False,
    resume: Annotated[
        bool,
        Parameter(
            group=_FILES, negative="", show_default=False, help="Go on with --out where an interrupted run ended."
        ),
    ] = False,
    temperature: Annotated[float, Parameter(group=_SAMPLING, help="0 always takes the likeliest token.")] = 0.8,
    top_k: Annotated[int, Parameter(group=_SAMPLING, help="Draw from the k likeliest tokens only; 0 = all.")] = 0,
    top_p: Annotated[
        float, Parameter(group=_SAMPLING, help="Draw from the likeliest tokens that together have this probability.")
    ] = 1.0,
    repetition_penalty: Annotated[
        float, Parameter(group=_SAMPLING, help="Above 1, tokens that the context has become less likely; 1 = off.")
    ] = 1.0,
    stop: Annotated[
        list[str] | None,
        Parameter(
            group=_SAMPLING,
            negative="",
            allow_leading_hyphen=True,
            help="The text ends before this string; may be given several times.",
        ),
    ] = None,
    seed: Annotated[int, Parameter(group=_SAMPLING, help="The same seed draws the same text.")] = 0,
    goal: Goal = None,
    goal_bias_strength: Strength = None,
    stream: Annotated[
        bool | None,
        Parameter(group=_OUTPUT, help="Show the text while it is written, or all at once. Default: while."),
    ] = None,
    json: Annotated[
        bool, Parameter(group=_OUTPUT, negative="", show_default=False, help="Write one JSON object instead.")
    ] = False,
) -> int:
    """Continue a prompt with a trained brain and print both; or each prompt of a file, one line of JSON each."""
    from dataclasses import asdict

    from hrm_engine import inference
    from hrm_engine.bundles import load_bundle
    from hrm_engine.bundles.steering import watch_experts
    from hrm_engine.inference.text.prompts import read_prompts
    from lab.cli.generate_file import answer_file

    replaces = {"--overwrite": overwrite, "--resume": resume}
    of_a_file = {"--out": out is not None, "--batch-size": batch_size is not None, **replaces}
    if prompt_file is None:
        _refuse(of_a_file, "--prompt-file")
    else:
        _refuse({"--stream": stream is not None, "--json": json}, "--prompt")
    if (prompt is None) == (prompt_file is None):
        raise ConfigError("give either --prompt TEXT (- reads it from standard input) or --prompt-file FILE")
    if out is None:
        _refuse(replaces, "--out")
    if overwrite and resume:
        raise ConfigError("--resume and --overwrite exclude each other")
    how: dict[str, Any] = {
        "max_new_tokens": max_new_tokens,
        "segments": segments,
        "halt_threshold": halt_threshold,
        "temperature": temperature,
        "top_k": top_k,
        "top_p": top_p,
        "repetition_penalty": repetition_penalty,
        "stop": stop or (),
        "seed": seed,
    }
    workspace = Workspace.find()
    target = None if out is None else workspace.resolve(out)
    prompts = [] if prompt_file is None else read_prompts(workspace.resolve(prompt_file))
    if target is not None and prompt_file is not None and target == workspace.resolve(prompt_file):
        raise ConfigError(f"--out: {target} is the file of the prompts: give another name")
    text = None if prompt is None else _asked(prompt)
    loaded = load_bundle(bundle, device=device, workspace=workspace)
    steered(loaded, goal, goal_bias_strength, workspace)
    with watch_experts(loaded) as used:
        if text is None:
            answer_file(
                loaded,
                prompts,
                target,
                overwrite=overwrite,
                resume=resume,
                steering={"goal": goal, "goal_bias_strength": goal_bias_strength},
                batch_size=8 if batch_size is None else batch_size,
                **how,
            )
        elif json:
            found = inference.generate(loaded, text, **how)
        else:
            writing = inference.stream(loaded, text, **how)
            pieces = writing if stream in (None, True) else ["".join(writing)]
            _write(text)
            for piece in pieces:
                _write(piece)
            _write("\n")
    if text is not None and json:
        show_json({**asdict(found), **use_json(used)})
        return 0
    if text is not None and writing.result().finish_reason == "context":
        _show_dim(f"the text ends because the model's context of {loaded.config.max_seq_len} tokens is full")
    if text is not None and halt_threshold is not None:
        mean_depth = writing.result().mean_depth
        told = "no token" if mean_depth is None else f"{mean_depth:.2f} of {writing.num_segments} segments a token"
        _show_dim(f"depth: {told}")
    show_use(used, goal)
    return 0


def _asked(prompt: str) -> str:
    """The prompt of the command line, or of standard input without the end of its last line."""
    from hrm_engine.inference.text.prompts import decoded, readable

    if prompt != _STDIN:
        return readable(prompt)
    if sys.stdin is None:
        raise ConfigError("--prompt -: there is no standard input here; give the text itself")
    return decoded(sys.stdin.buffer.read(), "standard input").removesuffix("\n").removesuffix("\r")


def _refuse(given: dict[str, bool], partner: str) -> None:
    for flag in (flag for flag, is_given in given.items() if is_given):
        raise ConfigError(f"{flag} goes with {partner}")


def _show_dim(line: str) -> None:
    console(stderr=True).print(line, style="dim")


def _write(text: str) -> None:
    # A pipe gets the bytes as they are; a terminal must not be steered by what a model wrote.
    sys.stdout.write(printable(text) if sys.stdout.isatty() else text)
    sys.stdout.flush()
