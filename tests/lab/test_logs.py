"""``lab logs``: which run is meant, its last lines, and following it to its end."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from hrm_engine.errors import BundleError, ConfigError
from hrm_engine.store.paths import Workspace
from hrm_engine.store.runs import find_run
from hrm_engine.store.status import RunStatus, write_status
from lab.cli.app import main

HOSTILE = ["../x", "/etc", "a\0b", "a" * 300, "..", ".", "", "%252e%252e%2fx", "a b", "-rf", "~root/x"]


def make_run(workspace: Path, name: str = "a", lines: int = 5, folder: str = "brains/actv1") -> Path:
    run = workspace / "artifacts" / folder / name
    run.mkdir(parents=True)
    (run / "training_args.json").write_text("{}")
    (run / "run.log").write_text("".join(f"line {number}\n" for number in range(1, lines + 1)))
    return run


def test_the_last_lines_are_shown(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_run(workspace)
    assert main(["logs", "a", "-n", "2"]) == 0
    assert capsys.readouterr().out == "line 4\nline 5\n"
    assert main(["logs", "a", "--lines", "0"]) == 0
    assert capsys.readouterr().out.count("\n") == 5


def test_a_path_in_the_workspace_names_a_run_too(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = make_run(workspace, folder="elsewhere")
    assert main(["logs", "artifacts/elsewhere/a", "-n", "1"]) == 0
    assert main(["logs", str(run), "-n", "1"]) == 0
    assert capsys.readouterr().out == "line 5\n" * 2


def test_damaged_text_and_no_newline_at_the_end(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = make_run(workspace)
    (run / "run.log").write_bytes("ok ä\n".encode() + b"\xff\xfe broken")
    assert main(["logs", "a"]) == 0
    assert capsys.readouterr().out == "ok ä\n\ufffd\ufffd broken"


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_are_refused(name: str, workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_run(workspace)
    with pytest.raises((ConfigError, BundleError)):
        find_run(name, Workspace(workspace))
    assert main(["logs", f"./{name}" if name.startswith("-") else name]) == 2
    assert capsys.readouterr().out == ""


@pytest.mark.skipif(sys.platform == "win32", reason="making symbolic links needs a privilege there")
def test_a_link_that_leads_out_is_refused(workspace: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "run.log").write_text("secret")
    brains = workspace / "artifacts" / "brains" / "actv1"
    brains.mkdir(parents=True)
    (brains / "link").symlink_to(outside)
    for name in ("link", "artifacts/brains/actv1/link"):
        with pytest.raises(ConfigError, match="leads out"):
            find_run(name, Workspace(workspace))


def test_what_is_not_there_is_said(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = make_run(workspace)
    make_run(workspace, folder="runs")
    assert main(["logs", "none"]) == 2
    assert "no run 'none'" in capsys.readouterr().err
    assert main(["logs", "a"]) == 2
    assert "several runs are called a" in capsys.readouterr().err
    (run / "run.log").unlink()
    assert main(["logs", "artifacts/brains/actv1/a"]) == 2
    assert "run.log" in capsys.readouterr().err
    assert main(["logs", "artifacts/brains/actv1/a", "-n", "-3"]) == 2
    assert "--lines" in capsys.readouterr().err


def test_following_ends_with_the_run(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = make_run(workspace)
    write_status(run, RunStatus.of_this_process("running", 1))

    def go_on() -> None:
        time.sleep(0.5)
        with (run / "run.log").open("ab") as log:
            log.write("half ä".encode()[:-1])
            log.flush()
            time.sleep(0.5)
            log.write("ä".encode()[1:] + b" whole\n")
        (run / "run.log").write_text("cut\n")  # as when a log is rotated
        time.sleep(0.5)
        with (run / "run.log").open("a") as log:
            log.write("last\n")
        write_status(run, RunStatus.of_this_process("finished", 2))

    writer = threading.Thread(target=go_on)
    writer.start()
    try:
        assert main(["logs", "a", "-f", "-n", "1"]) == 0
    finally:
        writer.join()
    shown = capsys.readouterr().out
    assert shown.startswith("line 5\n")
    assert shown.endswith("cut\nlast\n")


def test_following_a_run_that_is_removed_ends(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = make_run(workspace)
    write_status(run, RunStatus.of_this_process("running", 1))
    remover = threading.Timer(0.5, (run / "run.log").unlink)
    remover.start()
    assert main(["logs", "a", "-f", "-n", "1"]) == 0
    remover.join()
    shown = capsys.readouterr()
    assert shown.out == "line 5\n"
    assert "was removed" in shown.err


@pytest.mark.skipif(os.name == "nt", reason="there are no broken pipes of this kind on Windows")
def test_a_reader_that_leaves_early_is_no_error(workspace: Path) -> None:
    make_run(workspace, lines=200_000)
    words = [sys.executable, "-m", "lab", "logs", "a", "-n", "0"]
    here = Path(__file__).parents[2]
    with subprocess.Popen(words, cwd=here, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == b"line 1\n"
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 1
