"""``lab generate --prompt-file``: the texts of many prompts as lines of JSON, each written as soon as it is there."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hrm_engine.errors import ConfigError
from lab.cli.console import console, human_seconds, printable

if TYPE_CHECKING:
    from hrm_engine.bundles import Bundle
    from hrm_engine.inference.text.prompts import Prompt


def answer_file(
    bundle: Bundle, prompts: Sequence[Prompt], out: Path | None, *, overwrite: bool, batch_size: int, **how: Any
) -> None:
    """Continue the prompts and write a line of JSON for each to ``out``, or to standard output.

    The lines go to ``OUT.part`` first, which gets its name when it is complete: what is at ``out`` is always whole.

    Raises:
        ConfigError: the file exists; a prompt or setting is refused. Nothing is written before.
        StorageError: the file cannot be written.
    """
    from hrm_engine.inference import generate_batch
    from hrm_engine.inference.text.prompts import answer_line
    from lab.cli.data.progress import progress_bar

    started, depths = time.perf_counter(), list[int]()
    texts = generate_batch(
        bundle,
        [prompt.text for prompt in prompts],
        batch_size=batch_size,
        where=[printable(prompt.where) for prompt in prompts],
        **how,
    )
    with _lines_to(out, overwrite, len(prompts)) as write, progress_bar("prompts") as tell:
        for index, (prompt, generation) in enumerate(zip(prompts, texts, strict=True)):
            write(answer_line(index, prompt, generation))
            depths += generation.depths
            if tell is not None:
                tell(index + 1, len(prompts))
    seconds = time.perf_counter() - started
    depth = f", {sum(depths) / len(depths):.2f} segments a token" if depths else ""
    console(stderr=True).print(
        f"{len(prompts)} text{'s' * (len(prompts) != 1)}, {len(depths)} tokens in {human_seconds(seconds)} "
        f"({len(depths) / seconds:.0f} tokens/s{depth})" + (f": {out}" if out is not None else ""),
        style="dim",
    )


@contextmanager
def _lines_to(out: Path | None, overwrite: bool, num_lines: int) -> Iterator[Callable[[str], None]]:
    """Yield what writes a line."""
    if out is None:
        yield _to_stdout
        return
    from hrm_engine.store.files import storage_error

    if out.is_dir():
        raise ConfigError(f"--out: {out} is a folder: name a file in it")
    part = out.with_name(out.name + ".part")
    for path, what in ((out, "exists"), (part, "is left of an interrupted run, or being written by another one")):
        if path.exists() and not overwrite:
            raise ConfigError(f"--out: {path} {what}: give another name, or --overwrite to replace it")
    num_written = 0
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        file = part.open("w" if overwrite else "x", encoding="utf-8", newline="\n")
    except OSError as problem:
        raise storage_error(problem, part) from problem

    def write(line: str) -> None:
        nonlocal num_written
        try:
            file.write(line + "\n")
            file.flush()
        except OSError as problem:
            raise storage_error(problem, part) from problem
        num_written += 1

    try:
        with file:
            yield write
    except BaseException:
        if num_written:
            console(stderr=True).print(f"{num_written} of {num_lines} texts are in {part}", style="yellow")
        else:
            part.unlink(missing_ok=True)
        raise
    try:
        part.replace(out)
    except OSError as problem:
        raise storage_error(problem, out) from problem


def _to_stdout(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
