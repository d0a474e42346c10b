"""``lab run``: a recipe or a notebook from top to bottom, in a kernel of its own."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from textwrap import indent
from types import FrameType
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from rich.text import Text

from hrm_engine.errors import ConfigError
from hrm_engine.store.paths import Workspace
from lab.cli.console import console, human_seconds, printable, relative, say, show_facts, show_json
from lab.cli.parameters import switch

if TYPE_CHECKING:
    from rich.console import Console

    from lab.runner.execute import Progress
    from lab.runner.record import RunRecord

FAILED = 1
_TERMINATED = 143
_STOPPING = "\nstopping: a training in the notebook gets up to two minutes to save; a second signal ends it now\n"
_SHOWN_ERROR_CHARS = 1000
_SHOWN_VALUE_CHARS = 200
_OUTPUT_INTERVAL_S = 5.0
_GIVEN = "NAME=VALUE, as often as needed; checked before anything starts."


def run(
    recipe: Annotated[str, Parameter(help="Name of a recipe ('lab recipes list'), or the path of a notebook.")],
    /,
    *,
    parameter: Annotated[list[str] | None, Parameter(name=["--parameter", "-p"], negative="", help=_GIVEN)] = None,
    cell_timeout: Annotated[
        int | None, Parameter(help="Longest time of one cell in seconds. Default: no limit.")
    ] = None,
    json: Annotated[bool, switch("Write run.json to stdout at the end.")] = False,
) -> int:
    """Run a recipe or a notebook from top to bottom; exit code 1 if it fails."""
    from lab.runner.execute import plan_run, run_notebook
    from lab.runner.orphans import end_dead_runs
    from lab.runner.recipes import find_recipe

    if cell_timeout is not None and cell_timeout < 1:
        raise ConfigError(f"--cell-timeout {cell_timeout}: use at least 1 second")
    workspace = Workspace.find()
    for sentence in end_dead_runs(workspace):
        say(sentence, style="yellow", stderr=True)
    plan = plan_run(find_recipe(recipe, workspace), dict(_pair(text) for text in parameter or ()))
    with _stopping_on_signals(), nullcontext() if json else run_view(plan.recipe.title) as view:
        record = run_notebook(plan, workspace=workspace, cell_timeout_s=cell_timeout, observer=view)
    if json:
        show_json(record.as_json())
    else:
        _show_end(record, workspace)
    return 0 if record.status == "finished" else FAILED


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise ConfigError(f"-p {text!r}: write it as NAME=VALUE, for example -p steps=100")
    return name, value


def _show_end(record: RunRecord, workspace: Workspace) -> None:
    out = console()
    out.print()
    if record.error is not None:
        cell = record.error.cell
        line = "" if record.error.line is None else f", line {record.error.line}"
        where = "before the first cell" if cell is None else f"in cell {cell}{line}: {record.error.source}"
        out.print(Text.assemble(("failed ", "bold red"), printable(where)))
        say(f"{record.error.type}: {record.error.message}"[:_SHOWN_ERROR_CHARS])
    else:
        out.print(Text.assemble((record.status, "bold green"), f" in {human_seconds(record.seconds or 0.0)}"))
    for label, text in record.blocks.items():
        say(f"\n  {label}", style="bold")
        say(indent(printable(text), "    "))
    if record.blocks:
        say()
    facts: list[tuple[str, object]] = [(label, _short(value)) for label, value in record.summary.items()]
    facts += [("bundle", relative(workspace.root.absolute() / path, workspace)) for path in record.bundles]
    facts.append(("notebook", relative(record.folder / record.notebook, workspace)))
    if record.report:
        facts.append(("HTML", relative(record.folder / record.report, workspace)))
    show_facts([*facts, ("look at it", "lab dashboard")], "  ")


def _short(value: object) -> str:
    """A summary value on one line."""
    return f"{value:.4g}" if isinstance(value, float) else " ".join(str(value).split())[:_SHOWN_VALUE_CHARS]


class RunView:
    """One line for each heading of the notebook, and the last printed line now and then.

    On a terminal it is also the line that moves: the time, which goes on while nothing is printed, and the last text.
    """

    def __init__(self, out: Console) -> None:
        self._out = out
        self._heading = ""
        self._text = "starting the kernel ..."
        self._began = self._last = time.monotonic()

    def __call__(self, progress: Progress) -> None:
        """Show one step of the run."""
        text = printable(progress.text)
        if progress.kind == "output":
            text = next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "")
        elif text and text != self._heading:
            self._heading = text
            self._out.print(Text.assemble((f"[{progress.cell}/{progress.num_cells}] ", "dim"), text))
        self._text = text or self._text
        if self._out.is_terminal or not text or text == self._heading:
            return
        if time.monotonic() - self._last >= _OUTPUT_INTERVAL_S:
            self._last = time.monotonic()
            self._out.print(f"        {text}")

    def __rich__(self) -> Text:
        """The line that moves, as it is now."""
        return Text(f"{human_seconds(time.monotonic() - self._began)}  {self._text}"[: self._out.width - 4])


@contextmanager
def run_view(title: str) -> Iterator[RunView]:
    """A view on the current stdout; the line that moves disappears at the end."""
    say(title, style="bold")
    out = console()
    view = RunView(out)
    with out.status(view) if out.is_terminal else nullcontext():
        yield view


@contextmanager
def _stopping_on_signals() -> Iterator[None]:
    """SIGTERM ends the run like Ctrl-C does: the kernel stops, run.json says so; exit codes 143 and 130."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        # Not through sys.stderr: the signal may have come while something was being written there.
        os.write(2, _STOPPING.encode())
        raise SystemExit(_TERMINATED) if number == signal.SIGTERM else KeyboardInterrupt

    # Ctrl-C is left alone where it is switched off, as in background jobs.
    numbers = [signal.SIGTERM]
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        numbers.append(signal.SIGINT)
    previous = {number: signal.signal(number, stop) for number in numbers}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
