from __future__ import annotations

import json
import os
import threading
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from hrm_engine.errors import LockedError, StorageError
from hrm_engine.store import locks
from hrm_engine.store.locks import HOLDER_FILE, LOCK_FILE, FolderLock
from hrm_engine.store.processes import host_name, started_at
from hrm_engine.store.status import RunStatus, live_state, write_status
from tests.store.conftest import Spawn

HOLDS = """
import sys
from pathlib import Path
from hrm_engine.store.locks import FolderLock
with FolderLock(Path(sys.argv[1])):
    print("held", flush=True)
    input()
"""
TRIES = """
import sys
from pathlib import Path
from hrm_engine.errors import LockedError
from hrm_engine.store.locks import FolderLock
try:
    with FolderLock(Path(sys.argv[1])) as lock:
        print("got it", lock.taken_over, flush=True)
except LockedError as problem:
    print("refused", problem, flush=True)
"""


def holder(folder: Path, **changes: object) -> None:
    content = {"pid": os.getpid(), "host": host_name(), "started": "2026-01-01T00:00:00+00:00", **changes}
    folder.mkdir(exist_ok=True)
    (folder / HOLDER_FILE).write_text(json.dumps(content))


def test_the_second_process_is_refused_and_told_by_whom(tmp_path: Path, spawn: Spawn) -> None:
    first = spawn(HOLDS, tmp_path / "run")
    assert first.stdout is not None
    assert first.stdin is not None
    assert first.stdout.readline() == "held\n"
    answer, errors = spawn(TRIES, tmp_path / "run").communicate()
    assert answer.startswith("refused"), errors
    assert f"process {first.pid} on {host_name()}" in answer
    with pytest.raises(LockedError, match=str(first.pid)):
        FolderLock(tmp_path / "run").acquire()
    first.communicate("\n")
    with FolderLock(tmp_path / "run") as lock:
        assert lock.taken_over is None


def test_the_lock_of_a_killed_process_is_taken_over_with_a_message(tmp_path: Path, spawn: Spawn) -> None:
    first = spawn(HOLDS, tmp_path)
    assert first.stdout is not None
    assert first.stdout.readline() == "held\n"
    first.kill()
    first.wait()
    with FolderLock(tmp_path) as lock:
        assert lock.taken_over is not None
        assert f"process {first.pid} on {host_name()}" in lock.taken_over
        answer, _ = spawn(TRIES, tmp_path).communicate()
        assert f"process {os.getpid()}" in answer
    assert not (tmp_path / HOLDER_FILE).exists()
    assert FolderLock(tmp_path).acquire().taken_over is None


def test_of_many_that_come_at_once_exactly_one_gets_it(tmp_path: Path, spawn: Spawn) -> None:
    code = TRIES.replace("flush=True)\nexcept", "flush=True)\n        input()\nexcept")
    assert code != TRIES
    processes = [spawn(code, tmp_path) for _ in range(4)]
    answers = []
    for process in processes:
        assert process.stdout is not None
        answers.append(process.stdout.readline())
    winners = [process for process, answer in zip(processes, answers, strict=True) if answer.startswith("got it")]
    assert len(winners) == 1, answers
    assert sum(f"process {winners[0].pid} on" in answer for answer in answers) == 3


def test_the_same_process_cannot_lock_twice_but_again_after_release(tmp_path: Path) -> None:
    lock = FolderLock(tmp_path)
    with lock:
        assert lock.held
        with pytest.raises(LockedError, match=str(os.getpid())):
            FolderLock(tmp_path).acquire()
        with pytest.raises(LockedError, match="already"):
            lock.acquire()
    assert not lock.held
    lock.release()
    with lock:
        assert lock.held


def test_another_thread_may_release(tmp_path: Path) -> None:
    lock = FolderLock(tmp_path).acquire()
    thread = threading.Thread(target=lock.release)
    thread.start()
    thread.join()
    with FolderLock(tmp_path) as again:
        assert again.held


def test_a_recycled_process_number_does_not_hold_a_lock(tmp_path: Path, spawn: Spawn) -> None:
    other = spawn("input()")
    started = started_at(other.pid)
    assert started is not None
    holder(tmp_path, pid=other.pid, process_started=started - 1000)
    with FolderLock(tmp_path) as lock:
        assert lock.taken_over is not None


