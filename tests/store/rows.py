"""Rows of metrics files and what a reader makes of them, for tests."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd

from hrm_engine.store.reader import MetricsReader


def line(event: str = "train", step: object = 0, run_id: str = "r", **fields: object) -> bytes:
    return json.dumps({"event": event, "step": step, "run_id": run_id, **fields}).encode() + b"\n"


def read(path: Path, content: bytes) -> MetricsReader:
    path.write_bytes(content)
    reader = MetricsReader(path)
    reader.refresh()
    return reader


def steps(reader: MetricsReader, event: str = "train") -> list[float]:
    return [row[0] for row in reader.query("SELECT step FROM metrics WHERE event = ? ORDER BY seq", [event]).to_numpy()]


def points(frame: pd.DataFrame) -> list[tuple[float, float]]:
    return list(zip(frame["x"], frame["last"], strict=True))
