"""The table of runs: what stands in it, how it follows growing files, and what it makes of damaged ones."""

from __future__ import annotations

import json
import os
import random
from datetime import timedelta
from pathlib import Path

import pytest

from dashboard.queries.bundles import brains, solvers
from dashboard.queries.folder import parameters
from dashboard.queries.metrics import RunMetrics
from dashboard.queries.overview import overview
from dashboard.queries.runs import RunIndex, RunRow
from dashboard.queries.scan import MetricsScan
from dashboard.server import workspace_of
from hrm_engine.bundles.listing import list_bundles, verify_bundle
from hrm_engine.store.paths import Workspace
from hrm_engine.store.runs import pick_run, run_id
from hrm_engine.store.status import RunStatus, write_status
from tests.dashboard.run_folders import append_events, eval_fields, train_fields, write_checkpoint, write_run


def rows_of(lab: Workspace) -> dict[str, RunRow]:
    return {row.name: row for row in RunIndex(lab).refresh().rows}


def an_eval(step: int, loss: float) -> tuple[str, int, dict[str, object]]:
    return "eval", step, {**eval_fields(step), "loss": loss}


def scanned(path: Path) -> MetricsScan:
    scan = MetricsScan(path)
    scan.look()
    scan.advance()
    return scan


def test_states_are_live(lab: Workspace) -> None:
    write_run(lab.root, "busy", last=20, state="running")
    write_run(lab.root, "killed", last=20, state="running", pid=2**22 - 3)
    write_run(lab.root, "silent", last=20, state=None)
    write_run(lab.root, "done", last=20)
    states = {name: row.state for name, row in rows_of(lab).items()}
    assert states == {"busy": "running", "killed": "dead", "silent": "unknown", "done": "finished"}


def test_running_runs_come_first_then_the_latest(lab: Workspace) -> None:
    write_run(lab.root, "b-old", last=20, ago=timedelta(days=2))
    write_run(lab.root, "z-busy", last=20, state="running")
    write_run(lab.root, "a-new", last=20, ago=timedelta(minutes=5))
    assert [row.name for row in RunIndex(lab).refresh().rows] == ["z-busy", "a-new", "b-old"]


def test_best_evaluation_and_last_training_row(lab: Workspace) -> None:
    run = write_run(lab.root, "run", last=0)
    noise = random.Random(0)
    append_events(run / "metrics.jsonl", [an_eval(0, 1.0), an_eval(10, 3.0), an_eval(20, 2.5), an_eval(30, 2.75)])
    append_events(run / "metrics.jsonl", [("train", 31, {**train_fields(31, noise), "loss": 1.5, "tokens_per_s": 77})])
    row = rows_of(lab)["run"]
    assert (row.best_eval_loss, row.best_step, row.eval_loss) == (2.5, 20, 2.75)  # what is not trained is no result
    assert row.train_loss == 1.5
    assert row.tokens_per_s == 77


def test_evaluations_after_the_step_of_a_resume_do_not_count(tmp_path: Path) -> None:
    metrics = tmp_path / "metrics.jsonl"
    append_events(metrics, [an_eval(10, 3.0), an_eval(20, 2.5), ("resume", 15, {}), an_eval(20, 2.9)])
    assert scanned(metrics).best_eval.get("loss") == 2.9


def test_a_growing_file_is_read_on_and_a_torn_row_waits(tmp_path: Path) -> None:
    metrics = tmp_path / "metrics.jsonl"
    append_events(metrics, [an_eval(10, 3.0)])
    scan = scanned(metrics)
    whole = json.dumps({"event": "eval", "step": 20, "loss": 2.0})
    with metrics.open("a", encoding="utf-8") as file:
        file.write(whole[:20])
    assert scan.look()
    scan.advance()
    assert scan.best_eval.get("loss") == 3.0
    with metrics.open("a", encoding="utf-8") as file:
        file.write(whole[20:] + "\n")
    assert scan.look()
    scan.advance()
    assert scan.best_eval.get("loss") == 2.0
    assert not scan.look()


