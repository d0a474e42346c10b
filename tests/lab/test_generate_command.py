"""``lab generate`` on a real, tiny brain: one prompt, standard input, files of prompts."""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from hrm_engine.bundles.bundle import Bundle
from hrm_engine.bundles.weights import save_tensors
from hrm_engine.inference import generate
from hrm_engine.store.files import read_json
from hrm_engine.store.manifest import file_entries, write_sealed
from hrm_engine.store.paths import Workspace
from lab.cli.app import main
from tests.bundles.hub_models import own_brain
from tests.lab.generating import Capture, answers, brain, trained, written
from tests.tiny_puzzles import PuzzleLab, make_puzzles

__all__ = ["brain", "trained"]


@pytest.fixture
def piped(monkeypatch: pytest.MonkeyPatch) -> Callable[[bytes], None]:
    """Puts bytes on standard input."""

    def put(content: bytes) -> None:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content), encoding="utf-8"))

    return put


def test_the_same_seed_writes_the_same_text(brain: Bundle, capsys: Capture) -> None:
    shown = []
    for words in (("--seed", 3), ("--seed", 3, "--stream"), ("--seed", 3, "--no-stream"), ("--seed", 4)):
        written("--prompt", "the cat", "--max-new-tokens", 12, *words)
        shown.append(capsys.readouterr().out)
    assert shown[0] == shown[1] == shown[2] != shown[3]
    assert shown[0] == "the cat" + generate(brain, "the cat", max_new_tokens=12, seed=3).text + "\n"


def test_a_prompt_from_standard_input(brain: Bundle, capsys: Capture, piped: Callable[[bytes], None]) -> None:
    expected = "the\ncat é" + generate(brain, "the\ncat é", max_new_tokens=5).text + "\n"
    for content in ("the\ncat é", "the\ncat é\n", "the\ncat é\r\n"):
        piped(content.encode())
        written("--prompt", "-", "--max-new-tokens", 5)
        assert capsys.readouterr().out == expected
    piped(b"")
    written("--prompt", "-", "--max-new-tokens", 5)
    assert capsys.readouterr().out == generate(brain, "", max_new_tokens=5).text + "\n"
    piped(b"ab\xff")
    written("--prompt", "-", code=2)
    assert "standard input: byte 3 is not UTF-8" in capsys.readouterr().err


def test_depth_and_stop_strings(brain: Bundle, capsys: Capture) -> None:
    written("--prompt", "the", "--halt-threshold", 1, "--max-new-tokens", 6)
    assert "depth: 1.00 of 3 segments a token" in capsys.readouterr().err
    written("--prompt", "the", "--max-new-tokens", 6)
    assert "depth" not in capsys.readouterr().err
    text = generate(brain, "the", max_new_tokens=20).text
    assert len(text) > 4
    written("--prompt", "the", "--stop", text[3:], "--stop", "no such text", "--json")
    found = json.loads(capsys.readouterr().out)
    assert found["finish_reason"] == "stop_string"
    assert found["text"] == text[: text.index(text[3:])]
    assert (found["mean_depth"], found["num_segments"]) == (3.0, 3)
    assert found["depths"] == [3] * found["num_tokens"]
    written("--prompt", "the", "--repetition-penalty", 5, "--temperature", 0, "--json")
    penalised = json.loads(capsys.readouterr().out)["text"]
    assert penalised == generate(brain, "the", temperature=0, repetition_penalty=5.0).text
    assert penalised != generate(brain, "the", temperature=0).text


def test_a_full_context_is_said(brain: Bundle, capsys: Capture) -> None:
    """With no token that ends the text before."""
    with torch.no_grad():
        brain.model.lm_head.weight[brain.tokenizer.eos_id] = 0
    seal_weights(brain)
    said = "the text ends because the model's context of 32 tokens is full"
    written("--prompt", "the cat", "--temperature", 0, "--max-new-tokens", 100)
    assert said in capsys.readouterr().err
    for more in (("--max-new-tokens", 3), ("--max-new-tokens", 100, "--json")):
        written("--prompt", "the cat", "--temperature", 0, *more)
        assert capsys.readouterr().err == ""


