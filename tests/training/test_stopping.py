"""Stopping early, by file, clock, signal or error, and what status.json then says."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from hrm_engine.errors import ConfigError, LockedError, StorageError
from hrm_engine.store import locks
from hrm_engine.store.clock import parse_iso
from hrm_engine.store.locks import FolderLock
from hrm_engine.store.status import live_state, read_status
from hrm_engine.training import Trainer, train
from hrm_engine.training.monitor import HEARTBEAT_S
from tests.tiny_runs import TEXT, Lab, assert_same_end, files, row_of, rows, text


def status(run_dir: Path) -> tuple[str, int, str]:
    """State, step and message in status.json, which names this process and is a moment old."""
    found = read_status(run_dir)
    assert found is not None
    assert found.pid == os.getpid()
    heartbeat = parse_iso(found.heartbeat)
    assert heartbeat is not None
    assert abs(time.time() - heartbeat) < 60
    return found.state, found.step, found.message


def test_a_stop_file_at_the_start_ends_before_step_1_and_is_removed(lab: Lab) -> None:
    stop = lab.root / "STOP"
    stop.touch()
    result = lab.train("run", stop_file="STOP")
    assert (result.state, result.step, result.exit_code) == ("stopped", 0, 0)
    assert result.message == f"stopped by the stop file {stop}"
    assert not stop.exists()
    assert [row["event"] for row in rows(result.run_dir)] == ["start", "stop"]
    assert status(result.run_dir) == ("stopped", 0, result.message)
    # honoured once: the same command line goes on from there
    lab.train("straight", stop_file="STOP")
    assert lab.resume("run", stop_file="STOP").state == "finished"
    assert_same_end(lab.run_dir("straight"), lab.run_dir("run"))


def test_a_stop_file_in_between_lets_the_step_finish_and_saves(lab: Lab) -> None:
    stop = lab.root / "stop" / "now"
    stop.parent.mkdir()

    def observe(row: dict[str, Any]) -> None:
        if row["event"] == "train" and row["step"] == 2:
            stop.touch()
            time.sleep(0.6)  # longer than the trainer goes between two looks

    result = train(lab.config(brain_name="run", stop_file=str(stop)), workspace=lab.workspace, observer=observe)
    assert (result.state, result.step, result.exit_code) == ("stopped", 2, 0)
    assert not stop.exists()
    assert (result.run_dir / "checkpoints" / "step_00000002" / "MANIFEST.json").is_file()
    row = row_of(result.run_dir, "stop")
    assert (row["step"], row["exit_code"], row["reason"]) == (2, 0, result.message)


def test_a_stop_file_that_cannot_be_removed_stops_the_run_and_is_told(lab: Lab) -> None:
    stop = lab.root / "STOP"

    def observe(row: dict[str, Any]) -> None:
        if row["event"] == "train" and row["step"] == 2:
            stop.mkdir()  # what `unlink` cannot remove
            time.sleep(0.6)  # longer than the trainer goes between two looks

    result = train(lab.config(brain_name="run", stop_file=str(stop)), workspace=lab.workspace, observer=observe)
    assert (result.state, result.step, result.exit_code) == ("stopped", 2, 0)
    assert re.search("STOP, which cannot be removed .*: remove it, or the next start stops at once", result.message)
    assert status(result.run_dir) == ("stopped", 2, result.message)
    again = lab.resume("run", stop_file=str(stop))
    assert (again.state, again.step, again.message) == ("stopped", 2, result.message)
    stop.rmdir()
    lab.trained("straight")
    lab.resume("run", stop_file=str(stop))
    assert_same_end(lab.run_dir("straight"), lab.run_dir("run"))


ELSEWHERE = "artifacts/brains/actv1/other"
REFUSED = {
    TEXT: "it is --dataset-file",
    "held_out.txt": "it is --eval-file",
    f"{ELSEWHERE}/metrics.jsonl": "it lies in the bundle",
    f"{ELSEWHERE}/new": "it lies in the bundle",
    f"{ELSEWHERE}/checkpoints/step_00000006/state.json": "it lies in the bundle",
    "artifacts/brains/actv1/run/run.log": "it is a file of this run",
    "artifacts/brains/actv1/run/checkpoints/x": "it is a file of this run",
    "large.txt": "it holds ",
}


@pytest.mark.parametrize("flag", ["log_file", "stop_file"])
@pytest.mark.parametrize("place", REFUSED)
def test_side_files_are_no_files_of_something_else(lab: Lab, place: str, flag: str) -> None:
    lab.trained("other")
    for name in ("held_out.txt", "large.txt"):
        (lab.root / name).write_text(text(seed=1))
    before = files(lab.root)
    with pytest.raises(ConfigError, match=f"--{flag.replace('_', '-')} {re.escape(place)}: {REFUSED[place]}.*choose"):
        lab.train("run", eval_file="held_out.txt", **{flag: place})
    assert files(lab.root) == before


def test_side_files_have_a_place_of_their_own_and_may_lie_in_the_run(lab: Lab) -> None:
    with pytest.raises(ConfigError, match="--log-file both: it is --stop-file both"):
        lab.train("run", log_file="both", stop_file="both")
    place = "artifacts/brains/actv1/run"
    result = lab.train("run", log_file=f"{place}/metrics.jsonl", stop_file=f"{place}/STOP")
    assert result.state == "finished"
    (result.run_dir / "STOP").touch()
    assert lab.resume("run", steps=8, log_file=f"{place}/copy.jsonl").state == "stopped"


def test_metrics_that_are_deleted_while_the_run_goes_on_are_written_again(lab: Lab) -> None:
    metrics = lab.run_dir("run") / "metrics.jsonl"
    kept: list[dict[str, Any]] = []

    def observe(row: dict[str, Any]) -> None:
        if (row["event"], row["step"]) == ("train", 3):
            metrics.unlink()
        elif (row["event"], row["step"]) == ("train", 5):
            kept.extend(rows(lab.run_dir("run")))
            metrics.unlink()
            metrics.write_text('{"event":"of another program"}\n{"torn')

    train(lab.config(brain_name="run"), workspace=lab.workspace, observer=observe)
    assert [row["step"] for row in kept if row["event"] == "train"] == [1, 2, 3, 4, 5]
    assert [row["step"] for row in rows(lab.run_dir("run")) if row["event"] == "train"] == [6]
    assert rows(lab.run_dir("run"))[0]["event"] == "of another program"
    log = (lab.run_dir("run") / "run.log").read_text()
    assert log.count("metrics.jsonl was deleted while the run went on: it was written again") == 1
    assert log.count("metrics.jsonl was replaced while the run went on: rows go on in the new file") == 1


def test_max_minutes_stops_like_the_stop_file(lab: Lab) -> None:
    result = lab.train("run", max_minutes=0.01, steps=100_000, eval_every=100_000, save_every=100_000)
    assert (result.state, result.exit_code, result.message) == ("stopped", 0, "stopped after --max-minutes")
    assert 0 < result.step < 100_000
    assert status(result.run_dir) == ("stopped", result.step, "stopped after --max-minutes")
    assert lab.resume("run", max_minutes=0.005).step >= result.step


@pytest.mark.parametrize(("name", "code"), [("SIGTERM", 143), ("SIGINT", 130), ("SIGHUP", 129)])
def test_signals_let_the_step_finish_and_a_second_one_the_save(lab: Lab, name: str, code: int) -> None:
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}

    def observe(row: dict[str, Any]) -> None:
        # the row of a checkpoint is written in the middle of finishing
        if (row["event"], row["step"]) in (("train", 3), ("checkpoint", 3)):
            signal.raise_signal(getattr(signal, name))
            signal.raise_signal(signal.SIGINT)

    result = train(lab.config(brain_name="run"), workspace=lab.workspace, observer=observe)
    assert (result.state, result.step, result.exit_code) == ("stopped", 3, code)
    assert result.message == f"stopped by {name}"
    assert row_of(result.run_dir, "stop")["exit_code"] == code
    assert (result.run_dir / "metadata.json").is_file()
    assert {number: signal.getsignal(number) for number in before} == before


def test_under_nohup_the_end_of_the_terminal_changes_nothing(lab: Lab) -> None:
    def observe(row: dict[str, Any]) -> None:
        if (row["event"], row["step"]) == ("train", 3):
            signal.raise_signal(signal.SIGHUP)

    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        result = train(lab.config(brain_name="run"), workspace=lab.workspace, observer=observe)
    finally:
        signal.signal(signal.SIGHUP, before)
    assert (result.state, result.step) == ("finished", 6)


def test_a_trainer_in_another_thread_leaves_signals_alone(lab: Lab) -> None:
    before = signal.getsignal(signal.SIGTERM)
    results = []
    thread = threading.Thread(target=lambda: results.append(lab.train("run")))
    thread.start()
    thread.join()
    assert [result.state for result in results] == ["finished"]
    assert signal.getsignal(signal.SIGTERM) is before


def test_status_while_it_runs_and_after(lab: Lab) -> None:
    seen = []

    def observe(row: dict[str, Any]) -> None:
        if row["event"] == "train" and row["step"] == 2:
            seen.append((live_state(lab.run_dir("run")), read_status(lab.run_dir("run")).step))
            time.sleep(HEARTBEAT_S + 0.5)
            seen.append((live_state(lab.run_dir("run")), read_status(lab.run_dir("run")).step))

    result = train(lab.config(brain_name="run"), workspace=lab.workspace, observer=observe)
    assert seen == [("running", 0), ("running", 2)]
    assert status(result.run_dir) == ("finished", 6, "finished")
    assert live_state(result.run_dir) == "finished"


class Struck(BaseException):
    """Not an Exception: those of an observer end no training."""


def test_an_error_while_training_is_told_and_the_lock_given_back(lab: Lab) -> None:
    def observe(row: dict[str, Any]) -> None:
        if row["event"] == "train" and row["step"] >= 3:
            raise Struck("by lightning")

    with pytest.raises(Struck):
        train(lab.config(brain_name="run"), workspace=lab.workspace, observer=observe)
    assert status(lab.run_dir("run")) == ("failed", 3, "by lightning")
    row = row_of(lab.run_dir("run"), "stop")
    assert (row["reason"], row["exit_code"]) == ("by lightning", 1)
    assert "WARNING by lightning" in (lab.run_dir("run") / "run.log").read_text()
    lab.trained("straight")
    lab.resume("run")
    assert_same_end(lab.run_dir("straight"), lab.run_dir("run"))


def test_a_loop_of_ones_own_that_ends_without_finish_is_stopped(lab: Lab) -> None:
    with Trainer(lab.config(brain_name="run"), workspace=lab.workspace) as trainer:
        for _ in range(3):
            report = trainer.step()
        trainer.save()
        assert report.step == 3
    assert status(trainer.run_dir) == ("stopped", 3, "left at step 3 without finish()")
    lab.train("straight", eval_batches=0)
    with FolderLock(trainer.run_dir):
        pass


def test_two_trainers_on_one_folder(lab: Lab) -> None:
    refused = []

    def observe(row: dict[str, Any]) -> None:
        if row["event"] == "train" and row["step"] == 3:
            with pytest.raises(LockedError, match=rf"process {os.getpid()}.*Two trainers") as raised:
                lab.resume("run")
            refused.append(raised.value.exit_code)

    lab.trained("straight")
    train(lab.config(brain_name="run"), workspace=lab.workspace, observer=observe)
    assert refused == [2]
    assert status(lab.run_dir("run"))[0] == "finished"
    assert_same_end(lab.run_dir("straight"), lab.run_dir("run"))


def test_a_stale_lock_is_taken_over_with_a_message(lab: Lab) -> None:
    run_dir = lab.interrupted("run", 3).run_dir
    with FolderLock(run_dir):
        holder = json.loads((run_dir / ".lock.json").read_text())
    (run_dir / ".lock.json").write_text(json.dumps({**holder, "pid": 2**22 + 1}))
    assert lab.resume("run").state == "finished"
    assert "its lock was taken over" in " ".join(row_of(run_dir, "resume")["messages"])


def test_a_run_of_a_container_that_is_gone_goes_on(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "_WATCH_S", 0.01)
    lab.trained("straight")
    run_dir = lab.interrupted("run", 3).run_dir
    gone: dict[str, Any] = {"host": "trainer-7d9f8c-x2x4z", "pid": 7}
    now = datetime.fromtimestamp(time.time(), UTC).isoformat()
    for heartbeat, take_over in ((now, False), ("2026-11-29T10:00:00.000+00:00", False), (now, True)):
        copy = shutil.copytree(run_dir, lab.run_dir(f"copy-{heartbeat[:4]}-{take_over}"), dirs_exist_ok=True)
        (copy / ".lock.json").write_text(json.dumps({**gone, "started": "2026-11-29T08:00:00.000+00:00"}))
        old = {**json.loads((copy / "status.json").read_text()), **gone, "state": "running", "heartbeat": heartbeat}
        (copy / "status.json").write_text(json.dumps(old))
        if live_state(copy) == "running" and not take_over:
            with pytest.raises(LockedError, match="--take-over"):
                lab.resume(copy.name)
        else:
            assert lab.resume(copy.name, take_over=take_over).state == "finished"
            assert "its lock was taken over" in " ".join(row_of(copy, "resume")["messages"])
            assert_same_end(lab.run_dir("straight"), copy)
        shutil.rmtree(copy)


def test_a_trainer_that_was_taken_for_dead_ends_without_another_word(lab: Lab) -> None:
    run_dir = lab.run_dir("run")
    theirs = {"host": "another-machine", "pid": 42, "started": "2026-12-01T08:00:00.000+00:00"}
    before: dict[str, bytes] = {}

    def run() -> None:
        with Trainer(lab.config(brain_name="run"), workspace=lab.workspace) as trainer:
            trainer.step()
            (run_dir / ".lock.json").write_text(json.dumps(theirs))
            before.update(files(run_dir))
            deadline = time.monotonic() + 20
            while trainer.monitor.failure is None and time.monotonic() < deadline:
                time.sleep(0.05)
            trainer.step()

    with pytest.raises(LockedError, match="another process goes on with this run"):
        run()
    after = files(run_dir)
    assert {name for name in before if before[name] != after.get(name)} <= {"status.json"}
    assert json.loads((run_dir / ".lock.json").read_text()) == theirs


def test_what_a_killed_save_left_is_put_away(lab: Lab) -> None:
    lab.trained("straight")
    run_dir = lab.interrupted("run", 3).run_dir
    dead = 2**22 + 1
    (run_dir / "checkpoints" / f".tmp-{dead}-01234567-step_00000004").mkdir()
    (run_dir / f".tmp-{dead}-01234567-config.json").write_text("{")
    (run_dir / "best").rename(run_dir / f".old-{dead}-01234567-best")
    lab.resume("run")
    assert "best was brought back" in "".join(row_of(run_dir, "resume")["messages"])
    assert [path for path in run_dir.rglob(".*") if path.name != ".lock"] == []
    assert_same_end(lab.run_dir("straight"), run_dir)


def test_a_write_fails_in_the_background_and_the_next_step_says_so(lab: Lab) -> None:
    def run() -> None:
        with Trainer(lab.config(brain_name="run"), workspace=lab.workspace) as trainer:
            trainer.step()
            status_file = trainer.run_dir / "status.json"
            status_file.unlink()
            status_file.mkdir()
            (status_file / "in the way").touch()
            deadline = time.monotonic() + 20
            while trainer.monitor.failure is None and time.monotonic() < deadline:
                time.sleep(0.05)
            trainer.step()

    with pytest.raises(StorageError, match=r"status\.json: a folder stands where a file is needed"):
        run()
    assert [row["step"] for row in rows(lab.run_dir("run")) if row["event"] == "train"] == [1]


def test_checkpoints_are_kept_as_asked(lab: Lab) -> None:
    result = lab.train("run", save_every=1, keep_last=2)
    kept = sorted(path.name for path in (result.run_dir / "checkpoints").iterdir())
    assert kept == ["step_00000005", "step_00000006"]