@pytest.mark.parametrize("keep_inode", [True, False])
def test_a_replaced_file_is_read_from_its_start(tmp_path: Path, keep_inode: bool) -> None:
    metrics = tmp_path / "metrics.jsonl"
    append_events(metrics, [an_eval(10, 1.0), an_eval(20, 0.5)])
    scan = scanned(metrics)
    other = tmp_path / "other.jsonl"
    append_events(other, [an_eval(10, 4.0)])
    if keep_inode:
        metrics.write_bytes(other.read_bytes())
    else:
        other.replace(metrics)
    scan.look()
    scan.advance()
    assert scan.best_eval.get("loss") == 4.0
    metrics.unlink()
    scan.look()
    assert scan.best_eval == {}
    assert scan.last_train is None


def test_a_replaced_file_that_is_longer_is_read_from_its_start(tmp_path: Path) -> None:
    metrics = tmp_path / "metrics.jsonl"
    append_events(metrics, [an_eval(10, 1.0)])
    scan = scanned(metrics)
    other = tmp_path / "other.jsonl"
    append_events(other, [an_eval(step, 4.0) for step in range(1, 31)], run_id="other")
    metrics.write_bytes(other.read_bytes())
    scan.look()
    scan.advance()
    assert scan.best_eval.get("loss") == 4.0


def test_garbage_does_not_hide_rows(tmp_path: Path) -> None:
    metrics = tmp_path / "metrics.jsonl"
    append_events(metrics, [an_eval(10, 3.0)])
    rows = [
        b'\xff\xfe "eval" "train"',
        b'{"event":"eval","step":12,"loss":NaN}',
        b'{"event":"eval","step":12,"loss":"1"}',
        b'{"event":"eval","step":12,"loss":' + b"9" * 5000 + b"}",
        b'{"event":"eval","step":null,"loss":1}',
        b'["eval"]',
        b'{"event":"train","step":13,"loss":null}',
        b'{"event":"train","text":"' + b"x" * 2_000_000 + b'"}',
        b"[" * 100_000 + b'"eval"',
    ]
    with metrics.open("ab") as file:
        file.write(b"\n".join(rows) + b"\n")
    append_events(metrics, [an_eval(20, 2.0)])
    append_events(metrics, [("train", 21, {"loss": 7.0, "tokens_per_s": 5})])
    scan = scanned(metrics)
    assert scan.best_eval.get("loss") == 2.0
    assert scan.last_train is not None
    assert scan.last_train["loss"] == 7.0


def test_one_refresh_reads_only_for_so_long_and_the_next_ones_the_rest(lab: Workspace) -> None:
    for name in ("a", "b", "c"):
        write_run(lab.root, name, last=60)
    index = RunIndex(lab)
    first = index.refresh(budget_s=0.0)
    assert first.num_read == 1
    assert not first.is_complete
    assert all(row.train_loss is not None for row in first.rows)
    assert index.refresh(budget_s=0.0).num_read == 2
    last = index.refresh(budget_s=0.0)
    assert last.is_complete
    assert all(row.best_eval_loss is not None for row in last.rows)


def test_a_row_follows_the_status_file(lab: Workspace) -> None:
    run = write_run(lab.root, "run", last=20, state="running")
    index = RunIndex(lab)
    assert index.refresh().rows[0].step == 20
    write_status(run, RunStatus.of_this_process("stopped", 33, "by hand"))
    row = index.refresh().rows[0]
    assert (row.step, row.state) == (33, "stopped")


def test_runs_come_and_go(lab: Workspace) -> None:
    index = RunIndex(lab)
    assert index.refresh().rows == []
    run = write_run(lab.root, "run", last=20)
    assert len(index.refresh().rows) == 1
    run.rename(run.with_name("renamed"))
    assert [row.name for row in index.refresh().rows] == ["renamed"]


def test_damaged_files_beside_the_metrics_hide_nothing(lab: Workspace) -> None:
    run = write_run(lab.root, "run", last=20)
    for name in ("status.json", "metadata.json", "training_args.json"):
        (run / name).write_bytes(b"\xff{")
    row = rows_of(lab)["run"]
    assert row.state == "unknown"
    assert row.kind == "actv1"
    assert row.step == 20
    assert row.train_loss is not None


