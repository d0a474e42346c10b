from __future__ import annotations

import json
import math
import re
import threading
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hrm_engine.errors import StorageError
from hrm_engine.store.metric_table import ENVELOPE, EVENTS, METRICS, docs_table
from hrm_engine.store.metrics import MetricsWriter
from tests.store.conftest import Spawn


def rows_in(path: Path) -> list[dict[str, Any]]:
    content = path.read_bytes()
    assert content == b"" or content.endswith(b"\n")
    return [json.loads(line) for line in content.splitlines()]


def test_rows_are_what_the_contract_says(tmp_path: Path) -> None:
    with MetricsWriter(tmp_path / "run" / "metrics.jsonl", "r1") as writer:
        writer.write("train", 5, loss=2.5, tokens=2048)
        writer.write("sample", 5, prompt="a\nb", text='ü "😀"')
    first, second = rows_in(tmp_path / "run" / "metrics.jsonl")
    assert list(first) == ["ts", "run_id", "event", "step", "loss", "tokens"]
    assert (first["run_id"], first["event"], first["step"], first["loss"]) == ("r1", "train", 5, 2.5)
    assert datetime.fromisoformat(first["ts"]).utcoffset() == timedelta(0)
    assert (second["prompt"], second["text"]) == ("a\nb", 'ü "😀"')


def test_numbers_that_are_not_finite_become_null_and_are_named(tmp_path: Path) -> None:
    with MetricsWriter(tmp_path / "m.jsonl", "r") as writer:
        writer.write(
            "train", 1, loss=math.nan, lr=0.1, by_segment=[1.0, math.inf], nested={"a": [-math.inf]}, word="nan"
        )
    (row,) = rows_in(tmp_path / "m.jsonl")
    assert row["loss"] is None
    assert row["by_segment"] == [1.0, None]
    assert row["nested"] == {"a": [None]}
    assert row["nonfinite"] == ["loss", "by_segment", "nested"]
    assert (row["lr"], row["word"]) == (0.1, "nan")


def test_numpy_numbers_and_paths_are_written_as_their_values(tmp_path: Path) -> None:
    with MetricsWriter(tmp_path / "m.jsonl", "r") as writer:
        writer.write(
            "eval",
            np.int64(3),
            a=np.float32(0.5),
            b=np.int32(7),
            c=np.float64("nan"),
            path=Path("x") / "y",
            ok=True,
        )
    (row,) = rows_in(tmp_path / "m.jsonl")
    assert (row["step"], row["a"], row["b"], row["c"], row["ok"]) == (3, 0.5, 7, None, True)
    assert Path(row["path"]) == Path("x/y")


def test_what_has_no_json_form_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    with MetricsWriter(tmp_path / "m.jsonl", "r", [tmp_path / "copy.jsonl"]) as writer:
        writer.write("train", 1, loss=1.0)
        with pytest.raises(TypeError, match="field grads"):
            writer.write("train", 2, loss=1.0, grads=object())
        with pytest.raises(ValueError, match="run_id"):
            writer.write("train", 2, run_id="other")
        with pytest.raises(ValueError, match="nonfinite"):
            writer.write("train", 2, nonfinite=[])
    with pytest.raises(ValueError, match="closed"):
        writer.write("train", 3, loss=1.0)
    writer.close()
    assert [row["step"] for row in rows_in(tmp_path / "m.jsonl")] == [1]
    assert [row["step"] for row in rows_in(tmp_path / "copy.jsonl")] == [1]


@settings(max_examples=60, deadline=None)
@given(cut=st.integers(min_value=0), filler=st.binary(max_size=40).filter(lambda b: b"\n" not in b))
def test_opening_repairs_any_torn_end(tmp_path_factory: pytest.TempPathFactory, cut: int, filler: bytes) -> None:
    path = tmp_path_factory.mktemp("torn") / "m.jsonl"
    with MetricsWriter(path, "r") as writer:
        for step in range(4):
            writer.write("train", step, loss=step / 3, text="ü\n😀")
    whole = path.read_bytes()
    torn = whole[: cut % (len(whole) + 1)] + filler
    path.write_bytes(torn)
    with MetricsWriter(path, "r") as writer:
        assert path.read_bytes() == torn[: torn.rfind(b"\n") + 1]
        writer.write("resume", 1)
    assert rows_in(path)[-1]["event"] == "resume"


