"""How commands write: text for people on a terminal, plain lines for pipes, JSON for programs."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hrm_engine.errors import ConfigError
from hrm_engine.store.files import finite
from hrm_engine.store.paths import Workspace

if TYPE_CHECKING:
    from _typeshed import DataclassInstance
    from rich.console import Console

# Text from models, run folders and notebooks may hold terminal commands; tab and newline only lay out.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
PROXY = "PROXY: results on this dataset are not comparable with published ones."
_WHOLE_CELLS = 12
"""Width of a column that never wraps."""
_UNITS = ("B", "KB", "MB", "GB", "TB")


def console(*, stderr: bool = False) -> Console:
    """A console on the current stdout or stderr. It neither wraps lines nor reads markup in its input."""
    from rich.console import Console

    # In a kernel as in a pipe: plain lines on stdout, where 'lab run' hears them. It asks for colours and HTML itself.
    ipython = sys.modules.get("IPython")
    plain = False if ipython is not None and ipython.get_ipython() is not None else None
    return Console(
        stderr=stderr,
        markup=False,
        highlight=False,
        emoji=False,
        soft_wrap=True,
        force_jupyter=False,
        force_terminal=plain,
    )


def printable(text: object) -> str:
    """``text`` without control characters, so that printing it cannot steer the terminal."""
    return _CONTROL.sub("", str(text).replace("\r\n", "\n"))


def say(text: object = "", *, style: str | None = None, stderr: bool = False, wrap: bool = False) -> None:
    """Print a text without its control characters; with ``wrap`` a terminal gets whole words on each line."""
    out = console(stderr=stderr)
    out.print(printable(text), style=style, soft_wrap=not (wrap and out.is_terminal))


def write(text: str) -> None:
    """Write a text to stdout at once: to a pipe as it is, to a terminal without its control characters."""
    sys.stdout.write(printable(text) if sys.stdout.isatty() else text)
    sys.stdout.flush()


def relative(path: Path, workspace: Workspace) -> str:
    """A path as it can be typed and opened: from the workspace root where that is the current folder, else in full."""
    path, root = Path(path), workspace.root.absolute()
    is_short = path.is_absolute() and path.is_relative_to(root) and Path.cwd() == root
    return path.relative_to(root).as_posix() if is_short else str(path)


def show_json(value: Any) -> None:
    """Write ``value`` as indented JSON to stdout; numbers that are not finite, which JSON has not, as null.

    Where stdout has not all characters, those beyond ASCII are escaped.
    """
    escaped = not (sys.stdout.encoding or "").lower().replace("-", "").startswith("utf")
    sys.stdout.write(json.dumps(finite(value), indent=2, ensure_ascii=escaped, default=str) + "\n")


def show_table(columns: Sequence[str], rows: Sequence[Sequence[object]], *, right: Sequence[str] = ()) -> None:
    """A table without frames; the columns named in ``right`` are aligned to the right.

    On a terminal that is narrower, cells wrap. What reads a pipe wants whole cells: there a row is one line.
    """
    from rich.text import Text

    header = [Text(name, style="bold") for name in columns]
    _show_rows([header, *rows], right=[name in right for name in columns])


def _show_rows(rows: Sequence[Sequence[object]], *, right: Sequence[bool]) -> None:
    from rich.cells import cell_len
    from rich.table import Table
    from rich.text import Text

    out = console()
    lines = [[Text(printable(cell).replace("\n", " "), getattr(cell, "style", "")) for cell in row] for row in rows]
    widths = [max(cell_len(line[number].plain) for line in lines) for number in range(len(right))]
    if out.is_terminal and sum(widths) + 2 * (len(widths) - 1) > out.width:
        table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
        for width, is_right in zip(widths, right, strict=True):
            is_whole = is_right or width <= _WHOLE_CELLS
            table.add_column(justify="right" if is_right else "left", no_wrap=is_whole, overflow="fold")
        for line in lines:
            table.add_row(*line)
        out.print(table, soft_wrap=False)
        return
    for line in lines:
        for cell, width, is_right in zip(line, widths, right, strict=True):
            cell.align("right" if is_right else "left", width)
        row = Text("  ").join(line)
        row.rstrip()
        out.print(row)


def show_list(
    content: Sequence[object],
    columns: Sequence[str],
    rows: Sequence[Sequence[object]],
    *,
    json: bool,
    right: Sequence[str] = (),
    if_none: str = "",
) -> int:
    """End a command that lists: print ``content`` as JSON, or the table, or a sentence where there is nothing."""
    if json:
        show_json(content)
    elif rows or not if_none:
        show_table(columns, rows, right=right)
    else:
        say(if_none, wrap=True)
    return 0


def show_done(text: str, content: object, *, json: bool) -> int:
    """End a command that changed something: print a sentence, or the changed thing as JSON."""
    if json:
        show_json(content)
    else:
        say(text)
    return 0


def show_report(report: DataclassInstance, workspace: Workspace, *, json: bool = False) -> int:
    """End a command with a report of the engine: a line for each field, then the messages."""

    def written(value: object) -> str:
        if isinstance(value, Path):
            return relative(value, workspace)
        return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)

    if json:
        show_json(asdict(report))
    else:
        facts = dict(vars(report))
        messages = facts.pop("messages", ())
        show_facts([(name.replace("_", " "), written(value)) for name, value in facts.items()])
        for message in messages:
            say(f"- {message}")
    return 0


def show_facts(facts: Sequence[tuple[str, object]], indent: str = "") -> None:
    """Lines of name and value, values aligned."""
    from rich.text import Text

    if facts:
        _show_rows([(Text(indent + name, style="dim"), value) for name, value in facts], right=(False, False))


def can_ask() -> bool:
    """Whether there is a terminal to ask on."""
    return sys.stdin is not None and sys.stdin.isatty()


def confirmed(question: str, *, yes: bool) -> bool:
    """Ask on a terminal whether to do what cannot be undone; with ``yes`` there is no question.

    Raises ConfigError where there is no terminal.
    """
    if yes:
        return True
    if not can_ask():
        raise ConfigError(
            f"{printable(question)} There is no terminal to ask on: add --yes to do it without a question"
        )
    try:
        answer = input(f"{printable(question)} [y/N] ")
    except EOFError:
        answer = ""
    return answer.strip().lower() in {"y", "yes"}


@contextmanager
def progress_bar(label: str) -> Iterator[Callable[[int, int], None] | None]:
    """Yield a function of (done, total) that moves a bar, or None where stderr is no terminal.

    A total of 0 means that it is not known. The bar disappears when the work ends.
    """
    out = console(stderr=True)
    if not out.is_terminal:
        yield None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn(label), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("left"))
    with Progress(*columns, console=out, transient=True, refresh_per_second=4) as bar:
        task = bar.add_task(label, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total or None)


def human_bytes(size: float) -> str:
    """A size in bytes as people read it: ``1.4 MB``."""
    power = 0
    while abs(size) >= 1000 and power < len(_UNITS) - 1:
        size, power = size / 1000, power + 1
    return f"{size:.{1 if power else 0}f} {_UNITS[power]}"


def human_count(number: float) -> str:
    """A count as people read it: ``950``, ``12.4 k``, ``5.1 M``."""
    for limit, unit in ((1e9, " G"), (1e6, " M"), (1e4, " k")):
        if abs(number) >= limit:
            return f"{number / (1e3 if unit == ' k' else limit):.1f}{unit}"
    return f"{number:.0f}"


def human_seconds(seconds: float) -> str:
    """A duration as people read it: ``4.2 s``, ``3:05``, ``2:10:00``."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
