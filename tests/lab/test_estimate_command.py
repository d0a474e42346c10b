"""``lab estimate``: the flags of the trainings, a table or JSON, and no run folder."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from lab.cli.app import build_app, main
from tests.tiny_runs import Lab, flags


def test_a_table(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    words = flags(lab.settings(use_moe=True, num_experts=4, halt_max_steps=1, max_seq_len=8))
    assert main(["estimate", "actv1", *words, "--no-measure"]) == 0
    shown = capsys.readouterr().out
    assert re.search(r"^parameters  \d", shown, re.MULTILINE)
    assert re.search(r"^  idle for a token \(experts\) +\d", shown, re.MULTILINE)
    assert re.search(r"^arithmetic  .*FLOP a step, .*FLOP in 6 steps$", shown, re.MULTILINE)
    assert re.search(r"^tensors  .*MB at the peak of a step, in \w+ on cpu$", shown, re.MULTILINE)
    assert re.search(r"^process  about .*MB, with libraries and what a checkpoint needs$", shown, re.MULTILINE)
    assert "measured" not in shown
    assert not lab.workspace.brains.exists()


def test_json(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    words = flags(lab.settings(halt_max_steps=1, max_seq_len=8, optimizer="lion"))
    assert main(["estimate", "actv1", *words, "--no-measure", "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert content["core"]["hidden_size"] == 64
    assert content["memory"]["optimizer"] is None, "only a trial tells of rules of libraries"
    assert content["memory"]["total"] > content["memory"]["weights"]
    assert content["measured"] is None


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--config", "no-such"], "no such preset"),
        (["--dataset-file", "training_data/text.txt", "--expert-id", "poems"], "leave out --expert-id"),
        (["--dataset-file", "x.txt"], "--dataset-file: "),
        (["--dataset-file", "x.txt", "--hidden-size", "30", "--num-heads", "4"], "--num-heads"),
    ],
)
def test_bad_input(lab: Lab, words: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["estimate", "actv1", *words, "--no-measure"]) == 2
    assert told in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--limit-s", "nan"], "--limit-s "),
        (["--limit-s", "inf"], "--limit-s "),
        (["--limit-s", "-1"], "--limit-s "),
        (["--limit-s", "0"], "--limit-s "),
        (["--no-measure", "--limit-s", "3"], "--limit-s goes with --measure"),
    ],
    ids=str,
)
@pytest.mark.parametrize("kind", ["actv1", "puzzle"])
def test_times_that_are_none(kind: str, words: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["estimate", kind, *words]) == 2
    assert told in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["actv1", "puzzle"])
def test_every_setting_of_a_training_is_a_flag_here(kind: str) -> None:
    app = build_app()

    def names(*words: str) -> set[str]:
        command: Any = app
        for word in words:
            command = command[word]
        return {argument.name for argument in command.assemble_argument_collection()}

    beginnings = {
        "--resume",
        "--fresh",
        "--from-checkpoint",
        "--extend-schedule",
        "--allow-changed-data",
        "--take-over",
    }
    assert names("train", kind) - names("estimate", kind) == beginnings
    assert names("estimate", kind) - names("train", kind) == {"--measure", "--limit-s", "--json"}
