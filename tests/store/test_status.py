from __future__ import annotations

import os
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from hrm_engine.errors import ConfigError
from hrm_engine.store.processes import is_alive, started_at
from hrm_engine.store.status import RunStatus, live_state, read_status, write_status
from tests.store.conftest import Spawn


def ago(seconds: float) -> str:
    return (datetime.now(UTC) - timedelta(seconds=seconds)).isoformat()


def test_a_status_comes_back_and_this_process_runs(tmp_path: Path) -> None:
    status = RunStatus.of_this_process("running", 7, "on its way")
    write_status(tmp_path, status)
    assert read_status(tmp_path) == status
    assert live_state(tmp_path) == "running"
    assert datetime.fromisoformat(status.heartbeat).utcoffset() == timedelta(0)


@pytest.mark.parametrize("state", ["finished", "stopped", "failed"])
def test_an_ended_run_stays_what_it_says(tmp_path: Path, state: str) -> None:
    write_status(tmp_path, replace(RunStatus.of_this_process("running", 1), state=state, pid=1 << 30))
    assert live_state(tmp_path) == state


def test_a_process_that_is_gone_is_dead_at_once(tmp_path: Path, spawn: Spawn) -> None:
    run = "import sys; from hrm_engine.store.status import *; from pathlib import Path\n"
    run += "write_status(Path(sys.argv[1]), RunStatus.of_this_process('running', 3)); print(1, flush=True); input()"
    process = spawn(run, tmp_path)
    assert process.stdout is not None
    assert process.stdout.readline() == "1\n"
    assert live_state(tmp_path) == "running"
    process.kill()
    while started_at(process.pid) is not None:  # it ends a moment after the signal; unfetched, it stays a zombie
        pass
    assert live_state(tmp_path) == "dead"
    process.wait()
    assert live_state(tmp_path) == "dead"


def test_a_recycled_process_number_is_not_the_run(tmp_path: Path) -> None:
    own = RunStatus.of_this_process("running", 3)
    started = started_at(os.getpid())
    assert started is not None
    before = datetime.fromtimestamp(started - 3600, UTC).isoformat()
    write_status(tmp_path, replace(own, heartbeat=before))
    assert live_state(tmp_path) == "dead"
    assert is_alive(os.getpid(), started=started)
    assert not is_alive(os.getpid(), started=started - 3600)


@pytest.mark.parametrize(("age_s", "expected"), [(5, "running"), (119, "running"), (125, "dead")])
def test_a_run_of_another_machine_lives_by_its_heartbeat(tmp_path: Path, age_s: int, expected: str) -> None:
    write_status(tmp_path, RunStatus("running", os.getpid(), "another-machine", ago(age_s), 1))
    assert live_state(tmp_path) == expected


@pytest.mark.parametrize("pid", [-1, 1 << 30, 1 << 70])
def test_impossible_process_numbers_are_dead(tmp_path: Path, pid: int) -> None:
    assert not is_alive(pid)
    write_status(tmp_path, replace(RunStatus.of_this_process("running", 1), pid=pid))
    assert live_state(tmp_path) == "dead"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b'{"state": "dancing"}',
        b'{"state": ["running"]}',
        b"\xff\xfe",
        b'{"state": "running", "pid": "1", "host": 5}',
        b'{"state": "running", "heartbeat": "soon"}',
    ],
)
def test_a_damaged_status_is_no_traceback(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "status.json").write_bytes(content)
    assert live_state(tmp_path) in {"unknown", "dead"}
    assert live_state(tmp_path / "nowhere") == "unknown"


def test_a_state_that_does_not_exist_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="paused"):
        write_status(tmp_path, replace(RunStatus.of_this_process("running", 1), state="paused"))
    assert read_status(tmp_path) is None
