"""What a training shows while it runs, made only from the rows that it also writes to metrics.jsonl.

On a terminal a progress bar with loss, speed and time left stands under the lines; elsewhere progress is a line now and
then. In a notebook it is the observer of a training.
"""

from __future__ import annotations

import shlex
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.text import Text

from hrm_engine.config import kinds
from hrm_engine.config.kinds import Kind
from hrm_engine.store.incidents import incident_text
from hrm_engine.store.paths import Workspace
from lab.cli.console import console, human_count, human_seconds, printable, relative, show_facts

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from hrm_engine.training import TrainResult

_PLAIN_INTERVAL_S = 10.0
_SAMPLE_CHARS = 110
_TASK: TaskID = 0  # type: ignore[assignment]
"""The only line of the progress bar."""
_NOTICES = {"oom": "yellow", "nan": "yellow", "spike": "yellow", "stop": "cyan"}


class TrainView:
    """Turns metrics rows into output; ``bar`` is None where stdout is no terminal."""

    def __init__(self, workspace: Workspace, bar: Progress | None = None) -> None:
        self._workspace = workspace
        self._bar = bar
        self._out = bar.console if bar else console()
        self._kind: Kind | None = None
        self._total = 0
        self._first_step = 0
        self._began = time.monotonic()
        self._last_line = 0.0

    def __call__(self, row: dict[str, Any]) -> None:
        """Show one row; events without a line of their own are left to metrics.jsonl."""
        event = row.get("event")
        if event in ("start", "resume"):
            self._start(row)
        elif event == "train":
            self._progress(row)
        elif event == "eval":
            self._out.print(Text.assemble(self._step(row), evaluation_line(row)))
        elif event == "sample":
            text = " ".join(printable(row.get("text", "")).split())[:_SAMPLE_CHARS]
            self._out.print(Text.assemble(self._step(row), ("sample  ", "dim"), Text(text, style="italic")))
        elif event in _NOTICES:
            self._out.print(
                Text.assemble(self._step(row), (f"{event}  ", _NOTICES[event]), printable(incident_text(row)))
            )

    def finish(self, result: TrainResult) -> None:
        """The last lines: how it ended, where the bundle lies, what to do with it."""
        place = relative(result.run_dir, self._workspace)
        style = "green" if result.state == "finished" else "yellow"
        self._out.print()
        why = f": {printable(result.message)}" if result.message != result.state else ""
        self._out.print(Text.assemble((result.state, f"bold {style}"), f" at step {result.step}{why}"))
        if result.step == 0:
            return
        if result.first_eval and result.last_eval:
            self._out.print(Text("validation  " + before_and_after(result.first_eval, result.last_eval)))
        words = kinds.words_of(self._kind)
        facts = [(words.leaves, place), ("try it", words.next_command.format(name=self._name(result.run_dir)))]
        if result.state != "finished" and self._kind is not None:
            resume = f"{self._kind.command_line} --resume {self._kind.run.name_flag}"
            facts.append(("go on", f"{resume} {shlex.quote(result.run_dir.name)}"))
        show_facts([*facts, ("look at it", "lab dashboard")], "  ")

    def _name(self, run_dir: Path) -> str:
        """What other commands call the run: its name where its kind has its home, else its path."""
        homes = [self._workspace.resolve(kind.home) for kind in kinds.table().values()]
        return shlex.quote(run_dir.name if run_dir.parent in homes else relative(run_dir, self._workspace))

    def _start(self, row: Mapping[str, Any]) -> None:
        self._kind = kinds.of_row(row)
        self._total = int(row.get("total_steps") or 0)
        self._first_step = int(row.get("step") or 0)
        self._began = time.monotonic()
        facts = [
            ("run folder", relative(Path(str(row.get("run_dir"))), self._workspace)),
            ("device", f"{row.get('device')}, {row.get('dtype')}"),
            ("parameters", human_count(row.get("num_parameters") or 0)),
            ("data", kinds.words_of(self._kind).data_of(row)),
            ("steps", f"{self._total:,}"),
        ]
        if row.get("from_checkpoint"):
            facts.append(("forked from" if row.get("event") == "start" else "resumed from", row["from_checkpoint"]))
        show_facts(facts)
        for message in row.get("messages") or ():
            self._out.print(Text(f"- {printable(message)}"))
        if self._bar:
            self._bar.reset(_TASK, total=self._total, completed=self._first_step, description="training")

    def _progress(self, row: Mapping[str, Any]) -> None:
        step = int(row.get("step") or 0)
        if self._bar:
            loss = f"loss {_number(row.get('loss'))}"
            self._bar.update(_TASK, completed=step, loss=loss, speed=self._speed(row))
            return
        now = time.monotonic()
        if step < self._total and now - self._last_line < _PLAIN_INTERVAL_S:
            return
        self._last_line = now
        done = step - self._first_step
        left = (now - self._began) / done * (self._total - step) if done > 0 else 0.0
        self._out.print(
            f"step {step}/{self._total}  loss {_number(row.get('loss'))}  {self._speed(row)}  "
            f"{human_seconds(left)} left"
        )

    def _speed(self, row: Mapping[str, Any]) -> str:
        field, unit = kinds.words_of(self._kind).speed
        return f"{_number(row.get(field), 0)} {unit}"

    def _step(self, row: Mapping[str, Any]) -> Text:
        return Text(f"step {row.get('step', 0):>{len(str(self._total))}}  ", style="bold")