def test_halves_of_characters_in_a_prompt_are_no_crash(brain: Bundle, capsys: Capture) -> None:
    written("--prompt", "a\udcff", "--max-new-tokens", 3)
    assert capsys.readouterr().out.startswith("a\ufffd")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ((), "--prompt TEXT"),
        (("--prompt", "a", "--prompt-file", "p.txt"), "either --prompt TEXT"),
        (("--prompt", "a", "--out", "o.jsonl"), "--out goes with --prompt-file"),
        (("--prompt", "a", "--batch-size", 2), "--batch-size goes with --prompt-file"),
        (("--prompt", "a", "--overwrite"), "--overwrite goes with --prompt-file"),
        (("--prompt", "a", "--resume"), "--resume goes with --prompt-file"),
        (("--prompt-file", "p.txt", "--resume"), "--resume goes with --out"),
        (("--prompt-file", "p.txt", "--json"), "--json goes with --prompt"),
        (("--prompt-file", "p.txt", "--no-stream"), "--stream goes with --prompt"),
        (("--prompt-file", "p.txt", "--overwrite"), "--overwrite goes with --out"),
        (("--prompt-file", "p.txt", "--batch-size", 0), "--batch-size "),
        (("--prompt", "cat " * 50), "the model's context 32; shorten it"),
        (("--prompt", "a", "--halt-threshold", 1.5), "--halt-threshold "),
        (("--prompt", "a", "--repetition-penalty", 0), "--repetition-penalty "),
        (("--prompt", "a", "--stop", ""), "--stop"),
        (("--prompt", "a", "--top-p", 2), "--top-p "),
    ],
    ids=str,
)
def test_what_does_not_fit_is_refused(
    brain: Bundle, workspace: Path, capsys: Capture, words: tuple[object, ...], told: str
) -> None:
    (workspace / "p.txt").write_text("a\n")
    written(*words, code=2)
    shown = capsys.readouterr()
    assert shown.err.startswith("error: ")
    assert told in shown.err
    assert shown.out == ""


def spoil_weights(brain: Bundle) -> None:
    """One NaN in the output head, which the recorded hashes do not show."""
    with torch.no_grad():
        brain.model.lm_head.weight[3, 0] = float("nan")
    seal_weights(brain)


def seal_weights(brain: Bundle) -> None:
    """Write the weights as they are in memory now."""
    files = save_tensors(brain.path, "model", brain.model.state_dict())
    metadata = read_json(brain.path / "metadata.json")
    metadata["files"] |= file_entries(brain.path, files)
    write_sealed(brain.path / "metadata.json", metadata)


def test_weights_with_nan_write_and_measure_nothing(brain: Bundle, workspace: Path, capsys: Capture) -> None:
    spoil_weights(brain)
    (workspace / "text.txt").write_text("the cat\n")
    for words in (["generate", "--prompt", "a"], ["eval", "text", "--dataset-file", "text.txt"]):
        assert main([*words, "--bundle", "writer", "--device", "cpu"]) == 2
        told = capsys.readouterr().err
        assert told.startswith(f"error: {brain.path}: 1 of the 19200 numbers of lm_head.weight are NaN or infinite")


