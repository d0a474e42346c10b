"""``lab``: the root command, how errors reach the user, and what the process exits with.

Exit codes: 0 done, 2 bad input or wrong usage, 3 stopped by a non-finite loss, 4 out of memory, 5 storage, 130/143
signals. Command groups are imported when they are used, so ``lab --help`` stays quick.
"""

from __future__ import annotations

import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import metadata
from types import FrameType
from typing import TYPE_CHECKING, Annotated

from cyclopts import App, CycloptsError, Group, Parameter
from cyclopts.help import DefaultFormatter

from hrm_engine.errors import HRMError, StorageError
from lab.cli.console import console, printable
from lab.cli.output import accept_all_characters, let_go, outlived_output
from lab.cli.parameters import HELP_ALL, WITH_ALL_FLAGS

if TYPE_CHECKING:
    from cyclopts.help import HelpEntry
    from cyclopts.help.specs import ColumnSpec
    from rich.console import Console, ConsoleOptions

INTERRUPTED = 130
_LONGEST_FLAG = 34

_PREPARE = Group("Prepare", sort_key=1)
_TRAIN = Group("Train and use", sort_key=2)
_NOTEBOOKS = Group("Notebooks", sort_key=3)
_LOOK = Group("Look", sort_key=4)
_SESSION = Group("Always", sort_key=90)

COMMANDS: tuple[tuple[str, str, Group, str], ...] = (
    (
        "doctor",
        "lab.cli.doctor:doctor",
        _PREPARE,
        "Check this machine and installation.",
    ),
    ("data", "lab.cli.data:app", _PREPARE, "Build and show training data."),
    ("implant", "lab.cli.implant:implant", _PREPARE, "Train the tokenizer and write the base model for --model."),
    ("estimate", "lab.cli.estimate:app", _TRAIN, "Parameters, memory, FLOPs and time of a training before it begins."),
    ("train", "lab.cli.train:app", _TRAIN, "Train a brain."),
    ("generate", "lab.cli.generate:generate", _TRAIN, "Continue a prompt with a trained brain."),
    ("eval", "lab.cli.evaluate:app", _TRAIN, "Measure a trained brain on text."),
    ("solve", "lab.cli.solve:solve", _TRAIN, "Solve a puzzle with a trained solver."),
    ("optim", "lab.cli.optim:app", _TRAIN, "List the optimizers."),
    ("bundle", "lab.cli.bundle:app", _TRAIN, "List, show, verify, copy, rename, delete, import and export brains."),
    ("experts", "lab.cli.experts:app", _TRAIN, "List, name, freeze, arrange, attach and delete experts."),
    ("goals", "lab.cli.goals:app", _TRAIN, "Goals, and the experts that serve them."),
    ("run", "lab.cli.run:run", _NOTEBOOKS, "Run a recipe or a notebook from top to bottom."),
    ("recipes", "lab.cli.recipes:app", _NOTEBOOKS, "List and show recipes."),
    ("notebook", "lab.cli.dashboard:notebook", _NOTEBOOKS, "Open JupyterLab on the notebooks."),
    ("dashboard", "lab.cli.dashboard:dashboard", _LOOK, "Open the dashboard in the browser."),
    ("logs", "lab.cli.logs:logs", _LOOK, "Show the log of a run."),
    ("disk", "lab.cli.disk:disk", _LOOK, "Show what takes the space of this workspace."),
)


def version() -> str:
    """The installed version; a checkout that is not installed says so."""
    try:
        return metadata.version("hrm-lab")
    except metadata.PackageNotFoundError:
        return "not installed"


def build_app() -> App:
    """The root command with all groups, none of them imported yet."""
    app = new_app(
        "lab", "HRM Lab: train, look at and use Hierarchical Reasoning Models. Begin with: lab run quickstart"
    )
    for position, (name, place, group, text) in enumerate(COMMANDS):
        app.command(place, name=name, help=text, group=group, sort_key=position)
    return app


def new_app(name: str, text: str) -> App:
    """A root command without commands, which :func:`run_app` can run."""
    app = App(
        name=name,
        help=text,
        version=version,
        help_format="plaintext",
        help_formatter=DefaultFormatter(column_specs=_columns),
        result_action="return_value",
        suppress_keyboard_interrupt=False,
    )
    app.meta.suppress_keyboard_interrupt = False
    for flag in ("--help", "--version"):
        app[flag].group = _SESSION
    return app


def main(tokens: Sequence[str] | None = None) -> int:
    """Run one command line (by default the process's own) and return the exit code."""
    return run_app(build_app, tokens)


def run_app(build: Callable[[], App], tokens: Sequence[str] | None) -> int:
    """Run one command line of the program that ``build`` makes, and return the exit code."""
    accept_all_characters()
    words = list(sys.argv[1:] if tokens is None else tokens)
    WITH_ALL_FLAGS.set(HELP_ALL in words)
    app = build()

    @app.meta.default
    def launch(
        *words: Annotated[str, Parameter(show=False, allow_leading_hyphen=True)],
        debug: Annotated[
            bool, Parameter(group=_SESSION, negative="", show_default=False, help="Show tracebacks of errors.")
        ] = False,
    ) -> int:
        try:
            return app(words, exit_on_error=False, print_error=False) or 0
        except HRMError as error:
            if debug:
                traceback.print_exc()
            else:
                _complain(str(error))
            return error.exit_code

    try:
        with _giving_back():
            code = app.meta(words, exit_on_error=False, print_error=False) or 0
        sys.stdout.flush()
        return code
    except CycloptsError as error:
        from lab.cli.usage import help_command, usage_problem

        program = app.name[0]
        _complain(usage_problem(error, program), hint=f"'{help_command(error, program)}' shows what it takes.")
        return 2
    except KeyboardInterrupt:
        _complain("interrupted")
        return INTERRUPTED
    except BrokenPipeError:
        let_go(sys.stdout)  # the reader (head, less) has left
        return 1
    except OSError as error:
        let_go(sys.stdout)
        doing = f"cannot use {error.filename}" if error.filename else "cannot write what it prints"
        _complain(f"{doing}: {error.strerror or error}")
        return StorageError.exit_code


@contextmanager
def _giving_back() -> Iterator[None]:
    """SIGTERM and the end of the terminal leave a command as Ctrl-C does: temporary folders and children go with it."""

    def leave(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    names = ("SIGTERM", "SIGHUP") if threading.current_thread() is threading.main_thread() else ()
    numbers = [number for name in names if (number := getattr(signal, name, None)) is not None]
    free = [number for number in numbers if signal.getsignal(number) is signal.SIG_DFL]
    for number in free:
        signal.signal(number, leave)
    try:
        yield
    finally:
        for number in free:
            signal.signal(number, signal.SIG_DFL)


def _columns(out: Console, options: ConsoleOptions, entries: list[HelpEntry]) -> tuple[ColumnSpec, ...]:
    """Names and descriptions; wide enough for the longest flag, which would be broken within a word otherwise."""
    from cyclopts.help.specs import AsteriskColumn, ColumnSpec, DescriptionColumn, NameRenderer

    width = max(_LONGEST_FLAG, round(out.width * 0.35))
    names = ColumnSpec(renderer=NameRenderer(max_width=width), style="cyclopts.name", max_width=width)
    required = (AsteriskColumn,) if any(entry.required for entry in entries) else ()
    return (*required, names, DescriptionColumn)


def _complain(message: str, *, hint: str = "") -> None:
    from rich.text import Text

    with outlived_output():
        target = console(stderr=True)
        target.print(Text.assemble(("error: ", "bold red"), printable(message)))
        if hint:
            target.print(Text(hint, style="dim"))
