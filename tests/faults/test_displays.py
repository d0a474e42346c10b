"""A training outlives whatever shows it, and no command fails for a character that stdout has not."""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from hrm_engine.store.status import read_status
from hrm_engine.training import train
from lab.cli.app import main
from tests.tiny_runs import Forks, Lab, assert_same_end, flags, rows


def command(lab: Lab, name: str, **changed: Any) -> list[str]:
    return ["train", "actv1", *flags(lab.settings(brain_name=name, **changed))]


def printed(encoding: str, monkeypatch: pytest.MonkeyPatch, *words: str) -> tuple[int, str]:
    """Exit code and output of a command with a stdout of that encoding."""
    content = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(content, encoding=encoding))
    return main(words), content.getvalue().decode(encoding)


def test_the_reader_of_a_pipe_leaves(lab: Lab, forks: Forks) -> None:
    lab.train("straight")
    os.mkfifo(lab.root / "pipe")
    child = forks.start(lab.root, *command(lab, "run"), log="pipe")
    with (lab.root / "pipe").open("rb") as reader:
        assert reader.read(1)
    assert child.wait() == 0
    assert read_status(lab.run_dir("run")).state == "finished"
    assert_same_end(lab.run_dir("straight"), lab.run_dir("run"))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no device that is always full")
def test_output_goes_to_a_full_disk(lab: Lab, forks: Forks) -> None:
    assert forks.run(lab.root, *command(lab, "run"), log="/dev/full") == 0
    assert read_status(lab.run_dir("run")).state == "finished"
    assert forks.run(lab.root, "bundle", "list", log="/dev/full") == 5


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_stdout_has_few_characters(lab: Lab, monkeypatch: pytest.MonkeyPatch, encoding: str) -> None:
    lab.text.write_text(lab.text.read_text().replace("cat", "猫"))
    code, text = printed(encoding, monkeypatch, *command(lab, "run"))
    assert code == 0
    assert "finished at step 6" in text
    prompt = "the 猫"
    words = ("generate", "--bundle", "run", "--max-new-tokens", "2", "--prompt", prompt)
    code, text = printed(encoding, monkeypatch, *words, "--json")
    assert code == 0
    assert json.loads(text)["prompt"] == prompt
    code, text = printed(encoding, monkeypatch, *words)
    assert code == 0
    assert "the \\u732b" in text


def test_stdout_was_closed(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    assert main(command(lab, "run")) == 0
    sys.stdout.close()  # what stands in its place
    assert read_status(lab.run_dir("run")).state == "finished"


def test_an_observer_that_fails_is_left_out(lab: Lab) -> None:
    seen: list[object] = []

    def observe(row: Mapping[str, Any]) -> None:
        seen.append(row["event"])
        raise ValueError("no such\nwidget")

    lab.trained("straight")
    result = train(lab.config(brain_name="run"), workspace=lab.workspace, observer=observe)
    assert (result.state, len(seen)) == ("finished", 1)
    log = (result.run_dir / "run.log").read_text(encoding="utf8")
    assert "WARNING nothing shows this training from here on: ValueError: no such widget" in log
    assert len([row for row in rows(result.run_dir) if row["event"] == "train"]) == 6
    assert_same_end(lab.run_dir("straight"), result.run_dir)