def test_a_threshold_for_a_brain_without_a_halting_head_is_refused_in_evaluations(
    workspace: Path, capsys: Capture
) -> None:
    own_brain(Workspace(workspace))
    (workspace / "text.txt").write_text("the cat\n")
    words = ["eval", "text", "--bundle", "own", "--dataset-file", "text.txt", "--device", "cpu"]
    for threshold, told in (("0.5", "--halt-threshold 0.5: "), ("7", "--halt-threshold ")):
        assert main([*words, "--halt-threshold", threshold]) == 2
        assert told in capsys.readouterr().err
    assert main([*words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["adaptive"] == []


def test_bundles_of_another_kind_are_refused(workspace: Path, tmp_path: Path, capsys: Capture) -> None:
    PuzzleLab(workspace, make_puzzles(tmp_path / "source")).train("solver")
    (workspace / "empty").mkdir()
    capsys.readouterr()
    for name, told in (("solver", "kind 'puzzle'"), ("empty", "empty"), ("nothing", "nothing")):
        assert main(["generate", "--bundle", name, "--prompt", "a"]) == 2
        shown = capsys.readouterr()
        assert told in shown.err
        assert shown.out == ""


def test_a_text_file_becomes_json_lines(brain: Bundle, workspace: Path, capsys: Capture) -> None:
    (workspace / "p.txt").write_bytes("\ufeffthe cat\r\n\nunder a tree \n  \ndog é".encode())
    words = ("--prompt-file", "p.txt", "--max-new-tokens", 6, "--seed", 2)
    written(*words, "--out", "made/o.jsonl", "--batch-size", 2)
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "3 texts" in shown.err
    assert "3.00 segments a token" in shown.err
    found = answers(workspace / "made/o.jsonl")
    assert [(line["index"], line["prompt"]) for line in found] == [(0, "the cat"), (1, "under a tree "), (2, "dog é")]
    assert found[0]["text"] == generate(brain, "the cat", max_new_tokens=6, seed=2).text
    assert all("".join(line["tokens"]) == line["text"] for line in found)
    assert all(line["finish_reason"] in {"length", "stop"} for line in found)
    assert not list((workspace / "made").glob("*.part"))

    # without --out the same lines are on standard output, and another batch size changes nothing
    written(*words, "--batch-size", 3)
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == found


def test_other_fields_of_a_line_are_kept(brain: Bundle, workspace: Path) -> None:
    rows = [{"id": 7, "prompt": "the", "label": {"é": [1, None]}}, {"prompt": "", "odd": "\ud800"}]
    (workspace / "p.jsonl").write_text("".join(json.dumps(row) + "\n\n" for row in rows))
    written("--prompt-file", "p.jsonl", "--out", "o.jsonl", "--max-new-tokens", 3)
    first, second = answers(workspace / "o.jsonl")
    assert (first["index"], first["id"], first["label"]) == (0, 7, {"é": [1, None]})
    assert (second["prompt"], second["odd"]) == ("", "\ud800")


def test_a_file_is_not_overwritten_unless_told(brain: Bundle, workspace: Path, capsys: Capture) -> None:
    (workspace / "p.txt").write_text("the\n")
    out = workspace / "o.jsonl"
    out.write_text("mine")
    words = ("--prompt-file", "p.txt", "--out", "o.jsonl", "--max-new-tokens", 2)
    written(*words, code=2)
    assert "o.jsonl exists" in capsys.readouterr().err
    assert out.read_text() == "mine"
    written(*words, "--overwrite")
    assert len(answers(out)) == 1
    (workspace / "o.jsonl.part").write_text("half")
    out.unlink()
    written(*words, code=2)
    assert "o.jsonl.part is left of an interrupted run" in capsys.readouterr().err
    written(*words, "--overwrite")
    assert [path.name for path in workspace.glob("o.*")] == ["o.jsonl"]
    written("--prompt-file", "p.txt", "--out", "artifacts", "--overwrite", code=2)
    assert "is a folder" in capsys.readouterr().err
    written("--prompt-file", "p.txt", "--out", "p.txt", "--overwrite", code=2)
    assert (workspace / "p.txt").read_text() == "the\n"


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("p.jsonl", b'{"prompt": "a"}\n{"prompt": 3}\n', "p.jsonl, line 2: the field 'prompt' must be a string, not 3"),
        ("p.jsonl", b'\n\n{"text": "a"}', "p.jsonl, line 3: the field 'prompt' is missing; there is 'text'"),
        ("p.jsonl", b"{}", "line 1: the field 'prompt' is missing; there is no field"),
        ("p.jsonl", b'{"prompt": "a"}\n{"prompt": ', "p.jsonl, line 2: no JSON object"),
        ("p.jsonl", b'{"prompt": "a", "x": NaN}', "line 1: no JSON object (NaN"),
        ("p.jsonl", b"[" * 100_000, "line 1: no JSON object"),
        ("p.jsonl", b'"a"', "line 1: a JSON object with the field 'prompt' is expected"),
        ("p.jsonl", b'{"prompt": "a", "text": "b"}', "line 1: the field 'text' is one that the answer has"),
        ("p.txt", b"a\nb\xff\n", "p.txt, line 2: byte 2 is not UTF-8"),
        ("p.txt", b"\n \n", "p.txt: there is no prompt in it"),
        ("p.txt", b"a\n" + b"cat " * 50 + b"\n", "p.txt, line 2: the prompt has"),
        ("p.txt", b"a\rb\r\nc\xff\n", "p.txt, line 3: byte 2 is not UTF-8"),
        ("p.jsonl", b'{"prompt": "a", "prompt": "b"}', "line 1: no JSON object ('prompt' stands twice)"),
        ("p.csv", b"a\n", "p.csv: prompts stand in a .txt file"),
        ("none/p.txt", None, "none/p.txt does not exist"),
    ],
)
def test_a_bad_line_is_named_before_anything_is_written(
    brain: Bundle, workspace: Path, capsys: Capture, name: str, content: bytes | None, told: str
) -> None:
    if content is not None:
        (workspace / name).write_bytes(content)
    written("--prompt-file", name, "--out", "o.jsonl", code=2)
    assert told in capsys.readouterr().err
    assert not list(workspace.glob("o.jsonl*"))


@pytest.mark.skipif(sys.platform == "win32", reason="no pipes among the files")
def test_a_file_of_prompts_that_is_a_pipe_is_not_waited_for(brain: Bundle, workspace: Path, capsys: Capture) -> None:
    os.mkfifo(workspace / "p.txt")
    written("--prompt-file", "p.txt", code=2)
    assert "p.txt is no regular file" in capsys.readouterr().err
