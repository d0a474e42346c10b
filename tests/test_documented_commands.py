"""The commands of the documentation run, in their order, on what a plain installation brings."""

from __future__ import annotations

import json
import shlex
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hrm_engine.data.puzzles.arc.build import build_arc
from lab.cli import aios, app
from tests import arc_tasks
from tests.test_docs import FENCE, PROGRAM, mapping
from tests.test_packaging import PROJECT, requirement_name
from tests.tiny_runs import REPOSITORY, source, with_base_model

__all__ = ["source"]

PAGES = ("puzzles", "experts", "text")
LEFT_OUT = (
    "make",  # runs these tests
    "lab dashboard",  # do not end by themselves
    "lab logs",
    "lab run",  # have tests of their own
    "lab generate --bundle default --prompt-file prompts.jsonl --out texts.jsonl --batch-size 16 --resume",
)
# What makes a training last a moment; what stands in a document for a thing that a reader has under another name.
SMALL = {"--steps": "1", "--batch-size": "2", "--hidden-size": "64", "--num-heads": "2", "--h-layers": "1"}
SMALL |= {"--h-cycles": "1", "--l-cycles": "1", "--halt-max-steps": "2"}
TEXT = {"--max-seq-len": "32", "--eval-batches": "1", "--l-layers": "1", "--model": "artifacts/hf_implant/base_model"}
PUZZLE = {"--eval-rows": "2", "--gradient-accumulation-steps": "1"}
FEW = "data/few"
"""A dataset in the place of ARC, whose 400 evaluation tasks take minutes."""
IN_PLACE = {"42": "1", "arithmetic-demo": "mine", "500": "0"}


def plain_installation(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide the packages that only an extra brings."""
    extras = [name for part in PROJECT["optional-dependencies"].items() if part[0] != "test" for name in part[1]]
    for name in {*map(requirement_name, extras)} - {*map(requirement_name, PROJECT["dependencies"])}:
        monkeypatch.setitem(sys.modules, name.replace("-", "_"), None)


def words_of(command: str) -> list[str]:
    """The command line with small values in the place of its own, those of trainings completed."""
    words = [IN_PLACE.get(word, word) for word in shlex.split(command)]
    is_training = words[0] == "train" or "train-actv1" in words
    if "--data-path" in words:
        words[words.index("--data-path") + 1] = FEW
    for flag, value in (SMALL | (PUZZLE if "puzzle" in words else TEXT)).items() if is_training else ():
        if flag in words:
            words[words.index(flag) + 1] = value
        elif flag != "--model" and not {"--expert-id", "--student-init"} & {*words}:  # the base decides
            words += [flag, value]
    return words


def commands() -> Iterator[str]:
    """Those of the mapping's tables and of the blocks of some pages, each once."""
    yield from (command for command, when in mapping() if when == "today" and " " in command.removeprefix("lab train "))
    for page in PAGES:
        for language, block in FENCE.findall((REPOSITORY / "docs" / f"{page}.md").read_text(encoding="utf8")):
            yield from block.strip().splitlines() if language == "sh" else ()


def test_documented_commands_run(workspace: Path, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_base_model(workspace, source)
    shutil.copytree(REPOSITORY / "training_data", workspace / "training_data", dirs_exist_ok=True)
    (workspace / "prompts.jsonl").write_text(json.dumps({"prompt": "The list"}) + "\n")
    monkeypatch.chdir(workspace)
    build_arc(output_dir=workspace / FEW, source=[str(arc_tasks.write_tasks(workspace / "tasks"))], num_aug=0)
    plain_installation(monkeypatch)
    ran = [command for command in dict.fromkeys(commands()) if not command.startswith(LEFT_OUT)]
    assert len(ran) > 40
    for command in ran:
        program = PROGRAM.match(command)
        assert program
        main, words = aios.main if program[1] == "aios" else app.main, words_of(command[program.end() :])
        if "--resume" in words:  # there must be what it goes on with
            assert main([word for word in words if word != "--resume"]) == 0, command
        assert main(words) == 0, command