@contextmanager
def train_view(workspace: Workspace) -> Iterator[TrainView]:
    """A view for the present stdout; the progress bar, if there is one, is taken away at the end."""
    out = console()
    if not out.is_terminal:
        yield TrainView(workspace, None)
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    loss, speed, left = TextColumn("{task.fields[loss]}"), TextColumn("{task.fields[speed]}"), TextColumn("left")
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), loss, speed, TimeRemainingColumn())
    with Progress(*columns, left, console=out, transient=True, refresh_per_second=4) as bar:
        bar.add_task("reading the data, building the network ...", total=None, loss="", speed="")
        yield TrainView(workspace, bar)


def evaluation_line(row: Mapping[str, Any]) -> str:
    """``validation loss 4.1 (unigram 6.2)  perplexity 61  accuracy 28.4 %  ...``, or what puzzles have."""
    if "exact_accuracy" in row:
        return _puzzle_line(row)
    parts = [f"validation loss {_number(row.get('loss'))}"]
    if row.get("unigram_loss") is not None:
        parts[0] += f" (unigram {_number(row['unigram_loss'])})"
    if row.get("loss_without") is not None:
        parts.append(f"without the expert {_number(row['loss_without'])}")
    if "perplexity" in row:
        parts.append(f"perplexity {_number(row['perplexity'], 1)}")
    if row.get("token_accuracy") is not None:
        parts.append(f"accuracy {100 * row['token_accuracy']:.1f} %")
    if len(depths := row.get("loss_by_segment") or ()) > 1:
        parts.append("by depth " + " ".join(_number(loss) for loss in depths))
    if row.get("adaptive_loss") is not None:
        parts.append(f"by itself {_number(row['adaptive_loss'])} at {_number(row.get('act_steps_mean'), 2)} segments")
    return "  ".join(parts)


def before_and_after(first: Mapping[str, Any], last: Mapping[str, Any]) -> str:
    """``loss 9.0 before, 4.1 after; a unigram model has 6.2``."""
    if "exact_accuracy" in last:
        before, after = (100 * (row.get("exact_accuracy") or 0.0) for row in (first, last))
        return f"{after:.1f} % solved exactly, {before:.1f} % before"
    text = f"loss {_number(first.get('loss'))} before, {_number(last.get('loss'))} after"
    if last.get("unigram_loss") is not None:
        text += f"; a unigram model has {_number(last['unigram_loss'])}"
    return text


def _puzzle_line(row: Mapping[str, Any]) -> str:
    share = {
        name: f"{100 * value:.1f} %" for name, value in row.items() if name.endswith("accuracy") and value is not None
    }
    solved = f"exact {share.get('exact_accuracy', '-')}"
    if "exact_accuracy_when_halting" in row:
        halting = f"{100 * row['exact_accuracy_when_halting']:.1f} %"
        solved += f" (halting by itself {halting} after {_number(row.get('act_steps_mean'), 1)} segments)"
    baselines = "  ".join(f"{name} {share[f'{name}_cell_accuracy']}" for name in ("copy", "padding", "majority"))
    return f"{solved}  cells {share.get('cell_accuracy', '-')} ({baselines})  {row.get('num_rows'):,} puzzles"


def _number(value: Any, digits: int = 3) -> str:
    return "-" if not isinstance(value, int | float) else f"{value:,.{digits}f}"