def test_a_living_holder_without_the_systems_lock_is_respected(tmp_path: Path, spawn: Spawn) -> None:
    # As on a file system without locks, or after somebody deleted the lock file.
    other = spawn("input()")
    holder(tmp_path, pid=other.pid, process_started=started_at(other.pid))
    with pytest.raises(LockedError, match=str(other.pid)):
        FolderLock(tmp_path).acquire()
    assert json.loads((tmp_path / HOLDER_FILE).read_text())["pid"] == other.pid


def test_the_holder_on_another_machine_is_respected_and_the_cure_named(tmp_path: Path) -> None:
    holder(tmp_path, host="another-machine", pid=42)
    with pytest.raises(LockedError, match=r"process 42 on another-machine.*delete .*\.lock\.json"):
        FolderLock(tmp_path).acquire()
    (tmp_path / HOLDER_FILE).unlink()
    with FolderLock(tmp_path) as lock:
        assert lock.held


def elsewhere(folder: Path, *, age_s: float) -> RunStatus:
    """A holder on another machine and its run, whose last heartbeat is so old by our clock."""
    holder(folder, host="another-machine", pid=42)
    heartbeat = datetime.fromtimestamp(time.time() - age_s, UTC).isoformat()
    status = RunStatus("running", 42, "another-machine", heartbeat, step=7)
    write_status(folder, status)
    return status


@pytest.mark.parametrize(("age_s", "state"), [(100.0, "running"), (140.0, "dead")])
def test_a_holder_on_another_machine_lives_as_long_as_its_state_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, age_s: float, state: str
) -> None:
    monkeypatch.setattr(locks, "_WATCH_S", 0.01)
    elsewhere(tmp_path, age_s=age_s)
    assert live_state(tmp_path) == state
    if state == "running":
        with pytest.raises(LockedError, match=r"process 42 on another-machine.* or --resume with --take-over"):
            FolderLock(tmp_path).acquire()
    with FolderLock(tmp_path, take_over=state == "running") as lock:
        assert lock.taken_over is not None
        assert "process 42 on another-machine" in lock.taken_over


def test_a_heart_that_beats_by_a_clock_that_is_late_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere(tmp_path, age_s=180)

    def beat(_: float) -> None:
        elsewhere(tmp_path, age_s=178)

    monkeypatch.setattr(locks.time, "sleep", beat)
    with pytest.raises(LockedError, match="another-machine"):
        FolderLock(tmp_path).acquire()


def test_a_state_of_another_process_says_nothing_about_the_holder(tmp_path: Path) -> None:
    status = elsewhere(tmp_path, age_s=10_000)
    for other in (replace(status, pid=43), replace(status, host="a-third-machine")):
        write_status(tmp_path, other)
        with pytest.raises(LockedError, match="another-machine"):
            FolderLock(tmp_path).acquire()


def test_who_was_taken_for_dead_sees_so_and_leaves_the_others_name(tmp_path: Path) -> None:
    lock = FolderLock(tmp_path)
    with lock:
        assert lock.is_ours()
        holder(tmp_path, host="another-machine", pid=42)
        assert not lock.is_ours()
    assert json.loads((tmp_path / HOLDER_FILE).read_text())["pid"] == 42


@pytest.mark.parametrize("content", ["", "{", "[]", "\0" * 100, '{"pid": "x"'])
def test_a_damaged_holder_file_does_not_lock_anybody_out(tmp_path: Path, content: str) -> None:
    (tmp_path / HOLDER_FILE).write_text(content)
    with FolderLock(tmp_path) as lock:
        assert lock.held
        assert json.loads((tmp_path / HOLDER_FILE).read_text())["pid"] == os.getpid()


@pytest.mark.parametrize("content", ['{"pid": "x", "host": 5}', '{"pid": null}'])
def test_a_holder_file_that_names_no_host_of_ours_is_refused_with_its_cure(tmp_path: Path, content: str) -> None:
    (tmp_path / HOLDER_FILE).write_text(content)
    with pytest.raises(LockedError, match=r"delete .*\.lock\.json"):
        FolderLock(tmp_path).acquire()


def test_a_folder_that_cannot_be_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(StorageError, match="file"):
        FolderLock(tmp_path / "file").acquire()
    (tmp_path / "odd" / LOCK_FILE).mkdir(parents=True)
    with pytest.raises(StorageError, match="odd"):
        FolderLock(tmp_path / "odd").acquire()