def test_a_torn_line_longer_than_a_block_is_removed_too(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    path.write_bytes(b'{"a": 1}\n{"b": "' + b"x" * 300_000)
    MetricsWriter(path, "r").close()
    assert path.read_bytes() == b'{"a": 1}\n'
    path.write_bytes(b"x" * 300_000)
    MetricsWriter(path, "r").close()
    assert path.read_bytes() == b""


def test_threads_write_whole_lines(tmp_path: Path) -> None:
    with MetricsWriter(tmp_path / "m.jsonl", "r", [tmp_path / "copy.jsonl"]) as writer:

        def work(number: int) -> None:
            for step in range(50):
                writer.write("train", step, thread=number, fill="x" * 500)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    for name in ("m.jsonl", "copy.jsonl"):
        rows = rows_in(tmp_path / name)
        for number in range(4):
            assert [row["step"] for row in rows if row["thread"] == number] == list(range(50))


APPENDS = """
import sys
from pathlib import Path
from hrm_engine.store.metrics import MetricsWriter
folder, name = Path(sys.argv[1]), sys.argv[2]
with MetricsWriter(folder / name / "metrics.jsonl", name, [folder / "all.jsonl"]) as writer:
    print("ready", flush=True)
    input()
    for step in range(100):
        writer.write("train", step, fill=name * 2000)
"""


def test_processes_share_a_copy_without_losing_or_mixing_rows(tmp_path: Path, spawn: Spawn) -> None:
    processes = [spawn(APPENDS, tmp_path, name) for name in "abc"]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    for process in processes:
        _, errors = process.communicate()
        assert process.returncode == 0, errors
    rows = rows_in(tmp_path / "all.jsonl")
    for name in "abc":
        own = [row for row in rows if row["run_id"] == name]
        assert [row["step"] for row in own] == list(range(100))
        assert own == rows_in(tmp_path / name / "metrics.jsonl")


WRITES_FOR_EVER = """
import sys
from pathlib import Path
from hrm_engine.store.metrics import MetricsWriter
writer = MetricsWriter(Path(sys.argv[1]), "r", [Path(sys.argv[2])])
step = 0
while True:
    step += 1
    writer.write("train", step, fill="x" * 200_000)
    print(step, flush=True)
"""


def test_a_killed_writer_leaves_whole_rows_and_its_copy_usable(tmp_path: Path, spawn: Spawn) -> None:
    path, copy = tmp_path / "m.jsonl", tmp_path / "all.jsonl"
    process = spawn(WRITES_FOR_EVER, path, copy)
    assert process.stdout is not None
    for _ in range(5):
        last = int(process.stdout.readline())
    process.kill()
    process.wait()
    with MetricsWriter(path, "r", [copy]) as writer:
        writer.write("resume", last)
    for file in (path, copy):
        rows = rows_in(file)
        assert rows[-1]["event"] == "resume"
        assert [row["step"] for row in rows[:-1]] == list(range(1, len(rows)))
        assert len(rows) - 1 >= last


def test_the_torn_end_of_a_copy_is_removed_only_if_it_is_ours(tmp_path: Path) -> None:
    ours, foreign = tmp_path / "ours.log", tmp_path / "notes.txt"
    ours.write_bytes(b'{"ts":"2026","a":1}\n{"ts":"20')
    foreign.write_bytes(b"dear diary\nno newline at the end")
    with MetricsWriter(tmp_path / "m.jsonl", "r", [ours, foreign]) as writer:
        assert foreign.read_bytes() == b"dear diary\nno newline at the end"
        writer.write("train", 1)
    assert [row.get("step") for row in rows_in(ours)] == [None, 1]
    assert foreign.read_bytes().startswith(b'dear diary\nno newline at the end\n{"ts":')


def test_a_copy_that_is_the_file_itself_gets_no_second_row(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    copy = tmp_path / "copy.jsonl"
    with MetricsWriter(path, "r", [tmp_path / "sub" / ".." / "m.jsonl", copy, copy]) as writer:
        writer.write("train", 1)
    assert len(rows_in(path)) == 1
    assert len(rows_in(copy)) == 1


def test_a_copy_that_was_moved_away_is_begun_anew(tmp_path: Path) -> None:
    copy = tmp_path / "copy.jsonl"
    with MetricsWriter(tmp_path / "m.jsonl", "r", [copy]) as writer:
        writer.write("train", 1)
        copy.rename(tmp_path / "copy.1.jsonl")
        writer.write("train", 2)
    assert [row["step"] for row in rows_in(tmp_path / "copy.1.jsonl")] == [1]
    assert [row["step"] for row in rows_in(copy)] == [2]


def test_targets_that_cannot_be_written_are_found_on_opening(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(StorageError, match="file"):
        MetricsWriter(tmp_path / "file" / "m.jsonl", "r")
    with pytest.raises(StorageError, match="file"):
        MetricsWriter(tmp_path / "m.jsonl", "r", [tmp_path / "file" / "copy.jsonl"])
    with pytest.raises(StorageError):
        MetricsWriter(tmp_path, "r")


def test_the_table_covers_the_events_and_fields_of_the_contract() -> None:
    events = (
        "start train eval sample system expert_usage lr_adjustment checkpoint resume oom nan diverged spike stop final"
    )
    assert list(EVENTS) == events.split()
    fields = {
        "train": "loss ce halt_loss lr grad_norm tokens rows tokens_per_s token_segments_per_s step_time_s "
        "act_steps_mean effective_batch_size dataset_position memory_rss_bytes",
        "eval": "loss perplexity token_accuracy loss_by_segment token_accuracy_by_segment num_tokens unigram_loss",
        "system": "cpu_percent memory_rss_bytes memory_percent disk_free_bytes gpu_percent gpu_memory_bytes",
        "sample": "prompt text",
        "checkpoint": "path bytes save_time_s",
    }
    for event, names in fields.items():
        assert all(event in METRICS[name].events for name in names.split())
    assert list(ENVELOPE) == ["ts", "run_id", "event", "step", "nonfinite"]


def test_every_entry_of_the_table_is_sound_and_documented() -> None:
    table = docs_table()
    for name, metric in METRICS.items():
        assert re.fullmatch(r"[a-z][a-z0-9_]*", name)
        assert metric.meaning
        assert metric.events
        assert set(metric.events) <= set(EVENTS)
        assert table.count(f"\n| `{name}` | ") == 1 + (name in EVENTS)
        if name.endswith("_s"):
            assert metric.unit.endswith("s")
        if name.endswith("_bytes"):
            assert metric.unit == "bytes"
    rows = [line for line in table.splitlines() if line]
    assert {line.count("|") for line in rows} == {3, 5}
