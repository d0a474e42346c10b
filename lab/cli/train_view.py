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
from hrm_engine.store.figures import perplexity
from hrm_engine.store.incidents import incident_text
from hrm_engine.store.paths import Workspace
from lab.cli.console import console, human_count, human_seconds, printable, relative, show_facts

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from hrm_engine.training import TrainResult

_PLAIN_INTERVAL_S = 10.0
_SAMPLE_CHARS = 110
_LARGE = 1e7
"""Numbers from here on are written with an exponent."""
_TASK: TaskID = 0  # type: ignore[assignment]
"""The only line of the progress bar."""
_NOTICES = {"oom": "yellow", "nan": "yellow", "spike": "yellow", "diverged": "yellow", "stop": "cyan"}
_BASELINES = ("copy", "padding", "majority")


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
        self._last_evaluation = ""
        self._says_something = False

    def __call__(self, row: dict[str, Any]) -> None:
        """Show one row; events without a line of their own are left to metrics.jsonl."""
        event = row.get("event")
        if event in ("start", "resume"):
            self._start(row)
        elif event == "train":
            self._progress(row)
        elif event == "eval":
            self._evaluation(row)
        elif event == "sample" and self._says_something:
            text = " ".join(printable(row.get("text", "")).split())[:_SAMPLE_CHARS]
            seconds = f"sample, {human_seconds(row.get('sample_time_s') or 0.0)}  "
            self._out.print(Text.assemble(self._step(row), (seconds, "dim"), Text(text, style="italic")))
        elif event in _NOTICES:
            self._out.print(
                Text.assemble(self._step(row), (f"{event}  ", _NOTICES[event]), printable(incident_text(row)))
            )

    def finish(self, result: TrainResult) -> None:
        """The last lines: how it ended, where the bundle lies, what to do with it."""
        place = relative(result.run_dir, self._workspace)
        self._kind = kinds.named(result.kind)
        style = "green" if result.state == "finished" else "yellow"
        self._out.print()
        why = f": {printable(result.message)}" if result.message != result.state else ""
        self._out.print(Text.assemble((result.state, f"bold {style}"), f" at step {result.step}{why}"))
        if result.step == 0:
            return
        if result.first_eval and result.last_eval:
            self._out.print(Text("validation  " + before_and_after(result)))
        words = kinds.words_of(self._kind)
        facts = [(words.leaves, place), ("try it", words.next_command.format(name=self._name(result.run_dir)))]
        if result.state == "stopped" and self._kind is not None:
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

    def _evaluation(self, row: Mapping[str, Any]) -> None:
        if not self._last_evaluation and (baselines := baseline_line(row)):
            self._out.print(Text.assemble(self._step(row), baselines))
        loss, unigram = row.get("loss"), row.get("unigram_loss")
        self._says_something = loss is not None and unigram is not None and loss < unigram
        line = evaluation_line(row)
        if not row.get("full"):
            self._out.print(Text.assemble(self._step(row), line))
        elif line != self._last_evaluation:
            bundle = f"the bundle, with the weights of step {row.get('weights_step')}: "
            self._out.print(Text.assemble(self._step(row), bundle, line))
        self._last_evaluation = line

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
    """A view on the current stdout; the progress bar, if there is one, disappears at the end."""
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
    if row.get("loss_without") is not None:
        parts[0] += f" with the expert, {_number(row['loss_without'])} without"
    if row.get("unigram_loss") is not None:
        parts[0] += f" (unigram {_number(row['unigram_loss'])})"
    if "perplexity" in row:
        parts.append(f"perplexity {perplexity(row.get('loss')) or '-'}")
    if row.get("token_accuracy") is not None:
        parts.append(f"accuracy {100 * row['token_accuracy']:.1f} %")
    by_segment = row.get("loss_by_segment") or ()
    depth = ["by segment " + " ".join(_number(loss) for loss in by_segment)] if len(by_segment) > 1 else []
    if row.get("adaptive_loss") is not None:
        depth.append(f"adaptive {_number(row['adaptive_loss'])} ({_number(row.get('act_steps_mean'), 1)} segments)")
    return "  ".join([*parts, *([" · ".join(depth)] if depth else [])])


def baseline_line(row: Mapping[str, Any]) -> str:
    """``baselines, cells right: copy 37.5 %  ...``: what needs no model, and is the same in all evaluations."""
    known = {name: row.get(f"{name}_cell_accuracy") for name in _BASELINES}
    shares = [f"{name} {100 * value:.1f} %" for name, value in known.items() if value is not None]
    return f"baselines, cells right: {'  '.join(shares)}" if shares else ""


def before_and_after(result: TrainResult) -> str:
    """``loss 9.000 before, 4.100 at step 40, best 3.900 at step 30 (in the bundle); a unigram model has 6.200``."""
    first, last, best = result.first_eval or {}, result.last_eval or {}, result.best_eval or {}
    word, figure = ("exact", _exact) if "exact_accuracy" in last else ("loss", _loss)
    text = f"{word} {figure(first)} before, {figure(last)} at step {last.get('step')}"
    if best.get("step") is not None:
        is_last = best["step"] == last.get("step")
        text += " (the best)" if is_last else f", best {figure(best)} at step {best['step']} (in the bundle)"
    if last.get("loss_without") is not None:
        text += f"; {_number(last['loss_without'])} without the expert"
    if last.get("unigram_loss") is not None:
        text += f"; a unigram model has {_number(last['unigram_loss'])}"
    return text


def _exact(row: Mapping[str, Any]) -> str:
    cells = row.get("cell_accuracy")
    text = f"{100 * (row.get('exact_accuracy') or 0.0):.1f} %"
    return text if cells is None else f"{text} (cells {100 * cells:.1f} %)"


def _loss(row: Mapping[str, Any]) -> str:
    return _number(row.get("loss"))


def _puzzle_line(row: Mapping[str, Any]) -> str:
    share = {name: f"{100 * value:.1f} %" for name, value in row.items() if _is_share(name) and value is not None}
    parts = [f"pass@{k} {share[f'pass_at_{k}']}" for k in (1, 2) if f"pass_at_{k}" in share]
    solved = f"exact {share.get('exact_accuracy', '-')}"
    if "exact_accuracy_when_halting" in share:
        depth = _number(row.get("act_steps_mean"), 1)
        solved += f" · adaptive {share['exact_accuracy_when_halting']} ({depth} segments)"
    parts += [solved, f"cells {share.get('cell_accuracy', '-')}"]
    if "halt_accuracy" in share:
        parts.append(f"halting right {share['halt_accuracy']}")
    return "  ".join([*parts, f"{_number(row.get('num_rows'), 0)} puzzles"])


def _is_share(name: str) -> bool:
    return name.endswith(("accuracy", "when_halting")) or name.startswith("pass_at_")


def _number(value: Any, digits: int = 3) -> str:
    if not isinstance(value, int | float):
        return "-"
    return f"{value:,.{digits}f}" if abs(value) < _LARGE else f"{value:.3g}"
