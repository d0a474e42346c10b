from __future__ import annotations

import math
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from hrm_engine.errors import ConfigError
from hrm_engine.store.metric_table import ENVELOPE
from hrm_engine.store.metrics import MetricsWriter
from hrm_engine.store.reader import MetricsReader
from tests.store.conftest import Spawn
from tests.store.rows import line, points, read, steps


def test_only_what_is_new_is_read(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    reader = MetricsReader(path)
    with MetricsWriter(path, "r") as writer:
        for step in range(3):
            writer.write("train", step, loss=step / 2)
        assert reader.refresh().new_rows == 3
        assert reader.refresh().new_rows == 0
        writer.write("train", 3, loss=9.0)
        writer.write("eval", 3, loss_by_segment=[3.0, 2.0])
        result = reader.refresh()
    assert (result.new_rows, result.skipped_lines, result.replaced, result.missing) == (2, 0, False, False)
    assert points(reader.series("loss")) == [(0, 0.0), (1, 0.5), (2, 1.0), (3, 9.0)]
    assert reader.events == ["train", "eval"]
    assert reader.rows("eval")["loss_by_segment"].tolist() == [[3.0, 2.0]]


def test_a_field_that_changes_its_type_loses_no_row(tmp_path: Path) -> None:
    values: list[Any] = [1.5, "2.5", "n/a", None, True, [1, 2], {"a": 1}, math.nan, math.inf, 10**30, -7]
    content = b"".join(line(step=step, loss=value) for step, value in enumerate(values)) + line(step=11)
    reader = read(tmp_path / "m.jsonl", content)
    assert steps(reader) == list(range(12))
    assert points(reader.series("loss")) == [(0, 1.5), (1, 2.5), (9, 1e30), (10, -7.0)]
    shown = reader.rows("train")["loss"].tolist()
    assert shown[:7] == [1.5, "2.5", "n/a", None, True, [1, 2], {"a": 1}]


@pytest.mark.parametrize("step", ["3", 3.0, 3])
def test_a_step_is_read_in_any_form(tmp_path: Path, step: object) -> None:
    assert points(read(tmp_path / "m.jsonl", line(step=step, loss=1.0)).series("loss")) == [(3, 1.0)]


def test_rows_without_event_step_or_run_are_kept(tmp_path: Path) -> None:
    content = b'{"loss": 1}\n{"event": "train", "loss": 2}\n{"event": null}\n{"event": 5, "step": "x"}\n{}\n'
    reader = read(tmp_path / "m.jsonl", content)
    assert reader.events == ["unknown", "train", "5"]
    assert len(reader.rows("unknown")) == 3
    assert reader.rows("train")["loss"].tolist() == [2]
    assert len(reader.series("loss")) == 0
    assert reader.skipped_lines == 0


def test_duplicate_and_backward_steps(tmp_path: Path) -> None:
    content = b"".join(line(step=s, loss=v) for s, v in [(1, 1.0), (2, 5.0), (3, 3.0), (2, 2.0), (2, 4.0), (4, 0.0)])
    frame = read(tmp_path / "m.jsonl", content).series("loss")
    assert frame[["x", "min", "max", "last", "count"]].to_numpy().tolist() == [
        [1, 1, 1, 1, 1],
        [2, 2, 5, 4, 3],
        [3, 3, 3, 3, 1],
        [4, 0, 0, 0, 1],
    ]


def test_what_came_before_a_resume_with_a_larger_step_is_ignored(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    first = b"".join(line(step=step, loss=1.0) for step in range(1, 8)) + line("eval", 6) + line("checkpoint", 4)
    other = line(step=9, run_id="other", loss=5.0)
    path.write_bytes(first + other)
    reader = MetricsReader(path)
    reader.refresh()
    assert len(steps(reader)) == 8
    with path.open("ab") as file:
        file.write(line("resume", 4))
    assert reader.refresh().new_rows == 1
    assert points(reader.series("loss")) == [(1, 1), (2, 1), (3, 1), (4, 1), (9, 5)]
    assert (steps(reader, "eval"), steps(reader, "checkpoint")) == ([], [4])
    with path.open("ab") as file:
        file.write(line(step=5, loss=2.0) + line(step=6, loss=2.0) + line("resume", 5) + line(step=6, loss=3.0))
    reader.refresh()
    expected = [(1, 1), (2, 1), (3, 1), (4, 1), (5, 2), (6, 3), (9, 5)]
    assert points(reader.series("loss")) == expected
    # Read in one go it is the same.
    again = MetricsReader(path)
    again.refresh()
    assert points(again.series("loss")) == expected


def test_a_resume_without_a_step_ignores_nothing(tmp_path: Path) -> None:
    reader = read(tmp_path / "m.jsonl", line(step=3, loss=1.0) + b'{"event":"resume","run_id":"r","step":null}\n')
    assert points(reader.series("loss")) == [(3, 1.0)]


def test_buckets_hold_every_point_once_and_are_never_more_than_asked(tmp_path: Path) -> None:
    values = [math.sin(step) * step for step in range(1000)]
    reader = read(tmp_path / "m.jsonl", b"".join(line(step=3 * s, loss=v) for s, v in enumerate(values)))
    for max_points in (1, 2, 7, 333, 999, 1000, 5000):
        frame = reader.series("loss", max_points=max_points)
        assert len(frame) == min(max_points, 1000)
        assert frame["count"].sum() == 1000
        begin = 0
        for row in frame.itertuples():
            bucket = values[begin : begin + row.count]
            assert (row.min, row.max, row.last) == (min(bucket), max(bucket), bucket[-1])
            begin += row.count
            assert row.x == 3 * (begin - 1)
    with pytest.raises(ConfigError, match="max_points"):
        reader.series("loss", max_points=0)


def test_one_absurd_step_does_not_squeeze_the_curve(tmp_path: Path) -> None:
    content = b"".join(line(step=step, loss=1.0) for step in range(1000)) + line(step=1e15, loss=1.0)
    assert len(read(tmp_path / "m.jsonl", content).series("loss", max_points=100)) == 100


def test_several_curves_over_other_axes(tmp_path: Path) -> None:
    content = b"".join(
        line(step=s, loss=float(s), lr=s / 10, tokens=s * 2048, ts=f"2026-01-01T00:0{s}:00.250+00:00") for s in range(3)
    )
    content += line(step=3, loss=3.0, ts="not a time")
    reader = read(tmp_path / "m.jsonl", content)
    frame = reader.series(["lr", "loss", "none", "lr"], x="tokens")
    assert frame["name"].tolist() == ["lr"] * 3 + ["loss"] * 3
    assert frame["x"].tolist() == [0, 2048, 4096] * 2
    timed = reader.series("loss", x="ts")
    assert timed["x"].tolist() == [pd.Timestamp(f"2026-01-01 00:0{m}:00.250", tz="UTC") for m in range(3)]
    empty = reader.series([], x="ts")
    assert (len(empty), list(empty.columns)) == (0, ["name", "x", "min", "max", "last", "count"])
    assert reader.names() == ["loss", "lr", "tokens"]


@settings(max_examples=30, deadline=None)
@given(name=st.text(min_size=1, max_size=20))
@example(name="a'b")
@example(name='a"b')
@example(name="$x")
@example(name="*")
@example(name="a.b[0]")
@example(name="~1/~0")
@example(name="<script>alert(1)</script>")
@example(name="'; DROP TABLE lines; --")
@example(name="😀")
@example(name="0")
def test_names_are_data_only(tmp_path_factory: pytest.TempPathFactory, name: str) -> None:
    assume(name not in {*ENVELOPE, "self"})
    path = tmp_path_factory.mktemp("names") / "m.jsonl"
    with MetricsWriter(path, name) as writer:
        writer.write(name, 4, **{name: 1.5})
    reader = MetricsReader(path)
    assert reader.refresh().new_rows == 1
    assert reader.events == [name]
    assert reader.names(name) == [name]
    assert points(reader.series([name], event=name)) == [(4, 1.5)]
    assert points(reader.series(["step"], event=name, x=name)) == [(1.5, 4)]
    assert reader.rows(name)[name].tolist() == [1.5]
    assert reader.query("SELECT count(*) FROM metrics WHERE run_id = ?", [name]).iloc[0, 0] == 1


def test_new_fields_are_found_as_they_come_and_forgotten_with_their_rows(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    reader = read(path, line(step=1, loss=None, word="x", flag=True, many=[1]))
    assert reader.names() == []
    with path.open("ab") as file:
        file.write(line(step=2, loss=1) + line(step=3, late=1.5))
    reader.refresh()
    assert reader.names() == ["late", "loss"]
    with path.open("ab") as file:
        file.write(line("resume", 2))
    reader.refresh()
    assert reader.names() == ["loss"]
    path.write_bytes(line(step=1, other=1.0))
    reader.refresh()
    assert reader.names() == ["other"]


def test_the_newest_rows_oldest_first(tmp_path: Path) -> None:
    content = b"".join(line("sample", step, text=f"t{step}") for step in range(10)) + line("sample", 10, extra=1)
    reader = read(tmp_path / "m.jsonl", content)
    frame = reader.rows("sample", n=3)
    assert frame["step"].tolist() == [8, 9, 10]
    assert frame["text"].tolist()[:2] == ["t8", "t9"]
    assert frame["extra"].tolist()[2] == 1
    assert len(reader.rows("sample", n=0)) == 0
    assert len(reader.rows("sample")) == 11


@pytest.mark.parametrize(
    "sql",
    [
        "DROP TABLE lines",
        "DELETE FROM lines",
        "SELECT 1; SELECT 2",
        "SELECT 1; DROP TABLE lines",
        "COPY lines TO 'stolen.csv'",
        "ATTACH 'other.db'",
        "INSTALL httpfs",
        "SET threads = 1",
        "PRAGMA version",
        "CALL pragma_version()",
        "SELECT * FROM read_text('secret.txt')",
        "SELECT * FROM read_csv('secret.txt')",
        "SELECT * FROM 'secret.txt'",
        "SELECT * FROM glob('*')",
        "SELECT * FROM frame",
        "SELECT getenv('HOME')",
        "nonsense",
        "",
    ],
)
def test_a_query_is_one_select_that_reaches_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sql: str) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "secret.txt").write_text("hidden")
    frame = pd.DataFrame({"a": [1]})
    reader = read(tmp_path / "m.jsonl", line(step=1, loss=1.0))
    with pytest.raises(ConfigError):
        reader.query(sql)
    assert len(frame) == 1
    assert steps(reader) == [1]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.jsonl", "secret.txt"]


def test_a_query_has_an_end(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    reader = read(path, b"".join(line(step=step) for step in range(50)))
    with pytest.raises(ConfigError, match="more than 49 rows: summarise them, or end it with a LIMIT"):
        reader.query("SELECT step FROM metrics", max_rows=49)
    assert reader.query("SELECT step FROM metrics ORDER BY seq", max_rows=50)["step"].tolist() == list(range(50))
    assert reader.query("SELECT step FROM metrics WHERE step < 0").empty
    endless = "SELECT count(*) FROM range(10000000) a, range(10000000) b WHERE a.range * b.range % 7 = 3"
    refused: list[str] = []

    def ask() -> None:
        with pytest.raises(ConfigError) as raised:
            reader.query(endless, timeout_s=2)
        refused.append(str(raised.value))

    waiting = threading.Thread(target=ask)
    waiting.start()
    with path.open("ab") as file:
        file.write(line(step=50))
    assert reader.refresh().new_rows == 1
    assert refused == []  # the query is still at work
    waiting.join()
    assert refused == ["the query took more than 2 s and was ended"]
    assert reader.query("SELECT count(*) AS n FROM metrics")["n"].tolist() == [51]


def test_threads_may_share_a_reader(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    reader = MetricsReader(path)
    failures: list[BaseException] = []
    total = []

    def look() -> None:
        try:
            for _ in range(20):
                total.append(reader.refresh().new_rows)
                reader.series("loss")
                reader.rows("train")
        except BaseException as problem:
            failures.append(problem)
            raise

    with MetricsWriter(path, "r") as writer:
        threads = [threading.Thread(target=look) for _ in range(3)]
        for thread in threads:
            thread.start()
        for step in range(200):
            writer.write("train", step, loss=1.0)
        for thread in threads:
            thread.join()
    total.append(reader.refresh().new_rows)
    assert failures == []
    assert sum(total) == 200
    assert steps(reader) == list(range(200))


WRITES = """
import sys
from pathlib import Path
from hrm_engine.store.metrics import MetricsWriter
with MetricsWriter(Path(sys.argv[1]), "r") as writer:
    for step in range(500):
        writer.write("train", step, loss=step / 2, text="x" * 2000)
"""


def test_following_a_process_that_writes(tmp_path: Path, spawn: Spawn) -> None:
    reader = MetricsReader(tmp_path / "m.jsonl")
    process = spawn(WRITES, tmp_path / "m.jsonl")
    total = 0
    while process.poll() is None:
        total += reader.refresh().new_rows
    total += reader.refresh().new_rows
    assert process.returncode == 0
    assert (total, reader.skipped_lines) == (500, 0)
    assert points(reader.series("loss")) == [(step, step / 2) for step in range(500)]


def test_the_store_imports_neither_torch_nor_the_database(tmp_path: Path) -> None:
    code = (
        "import sys, hrm_engine.store.paths, hrm_engine.store.files, hrm_engine.store.manifest, "
        "hrm_engine.store.locks, hrm_engine.store.status, hrm_engine.store.metrics, hrm_engine.store.reader\n"
        "print(sorted({'torch', 'duckdb', 'pandas', 'numpy', 'psutil', 'transformers'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