@pytest.mark.parametrize(
    "status",
    [
        {"step": 10**30},
        {"step": -5},
        {"step": 1e300, "pid": 10**30},
        {"heartbeat": "0001-01-01T00:00:00+23:59"},
        {"heartbeat": "9999-12-31T23:59:59-23:59"},
        {"heartbeat": 5, "host": [], "message": {"a": "\ud800"}},
        {"state": ["running"]},
    ],
    ids=str,
)
def test_odd_numbers_and_times_of_one_run_hide_no_other(lab: Workspace, status: dict[str, object]) -> None:
    write_run(lab.root, "good", last=20)
    folder = write_run(lab.root, "odd", last=20)
    content = json.loads((folder / "status.json").read_text())
    (folder / "status.json").write_text(json.dumps({**content, **status}))
    row = {"ts": "0001-01-01T00:00:00Z", "event": "train", "step": 1e300, "loss": 10**400, "tokens_per_s": True}
    (folder / "metrics.jsonl").write_text(json.dumps(row) + "\n")
    table = RunIndex(lab).refresh()
    assert {row.name for row in table.rows} == {"good", "odd"}
    assert set(table.frame()["name"]) == {"good", "odd"}
    assert table.frame().set_index("name").loc["good", "step"] == 20
    about = overview(folder, RunMetrics(folder), parameters(folder))
    assert about.step is None or 0 <= about.step < 1 << 53


def test_pipes_and_devices_in_the_place_of_files(lab: Workspace) -> None:
    folder = write_run(lab.root, "odd", last=20)
    for name in ("status.json", "metadata.json", "config.json", "metrics.jsonl", "run.log"):
        (folder / name).unlink(missing_ok=True)
        if name == "config.json":
            (folder / name).symlink_to("/dev/zero")
        else:
            os.mkfifo(folder / name)
    assert [row.name for row in RunIndex(lab).refresh().rows] == ["odd"]
    [info] = list_bundles(lab)
    assert "metadata.json is missing" in info.problems[0]
    assert verify_bundle(folder)
    assert brains([folder], lab) == solvers([folder], lab) == []


def test_checkpoints_and_archived_runs_are_no_rows(lab: Workspace) -> None:
    run = write_run(lab.root, "run", last=20)
    (write_checkpoint(run, 10) / "training_args.json").write_text("{}")
    write_run(lab.root, "old", last=20, folder="artifacts/brains/actv1/.archive")
    assert list(rows_of(lab)) == ["run"]


def test_frame_has_a_column_for_each_field(lab: Workspace) -> None:
    write_run(lab.root, "run", last=20)
    write_run(lab.root, "empty", last=20, state=None)
    frame = RunIndex(lab).refresh().frame()
    assert list(frame.columns) == list(RunRow.__dataclass_fields__)
    assert str(frame["step"].dtype) == "Int64"


@pytest.mark.skipif(os.name != "posix", reason="only POSIX file systems hold names that are not Unicode")
def test_a_name_that_is_not_unicode_can_be_shown_and_found(lab: Workspace) -> None:
    try:
        run = write_run(lab.root, os.fsdecode(b"caf\xe9"), last=20)
    except OSError:
        pytest.skip("this file system refuses names that are not Unicode")
    row = RunIndex(lab).refresh().rows[0]
    assert row.id.encode("utf-8") == b"brains/actv1/caf\\udce9"
    assert pick_run(row.id, lab.run_dirs(), lab) == run


def test_a_run_is_found_by_id_or_by_a_name_that_only_one_has(lab: Workspace) -> None:
    one = write_run(lab.root, "same", last=5)
    two = write_run(lab.root, "same", last=5, folder="artifacts/runs")
    lone = write_run(lab.root, "lone", last=5)
    runs = lab.run_dirs()
    assert pick_run(run_id(one, lab), runs, lab) == one
    assert pick_run("runs/same", runs, lab) == two
    assert pick_run("lone", runs, lab) == lone
    assert pick_run("same", runs, lab) is None
    assert pick_run("../artifacts/runs/same", runs, lab) is None


def test_root_is_taken_from_the_arguments_first(lab: Workspace, tmp_path: Path) -> None:
    assert workspace_of(["--root", str(tmp_path)]).root == tmp_path
    assert workspace_of(["--root"]).root == lab.root
    assert workspace_of([]).root == lab.root
