"""``lab generate --prompt-file``: the texts of many prompts as lines of JSON, each written as soon as it is there."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from hrm_engine.errors import ConfigError
from lab.cli.console import console, human_seconds, printable
from lab.cli.generate_part import finished_part, part_of, record_of, refuse_live_writer, write_record

if TYPE_CHECKING:
    from hrm_engine.bundles import Bundle
    from hrm_engine.inference.text.prompts import Prompt


def answer_file(
    bundle: Bundle,
    prompts: Sequence[Prompt],
    out: Path | None,
    *,
    overwrite: bool,
    resume: bool,
    steering: Mapping[str, Any],
    batch_size: int,
    **how: Any,
) -> None:
    """Continue the prompts and write a line of JSON for each to ``out``, or to standard output.

    The lines go to ``OUT.part`` first, which gets its name when it is complete: what is at ``out`` is always whole.

    Args:
        resume: go on after the lines of ``OUT.part``.
        steering: what the experts of the bundle were told, which decides texts as the settings do.

    Raises:
        ConfigError: the file exists; a prompt or setting is refused, or is not the one of the lines that are there.
            Nothing is written before.
        StorageError: the file cannot be written.
    """
    from hrm_engine.bundles.listing import parent_record
    from hrm_engine.inference import generate_batch
    from hrm_engine.inference.text.prompts import answer_line
    from lab.cli.data.progress import progress_bar

    started, depths = time.perf_counter(), list[int]()
    settings = {"weights": parent_record(bundle.path)["sha256"], **steering, **how}
    num_done, num_bytes = (0, 0) if out is None or not resume else finished_part(out, prompts, settings)
    texts = generate_batch(
        bundle,
        [prompt.text for prompt in prompts],
        batch_size=batch_size,
        where=[printable(prompt.where) for prompt in prompts],
        first=num_done,
        **how,
    )
    if out is None:
        lines = nullcontext(_to_stdout)
    elif resume:
        lines = _lines_to(out, "a", settings, num_done=num_done, num_bytes=num_bytes, num_all=len(prompts))
    else:
        _refuse_existing(out, overwrite)
        lines = _lines_to(out, "w" if overwrite else "x", settings, num_all=len(prompts))
    with lines as write, progress_bar("prompts") as tell:
        for index, (prompt, generation) in enumerate(zip(prompts[num_done:], texts, strict=True), start=num_done):
            write(answer_line(index, prompt, generation))
            depths += generation.depths
            if tell is not None:
                tell(index + 1, len(prompts))
    seconds = time.perf_counter() - started
    depth = f", {sum(depths) / len(depths):.2f} segments a token" if depths else ""
    num_new = len(prompts) - num_done
    before = f" after {num_done} of before" if num_done else ""
    console(stderr=True).print(
        f"{num_new} text{'s' * (num_new != 1)}{before}, {len(depths)} tokens in {human_seconds(seconds)} "
        f"({len(depths) / seconds:.0f} tokens/s{depth})" + (f": {out}" if out is not None else ""),
        style="dim",
    )


def _refuse_existing(out: Path, overwrite: bool) -> None:
    if out.is_dir():
        raise ConfigError(f"--out: {out} is a folder: name a file in it")
    if overwrite:
        refuse_live_writer(out)
        return
    if out.exists():
        raise ConfigError(f"--out: {out} exists: give another name, or --overwrite to replace it")
    if (part := part_of(out)).exists():
        raise ConfigError(
            f"--out: {part} is left of an interrupted run, or being written by another one: go on with it by --resume, "
            "give another name, or --overwrite to replace it"
        )


@contextmanager
def _lines_to(
    out: Path,
    mode: Literal["a", "w", "x"],
    settings: Mapping[str, Any],
    *,
    num_all: int,
    num_done: int = 0,
    num_bytes: int = 0,
) -> Iterator[Callable[[str], None]]:
    """Yield what writes a line; where a part goes on, after the ``num_bytes`` of its ``num_done`` lines."""
    from hrm_engine.store.files import storage_error

    part = part_of(out)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        if mode == "a":
            os.truncate(part, num_bytes)
        file = part.open(mode, encoding="utf-8", newline="\n")
    except OSError as problem:
        raise storage_error(problem, part) from problem

    def write(line: str) -> None:
        nonlocal num_done
        try:
            file.write(line + "\n")
            file.flush()
        except OSError as problem:
            raise storage_error(problem, part) from problem
        num_done += 1

    try:
        with file:
            write_record(out, settings)
            yield write
    except BaseException:
        if num_done:
            told = f"{num_done} of {num_all} texts are in {part}; the same command with --resume writes the others"
            console(stderr=True).print(told, style="yellow")
        else:
            part.unlink(missing_ok=True)
            record_of(out).unlink(missing_ok=True)
        raise
    try:
        part.replace(out)
        record_of(out).unlink(missing_ok=True)
    except OSError as problem:
        raise storage_error(problem, out) from problem


def _to_stdout(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
