"""Trainers as processes: signals, locks, exit codes, memory limits."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hrm_engine.bundles.listing import verify_bundle
from hrm_engine.store.manifest import list_checkpoints
from hrm_engine.store.status import live_state, read_status
from tests.tiny_runs import REPOSITORY, Child, Forks, Lab, assert_same_end, flags, row_of, rows

STEPS = 100_000
TIMEOUT_S = 60


def command(lab: Lab, name: str, **changed: object) -> list[str]:
    """A command line that begins a run."""
    return ["train", "actv1", "--brain-name", name, *flags(lab.settings(**changed))]


def endless(lab: Lab, name: str) -> list[str]:
    """A run that goes on for as long as a test can need it."""
    return command(lab, name, steps=STEPS, save_every=STEPS, eval_every=STEPS, max_minutes=2)


def wait_for(run_dir: Path, event: str, count: int = 1) -> None:
    """Until the run has written that many rows of an event."""
    deadline = time.monotonic() + TIMEOUT_S
    while time.monotonic() < deadline:
        try:
            if (run_dir / "metrics.jsonl").read_text().count(f'"event":"{event}"') >= count:
                return
        except FileNotFoundError:
            pass
        time.sleep(0.01)
    pytest.fail(f"no {event} row in {run_dir}")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_saves_and_a_storm_of_them_does_not_hurt(
    lab: Lab, forks: Forks, number: signal.Signals, code: int
) -> None:
    child = forks.start(lab.root, *endless(lab, "run"))
    wait_for(lab.run_dir("run"), "train", 3)
    send_while_it_saves(child, number, lab.run_dir("run"))
    assert child.wait() == code
    run_dir = lab.run_dir("run")
    status = read_status(run_dir)
    assert status is not None
    assert (status.state, live_state(run_dir), status.message) == ("stopped", "stopped", f"stopped by {number.name}")
    [checkpoint] = list_checkpoints(run_dir)
    assert (checkpoint.step, checkpoint.problems) == (status.step, [])
    assert verify_bundle(run_dir) == []
    assert row_of(run_dir, "stop")["exit_code"] == code
    assert "Traceback" not in lab.output()


def send_while_it_saves(child: Child, number: int, run_dir: Path) -> None:
    """The signal, again and again, until the checkpoint stands; the bundle is still being written then."""
    deadline = time.monotonic() + TIMEOUT_S
    while '"event":"checkpoint"' not in (run_dir / "metrics.jsonl").read_text():
        assert time.monotonic() < deadline
        child.send(number)
        time.sleep(0.002)


def test_a_second_trainer_is_refused_and_a_killed_ones_lock_is_taken_over(lab: Lab, forks: Forks) -> None:
    first = forks.start(lab.root, *endless(lab, "run"))
    wait_for(lab.run_dir("run"), "train", 3)
    second = ["train", "actv1", "--resume", "--brain-name", "run"]
    assert forks.run(lab.root, *second, log="second") == 2
    assert f"locked by process {first.pid}" in (lab.root / "second").read_text().replace("\n", " ")
    assert forks.run(lab.root, *second[:2], "--fresh", *command(lab, "run")[2:], log="second") == 2
    assert live_state(lab.run_dir("run")) == "running"
    first.send(signal.SIGKILL)
    assert first.wait() == -signal.SIGKILL
    assert live_state(lab.run_dir("run")) == "dead"
    assert forks.run(lab.root, *second, "--max-minutes", "0.0001") == 0
    messages = " ".join(row_of(lab.run_dir("run"), "resume")["messages"])
    assert f"was still locked by process {first.pid}" in messages
    assert "its lock was taken over" in messages


def test_exit_codes(lab: Lab, forks: Forks) -> None:
    """0 also for a stop file and a time limit, 2 bad input, 3 non-finite loss, 5 storage."""
    (lab.root / "STOP").touch()
    (lab.root / "file").write_text("mine")
    nan = {"lr": 10.0, "grad_clip": 0.0, "warmup_steps": 0, "model_dtype": "fp16", "steps": 40, "eval_batches": 0}
    expected = {
        "done": (0, {"steps": 1, "eval_batches": 0}),
        "stop-file": (0, {"stop_file": "STOP"}),
        "max-minutes": (0, {"max_minutes": 0.0001}),
        "no-data": (2, {"dataset_file": "nowhere.txt"}),
        "nan": (3, nan),
        "storage": (5, {"bundle_dir": "file"}),
    }
    found = {name: forks.run(lab.root, *command(lab, name, **changed)) for name, (_, changed) in expected.items()}
    assert found == {name: code for name, (code, _) in expected.items()}, lab.output()
    assert forks.run(lab.root, *command(lab, "done")) == 2
    assert forks.run(lab.root, *command(lab, "bad", steps=0)) == 2
    assert forks.run(lab.root, *command(lab, "../bad")) == 2
    assert forks.run(lab.root, "train", "actv1", "--no-such-flag") == 2
    assert forks.run(lab.root, "train", "actv1", "--resume", "--brain-name", "nobody") == 2
    assert forks.run(lab.root, "train", "actv1", "--resume", "--brain-name", "done", "--lr", "1") == 2
    assert "Traceback" not in (lab.root / "log").read_text()


LIMITED = """
import resource, sys
import lab.cli.app, hrm_engine.training, torch._dynamo
size = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (size + int(sys.argv[1]), size + int(sys.argv[1])))
sys.exit(lab.cli.app.main(sys.argv[2:]))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="address space is limited through Linux's interface")
def test_memory_that_really_runs_out(lab: Lab) -> None:
    """Rows whose logits alone are larger than what the process may have: halved down to one, then exit code 4."""
    settings = {"max_seq_len": 65_536, "batch_size": 4, "eval_batches": 0, "steps": 1, "amp": False}
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(200 << 20), *command(lab, "run", **settings)],
        cwd=REPOSITORY,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
    )
    assert done.returncode == 4, done.stderr[-2000:]
    assert "memory ran out with a micro-batch of one row" in done.stderr.replace("\n", " ")
    halved = [row["micro_batch_size"] for row in rows(lab.run_dir("run")) if row["event"] == "oom"]
    assert halved == [2, 1]
    assert json.loads((lab.run_dir("run") / "status.json").read_text())["state"] == "failed"


def test_python_m_lab_is_the_same_trainer(lab: Lab, forks: Forks) -> None:
    """One run as a user starts it, interrupted by Ctrl-C; it ends like the ones of the forked processes."""
    assert forks.run(lab.root, *command(lab, "straight")) == 0
    settings = command(lab, "run", steps=6)
    process = subprocess.Popen(
        [sys.executable, "-m", "lab", *settings],
        cwd=REPOSITORY,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    wait_for(lab.run_dir("run"), "eval", 1)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 130, output
    assert forks.run(lab.root, "train", "actv1", "--resume", "--brain-name", "run") == 0
    assert_same_end(lab.run_dir("straight"), lab.run_dir("run"))


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_an_estimate_that_is_ended_leaves_nothing(lab: Lab, forks: Forks, number: int, code: int) -> None:
    before = sorted(lab.root.rglob("*"))
    child = forks.start(lab.root, "estimate", "actv1", "--limit-s", "100", *flags(lab.settings(steps=STEPS)))
    deadline = time.monotonic() + TIMEOUT_S
    while not list(lab.root.rglob(".tmp-*")) and time.monotonic() < deadline:
        time.sleep(0.05)
    child.send(number)
    assert child.wait() == code, lab.output()
    assert [path for path in sorted(lab.root.rglob("*")) if path.name != "log"] == before
