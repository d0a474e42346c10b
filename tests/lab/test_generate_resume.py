"""``lab generate --prompt-file`` that was interrupted, and goes on."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hrm_engine.bundles.bundle import Bundle
from hrm_engine.inference import Generation, generate_batch
from hrm_engine.store.files import read_json
from hrm_engine.store.manifest import write_sealed
from tests.lab.generating import Capture, answers, brain, trained, written

__all__ = ["brain", "trained"]

PROMPTS = ("the", "a", "a longer one", "dog", "under a tree")
FILE = ("--prompt-file", "p.jsonl", "--out", "o.jsonl", "--batch-size", 2, "--max-new-tokens", 6, "--seed", 4)


@pytest.fixture
def interrupted(brain: Bundle, workspace: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What is left of a run that ended in its second batch, at the fourth of five texts."""
    (workspace / "p.jsonl").write_text("".join(json.dumps({"prompt": text, "id": text}) + "\n" for text in PROMPTS))

    def stopped(*given: Any, **how: Any) -> Iterator[Generation]:
        for number, text in enumerate(generate_batch(*given, **how)):
            if number == 3:
                raise KeyboardInterrupt
            yield text

    with monkeypatch.context() as patch:
        patch.setattr("hrm_engine.inference.generate_batch", stopped)
        written(*FILE, code=130)
    assert "3 of 5 texts are in" in capsys.readouterr().err
    return workspace / "o.jsonl.part"


def test_what_was_written_before_an_interruption_is_kept(interrupted: Path, workspace: Path, capsys: Capture) -> None:
    assert [line["prompt"] for line in answers(interrupted)] == list(PROMPTS[:3])
    assert not (workspace / "o.jsonl").exists()
    written(*FILE, code=2)
    assert "go on with it by --resume" in capsys.readouterr().err


@pytest.mark.parametrize("torn", ["", '{"index": 3, "prom'])
def test_a_resumed_file_is_that_of_one_run(interrupted: Path, workspace: Path, capsys: Capture, torn: str) -> None:
    with interrupted.open("a") as file:
        file.write(torn)
    written(*FILE, "--resume")
    assert "2 texts beside 3 of an earlier call" in capsys.readouterr().err
    resumed = (workspace / "o.jsonl").read_bytes()
    assert not list(workspace.glob("o.jsonl.*"))
    written(*FILE, "--overwrite")
    assert (workspace / "o.jsonl").read_bytes() == resumed


def test_a_part_that_is_complete_only_gets_its_name(interrupted: Path, workspace: Path) -> None:
    (workspace / "p.jsonl").write_text("".join(json.dumps({"prompt": text, "id": text}) + "\n" for text in PROMPTS[:3]))
    lines = interrupted.read_bytes()
    written(*FILE, "--resume")
    assert (workspace / "o.jsonl").read_bytes() == lines


def test_what_cannot_be_resumed(interrupted: Path, brain: Bundle, workspace: Path, capsys: Capture) -> None:
    before, prompts = interrupted.read_bytes(), (workspace / "p.jsonl").read_text()
    record = interrupted.with_name("o.jsonl.part.json")
    settings = record.read_text()

    def refused(*words: object) -> str:
        written(*FILE, "--resume", *words, code=2)
        assert interrupted.read_bytes() == before
        return capsys.readouterr().err

    assert "--temperature was 0.8 and is 0.5. Or --overwrite begins anew" in refused("--temperature", 0.5)
    assert "--stop was [] and is ['x']" in refused("--stop", "x")
    assert "--resume and --overwrite exclude each other" in refused("--overwrite")
    first_two = "".join(prompts.splitlines(keepends=True)[:2])
    changed = {1: prompts.replace('"id": "a"', '"id": "b"'), 2: prompts.replace("longer", "shorter")}
    for number, text in (*changed.items(), (2, first_two)):
        (workspace / "p.jsonl").write_text(text)
        assert f"line {number + 1} is not the answer to prompt {number} of this file" in refused()
    (workspace / "p.jsonl").write_text(prompts)

    other = json.loads(settings)
    other["writer"] = os.getppid()
    record.write_text(json.dumps(other))
    assert f"process {os.getppid()} is writing" in refused()
    written(*FILE, "--overwrite", code=2)
    assert f"process {os.getppid()} is writing" in capsys.readouterr().err
    assert interrupted.read_bytes() == before
    for text in ("{}", "[]", "{"):
        record.write_text(text)
        assert "o.jsonl.part.json" in refused()
    record.unlink()
    assert "does not say what the lines were written with" in refused()
    record.write_text(settings)
    metadata = read_json(brain.path / "metadata.json")
    write_sealed(brain.path / "metadata.json", {**metadata, "step": 99})
    assert "the brain is not the one that wrote the lines" in refused()


def test_nothing_to_resume(brain: Bundle, workspace: Path, capsys: Capture) -> None:
    (workspace / "p.jsonl").write_text('{"prompt": "a"}\n')
    written(*FILE, "--resume", code=2)
    assert "o.jsonl.part; start without --resume" in capsys.readouterr().err
    written(*FILE)
    written(*FILE, "--resume", code=2)
    assert "o.jsonl is whole already" in capsys.readouterr().err
