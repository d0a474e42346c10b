"""What the trainer makes of text that is not clean: refused, or counted and told."""

from __future__ import annotations

import json

import pytest

from hrm_engine.errors import DataError
from tests.tiny_runs import Lab, row_of, text


def write_records(lab: Lab) -> str:
    """Forty good records under another name than ``text``, one torn line, one without the field."""
    lines = [json.dumps({"body": document}) for document in text().strip().split("\n\n")]
    lines[7:7] = ['{"body": "torn', '{"other": "no body"}']
    (lab.root / "training_data" / "records.jsonl").write_text("\n".join(lines) + "\n")
    return "training_data/records.jsonl"


def test_a_bad_record_is_refused_and_the_flag_named(lab: Lab) -> None:
    with pytest.raises(DataError, match=r"records\.jsonl.*line 8.*--skip-bad-records"):
        lab.train("run", dataset_file=write_records(lab), text_field="body")
    assert not lab.run_dir("run").exists()


def test_bad_records_are_skipped_when_asked_and_the_count_is_kept(lab: Lab) -> None:
    result = lab.train("run", dataset_file=write_records(lab), text_field="body", skip_bad_records=True)
    assert any("2 bad records were skipped" in message for message in row_of(result.run_dir, "start")["messages"])
    metadata = json.loads((result.run_dir / "metadata.json").read_text())
    assert metadata["dataset_history"][0]["skipped_records"] == 2
    assert metadata["dataset_history"][0]["replaced_characters"] == 0


def test_replaced_characters_are_counted(lab: Lab) -> None:
    lab.text.write_bytes(lab.text.read_bytes() + b"\n\nnot \xff utf8 \xfe at all\n")
    result = lab.trained("run")
    metadata = json.loads((result.run_dir / "metadata.json").read_text())
    assert metadata["dataset_history"][0]["replaced_characters"] == 2
    assert any(
        "2 characters" in message and "cannot be read and were replaced" in message
        for message in row_of(result.run_dir, "start")["messages"]
    )


def test_a_gradient_that_misses_the_embeddings_is_told(lab: Lab) -> None:
    short = lab.train("short", h_cycles=2, grad_calls=2)
    assert any("no gradient reaches the token embeddings" in m for m in row_of(short.run_dir, "start")["messages"])
    default = lab.train("default-calls", h_cycles=2)
    assert not any("embeddings: they stay" in m for m in row_of(default.run_dir, "start")["messages"])
