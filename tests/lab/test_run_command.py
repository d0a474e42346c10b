"""``lab run`` and ``lab recipes`` as a user sees them."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import pytest
from rich.console import Console

from hrm_engine.store.clock import now_iso
from hrm_engine.store.paths import Workspace
from lab.cli.app import main
from lab.cli.run import RunView
from lab.runner.execute import Progress
from lab.runner.kernel import processes_of
from lab.runner.orphans import end_dead_runs
from tests.lab.notebooks import CHILD, write_notebook

HERE = Path(__file__).parents[2]

# As a trainer does it: the interruption is the wish to stop, and saving takes longer than a kernel is usually given.
WAITS_AND_SAVES = """
import pathlib, time
mark = pathlib.Path({mark!r})
mark.touch()
try:
    time.sleep(600)
except KeyboardInterrupt:
    time.sleep(4)
    mark.write_text("saved")
"""


def only_run(workspace: Path) -> dict[str, object]:
    (path,) = (workspace / "artifacts" / "notebooks").glob("*/run.json")
    return json.loads(path.read_text(encoding="utf8"))


def test_a_run_ends_with_its_summary(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = "{'summary': [['loss', 1.23456], ['sample', 'two\\nlines']], 'bundles': ['artifacts/a']}"
    write_notebook(
        workspace / "nb.ipynb",
        "# First",
        "print(n)",
        "# Second",
        f"display({{'application/vnd.hrm-lab.run+json': {told}, 'text/plain': ''}}, raw=True)",
        parameters="n: int = 1\n",
    )
    assert main(["run", "nb.ipynb", "-p", "n=7"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:4] == ["nb", "[1/6] Parameters", "[3/6] First", "[5/6] Second"]
    facts = dict(line.strip().split("  ", 1) for line in lines[lines.index("") + 2 :])
    assert facts["loss"].strip() == "1.235"
    assert facts["sample"].strip() == "two lines"
    assert facts["bundle"].strip() == "artifacts/a"
    for name in ("notebook", "HTML"):
        assert (workspace / facts[name].strip()).is_file()
    assert facts["look at it"].strip() == "lab dashboard"
    assert only_run(workspace)["parameters"] == {"n": 7}


def test_elsewhere_paths_are_told_in_full(
    workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_notebook(workspace / "nb.ipynb", "x = 1")
    monkeypatch.chdir(tmp_path)
    assert main(["run", "nb.ipynb"]) == 0
    facts = dict(line.strip().split("  ", 1) for line in capsys.readouterr().out.splitlines() if "  " in line.strip())
    for name in ("notebook", "HTML"):
        path = Path(facts[name].strip())
        assert path.is_absolute()
        assert path.is_file()


def test_json_output_is_the_record(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_notebook(workspace / "nb.ipynb", "raise KeyError('k')")
    assert main(["run", "nb.ipynb", "--json"]) == 1
    record = json.loads(capsys.readouterr().out)
    assert record == only_run(workspace)
    assert (record["status"], record["error"]["type"], record["error"]["cell"]) == ("failed", "KeyError", 1)


def test_a_failing_notebook_names_its_cell(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_notebook(workspace / "nb.ipynb", "x = 1", "y = 2\nraise ValueError('no such \\x1b[2J value')")
    assert main(["run", "nb.ipynb"]) == 1
    shown = capsys.readouterr().out
    assert "failed in cell 2, line 2: raise ValueError" in shown
    assert "ValueError: no such [2J value" in shown
    assert "\x1b" not in shown


def test_the_clock_of_a_run_goes_on_between_outputs() -> None:
    out = Console(file=io.StringIO(), force_terminal=True, width=60)
    view = RunView(out)
    with out.status(view):
        view(Progress(1, 2, "output", "step 1\nstep 2\n"))
        shown = [str(view.__rich__())]
        view._began -= 61  # a minute without output
        shown.append(str(view.__rich__()))
    assert [line.rpartition("  ") for line in shown] == [("0.0 s", "  ", "step 2"), ("1:01", "  ", "step 2")]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["nb.ipynb", "-p", "m=1"], "unknown parameter 'm'"),
        (["nb.ipynb", "-p", "n=x"], "-p n=x: a whole number is needed"),
        (["nb.ipynb", "-p", "n"], "NAME=VALUE"),
        (["nb.ipynb", "-p", "=3"], "NAME=VALUE"),
        (["nb.ipynb", "--cell-timeout", "0"], "--cell-timeout 0"),
        (["none.ipynb"], "does not exist"),
        (["no-recipe"], "Recipes: "),
    ],
)
def test_what_is_refused_is_refused_before_anything_is_written(
    words: list[str], told: str, workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_notebook(workspace / "nb.ipynb", "x = 1", parameters="n: int = 1\n")
    assert main(["run", *words]) == 2
    assert told in capsys.readouterr().err
    assert not (workspace / "artifacts" / "notebooks").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="a process cannot be sent these signals there")
def test_a_signal_ends_kernel_and_record(workspace: Path) -> None:
    codes = {signal.SIGTERM: 143, signal.SIGINT: 130}
    with ExitStack() as running:  # both at once: most of the time they wait
        processes = {number: running.enter_context(waiting_run(workspace, number.name)) for number in codes}
        for number, process in processes.items():
            wait_for(workspace / number.name, process)
            os.kill(process.pid, number)
        for number, process in processes.items():
            assert process.wait(60) == codes[number]
            assert (workspace / number.name).read_text() == "saved"
    records = [json.loads(path.read_text()) for path in (workspace / "artifacts" / "notebooks").glob("*/run.json")]
    assert [record["status"] for record in records] == ["stopped", "stopped"]
    assert [list(processes_of(record["run_id"])) for record in records] == [[], []]


@pytest.mark.skipif(sys.platform == "win32", reason="there a process cannot leave its group")
def test_the_next_start_ends_what_a_killed_run_has_left(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with waiting_run(workspace, "killed", before=CHILD) as process:
        wait_for(workspace / "killed", process)
        process.kill()
    record = only_run(workspace)
    killed, home = str(record["run_id"]), workspace / "artifacts" / "notebooks"
    others = {"lives": {"pid": os.getpid(), "process_started": None}, "elsewhere": {"host": "other"}}
    for name, change in others.items():
        (home / name).mkdir()
        text = json.dumps({**record, "started": now_iso(), **change})
        (home / name / "run.json").write_text(text, encoding="utf8")
    assert list(processes_of(killed)), "the child of a cell outlives kernel and runner"

    write_notebook(workspace / "nb.ipynb", "x = 1")
    assert main(["run", "nb.ipynb"]) == 0
    told = capsys.readouterr().err
    assert f"{killed} failed: its 'lab run' (process {process.pid}) ended without a word" in told
    assert "elsewhere" not in told
    assert not list(processes_of(killed))
    states = {name: json.loads((home / name / "run.json").read_text())["status"] for name in (killed, *others)}
    assert states == {killed: "failed", "lives": "running", "elsewhere": "running"}
    assert list(end_dead_runs(Workspace(workspace))) == []


def wait_for(mark: Path, process: subprocess.Popen[bytes]) -> None:
    """Wait until a run has made its file."""
    until = time.monotonic() + 60
    while not mark.exists() and time.monotonic() < until and process.poll() is None:
        time.sleep(0.05)


def waiting_run(workspace: Path, name: str, *, before: str = "") -> subprocess.Popen[bytes]:
    """A run of a notebook that makes the file ``name``, and waits until it is interrupted."""
    write_notebook(workspace / f"{name}.ipynb", before + WAITS_AND_SAVES.format(mark=str(workspace / name)))
    # Not the test's own handling of Ctrl-C, which a runner in the background may have switched off.
    return subprocess.Popen(
        [sys.executable, "-m", "lab", "run", f"{name}.ipynb"],
        cwd=HERE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


def test_recipes_are_listed_and_shown(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipes", "list"]) == 0
    assert "quickstart" in capsys.readouterr().out
    assert main(["recipes", "list", "--json"]) == 0
    names = [item["name"] for item in json.loads(capsys.readouterr().out)]
    assert names == ["adaptive-depth", "experts", "experts-bench", "puzzles", "quickstart", "transformer-bench"]
    assert main(["recipes", "show", "quickstart"]) == 0
    assert "optimizer steps" in capsys.readouterr().out
    assert main(["recipes", "show", "quickstart", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    steps = next(item for item in shown["parameters"] if item["name"] == "steps")
    assert steps["type"] == "int"
    assert shown["preset"] == "text-small"
    assert main(["recipes", "show", "none"]) == 2


def test_drawn_blocks_keep_their_lines(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    block = "+---+\n| 1*|\x1b[2J\n+---+"
    told = {"summary": [["loss", 1.5]], "blocks": [["a board", block], ["no text", 3], "none"], "bundles": []}
    write_notebook(
        workspace / "nb.ipynb", f"display({{'application/vnd.hrm-lab.run+json': {told!r}, 'text/plain': ''}}, raw=True)"
    )
    assert main(["run", "nb.ipynb"]) == 0
    out = capsys.readouterr().out
    assert "  a board\n    +---+\n    | 1*|[2J\n    +---+\n" in out
    assert only_run(workspace)["blocks"] == {"a board": block}
