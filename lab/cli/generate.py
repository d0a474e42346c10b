"""``lab generate``: continue a prompt, or a file of prompts, with a trained brain."""

from __future__ import annotations

import sys
import time
from contextlib import nullcontext
from dataclasses import asdict
from itertools import chain
from typing import TYPE_CHECKING

from hrm_engine.config import flat
from hrm_engine.config.writing import GenerateConfig
from hrm_engine.errors import ConfigError
from hrm_engine.store.paths import Workspace
from lab.cli.console import human_seconds, printable, progress_bar, say, show_json, write
from lab.cli.flags import config_flags
from lab.cli.parameters import Json
from lab.cli.steering import show_use, steered, use_json

if TYPE_CHECKING:
    from hrm_engine.bundles.bundle import Bundle
    from hrm_engine.inference import Generation
    from hrm_engine.inference.text.prompts import Prompt

_STDIN = "-"


@config_flags(GenerateConfig)
def generate(settings: GenerateConfig, *, json: Json = False) -> int:
    """Continue a prompt with a trained brain and print both; or each prompt of a file, one line of JSON each."""
    if json and settings.prompt is None:
        raise ConfigError("--json goes with --prompt")

    from hrm_engine.bundles.bundle import Bundle
    from hrm_engine.bundles.load import load_bundle
    from hrm_engine.bundles.steering import watch_experts
    from hrm_engine.inference.text.prompts import read_prompts

    workspace, file = Workspace.find(), settings.files.prompt_file
    prompts = [] if file is None else read_prompts(workspace.resolve(file))
    text = None if settings.prompt is None else _prompt(settings.prompt)
    bundle = load_bundle(settings.bundle, Bundle, device=settings.device, workspace=workspace)
    steered(bundle, settings.goals, workspace)
    with watch_experts(bundle) as used:
        if text is None:
            _answer_file(bundle, prompts, settings, workspace)
        else:
            generation = _continue(bundle, text, settings, shown=not json)
    if text is not None and json:
        show_json({**asdict(generation), **use_json(used)})
        return 0
    notes = []
    if text is not None and generation.finish_reason == "context":
        notes.append(f"the text ends because the model's context of {bundle.config.max_seq_len} tokens is full")
    if text is not None and settings.writing.halt_threshold is not None:
        mean = generation.mean_depth
        depth = "no token" if mean is None else f"{mean:.2f} of {generation.num_segments} segments a token"
        notes.append(f"depth: {depth}")
    for note in notes:
        say(note, style="dim", stderr=True)
    show_use(used, settings.goals)
    return 0


def _continue(bundle: Bundle, text: str, settings: GenerateConfig, *, shown: bool) -> Generation:
    from hrm_engine import inference

    writing = inference.stream(bundle, text, settings=settings.writing)
    pieces = writing if shown and settings.stream is not False else ["".join(writing)]
    if shown:
        for piece in chain([text], pieces, "\n"):
            write(piece)
    return writing.result()


def _answer_file(bundle: Bundle, prompts: list[Prompt], settings: GenerateConfig, workspace: Workspace) -> None:
    """Write a line of JSON for each prompt to --out or standard output, each as soon as it is ready."""
    from hrm_engine import inference
    from hrm_engine.bundles.listing import parent_record
    from hrm_engine.inference.text.answer_file import AnswerFile
    from hrm_engine.inference.text.prompts import answer_line

    started, depths, files = time.perf_counter(), list[int](), settings.files
    out = None if files.out is None else workspace.resolve(files.out)
    if out is not None and files.prompt_file is not None and out == workspace.resolve(files.prompt_file):
        raise ConfigError(f"--out: {out} is the file of the prompts: give another name")
    weights = parent_record(bundle.path)["sha256"]
    written_with = {"weights": weights, **flat(settings.goals), **flat(settings.writing)}
    how = {"overwrite": files.overwrite, "resume": files.resume}
    file = None if out is None else AnswerFile(out, prompts, written_with, **how)
    num_before = 0 if file is None else file.num_done
    generations = inference.generate_batch(
        bundle,
        [prompt.text for prompt in prompts],
        batch_size=files.batch_size,
        where=[printable(prompt.where) for prompt in prompts],
        first=num_before,
        settings=settings.writing,
    )
    try:
        with file or nullcontext(_write_line) as write_line, progress_bar("prompts") as tell:
            pairs = zip(prompts[num_before:], generations, strict=True)
            for index, (prompt, generation) in enumerate(pairs, start=num_before):
                write_line(answer_line(index, prompt, generation))
                depths += generation.depths
                if tell is not None:
                    tell(index + 1, len(prompts))
    except BaseException:
        if file is not None and file.num_done:
            num_done = f"{file.num_done} of {len(prompts)} texts are in {file.part}"
            say(f"{num_done}; the same command with --resume writes the others", style="yellow", stderr=True)
        raise
    seconds = time.perf_counter() - started
    depth = f", {sum(depths) / len(depths):.2f} segments a token" if depths else ""
    num_new = len(prompts) - num_before
    say(
        f"{num_new} text{'s' * (num_new != 1)}{f' beside {num_before} of an earlier call' if num_before else ''}, "
        f"{len(depths)} tokens in {human_seconds(seconds)} ({len(depths) / seconds:.0f} tokens/s{depth})"
        + (f": {out}" if out is not None else ""),
        style="dim",
        stderr=True,
    )


def _prompt(prompt: str) -> str:
    """The prompt of the command line, or of standard input without the end of its last line."""
    from hrm_engine.inference.text.prompts import decoded, readable

    if prompt != _STDIN:
        return readable(prompt)
    if sys.stdin is None:
        raise ConfigError("--prompt -: there is no standard input; give the text itself")
    return decoded(sys.stdin.buffer.read(), "standard input").removesuffix("\n").removesuffix("\r")


def _write_line(line: str) -> None:
    print(line, flush=True)
