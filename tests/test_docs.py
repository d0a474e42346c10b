"""The documentation says what is so: its commands parse, its files exist, its generated pages are up to date."""

from __future__ import annotations

import json
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from cyclopts import App, CycloptsError, MissingArgumentError

from hrm_engine.config import PuzzleTrainConfig, TextTrainConfig, TrainConfig, leaves
from lab.cli import aios
from lab.cli.app import build_app
from tests.tiny_runs import source, with_base_model, with_small_corpus

__all__ = ["source"]

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").glob("*.md")), ROOT / "artifacts" / "README.md"]
COMMANDS = ROOT / "docs" / "commands.md"

FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
SPAN = re.compile(r"`([^`\n]+)`")
LINK = re.compile(r"\]\(([^)\s]+)\)")
PROGRAM = re.compile(r"^(?:\.venv/bin/|\.venv\\Scripts\\)?(lab|aios|make|python -m lab) ")
OUR_FOLDERS = ("hrm_engine/", "lab/", "dashboard/", "notebooks/", "docs/", "tests/", "bench/", ".vscode/")


def make_targets() -> set[str]:
    return set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf8"), re.MULTILINE))


def parse(command: str) -> None:
    """Parse one command line with the parser that would run it; nothing is executed."""
    match = PROGRAM.match(command)
    assert match, f"not a command of this project: {command}"
    words = shlex.split(command[match.end() :])
    if match[1] == "make":
        assert [word for word in words if "=" not in word and word not in make_targets()] == [], command
        return
    app = aios.build_app() if match[1] == "aios" else build_app()
    app.parse_args(words, exit_on_error=False, print_error=False)


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split(" | ")]


def mapping() -> Iterator[tuple[str, str]]:
    """(command here, when) of every row of the tables that map the documents' commands."""
    for line in COMMANDS.read_text(encoding="utf8").splitlines():
        row = cells(line)
        if line.startswith("|") and len(row) == 3 and row[2] in {"today", "later"}:
            for span in SPAN.findall(row[1]):
                if PROGRAM.match(span):
                    yield span, row[2]


def prose(page: Path) -> str:
    """The page without its fenced blocks, and without the mapping's tables, which have tests of their own."""
    text = FENCE.sub("", page.read_text(encoding="utf8"))
    return "\n".join(line for line in text.splitlines() if not (page == COMMANDS and len(cells(line)) == 3))


def leaf_commands(app: App, words: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], App]]:
    names = [name for name in app if not name.startswith("-")]
    if not names:
        yield words, app
    for name in names:
        yield from leaf_commands(app[name], (*words, name))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_in_text_parse(page: Path) -> None:
    for span in SPAN.findall(prose(page)):
        if PROGRAM.match(span):
            # Text may name a command without what it needs; everything that it does say must be right.
            with suppress(MissingArgumentError):
                parse(span)
    assert FENCE.sub("", page.read_text(encoding="utf8")).count("```") == 0


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_shell_blocks_hold_only_commands_that_work(page: Path) -> None:
    for language, block in FENCE.findall(page.read_text(encoding="utf8")):
        if language not in {"sh", "powershell"}:
            assert language in {"python", "text"}, f"{page.name}: a block in {language!r}"
            continue
        for line in block.strip().splitlines():
            if " -m venv " in line or " -m pip install " in line:
                assert line.endswith((" .venv", " -c constraints.txt -e ."))
            else:
                parse(line)


def test_todays_commands_of_the_documents_parse() -> None:
    today = [command for command, when in mapping() if when == "today"]
    assert len(today) > 5
    for command in today:
        parse(command)


@pytest.mark.parametrize("command", [command for command, when in mapping() if when == "later"])
def test_later_commands_do_not_exist_yet(command: str) -> None:
    with pytest.raises(CycloptsError):
        parse(command)


def test_every_command_has_help_and_is_documented() -> None:
    page = COMMANDS.read_text(encoding="utf8")
    found = list(leaf_commands(build_app()))
    assert len(found) > 8
    for words, app in found:
        assert f"| `lab {' '.join(words)}` |" in page
        assert app.help.strip()
        nameless = [argument.name for argument in app.assemble_argument_collection() if not argument.parameter.help]
        assert nameless == [], f"lab {' '.join(words)}: flags without help"


@pytest.mark.parametrize(("name", "config"), [("flags.md", TextTrainConfig), ("puzzle-flags.md", PuzzleTrainConfig)])
def test_every_flag_of_the_trainers_is_documented(name: str, config: type[TrainConfig]) -> None:
    page = (ROOT / "docs" / name).read_text(encoding="utf8")
    command = dict(leaf_commands(build_app()))["train", config.kind]
    flags = {argument.name for argument in command.assemble_argument_collection()}
    assert {leaf.flag for leaf in leaves(config).values()} <= flags
    assert {flag for flag in flags if f"| `{flag}" not in page} == set()


def test_every_flag_of_the_other_commands_is_documented() -> None:
    page = (ROOT / "docs" / "flags.md").read_text(encoding="utf8")
    made = runpy.run_path(str(ROOT / "docs" / "generate.py"))["COMMANDS"]
    commands = {" ".join(("lab", *words)): app for words, app in leaf_commands(build_app())}
    for name, config in made.items():
        app = commands["lab estimate actv1" if name == "lab estimate" else name]
        flags = {flag for argument in app.assemble_argument_collection() for flag in argument.names}
        section = page.split(f"\n## {name}\n")[1].split("\n## ")[0]
        for leaf in leaves(config).values():
            assert leaf.flag in flags, name
            assert f"| `{leaf.flag}`" in section, name


@pytest.mark.parametrize("name", ["flags.md", "puzzle-flags.md", "metrics.md"])
def test_generated_page_is_up_to_date(name: str) -> None:
    page = runpy.run_path(str(ROOT / "docs" / "generate.py"))["PAGES"][name]()
    assert (ROOT / "docs" / name).read_text(encoding="utf8") == page, "run: make docs"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_named_files_exist(page: Path) -> None:
    text = page.read_text(encoding="utf8")
    for link in LINK.findall(text):
        target, _, anchor = link.partition("#")
        linked = (page.parent / target) if target else page
        assert linked.exists(), f"{page.name} links to {link}"
        if anchor:
            headings = re.findall(r"^#+ (.*)$", linked.read_text(encoding="utf8"), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}, link
    for span in SPAN.findall(text):
        if span.startswith(OUR_FOLDERS) and "<" not in span:
            assert (ROOT / span).exists(), f"{page.name} names {span}"


def test_vscode_tasks_run(workspace: Path, source: Path) -> None:
    with_base_model(workspace, source)
    sample = Path("training_data", "curated_datasets", "test_sample.txt")
    (workspace / sample).parent.mkdir()
    shutil.copy(ROOT / sample, workspace / sample)
    tasks = json.loads((ROOT / ".vscode" / "tasks.json").read_text(encoding="utf8"))["tasks"]
    assert [task["label"] for task in tasks] == ["Run brief HRM CLI dry-run", "Run HRM dry-run (module)"]
    # The first as it stands; the second is the same step, here of a small network.
    small = ["--hidden-size", "64", "--num-heads", "2", "--max-seq-len", "32"]
    for task, more in zip(tasks, ([], small), strict=True):
        assert task["options"]["cwd"] == "${workspaceFolder}"
        program = Path(sys.executable).with_name(Path(task["command"]).name)
        result = subprocess.run(
            [program, *task["args"], *more], cwd=workspace, capture_output=True, text=True, encoding="utf8"
        )
        assert result.returncode == 0, result.stderr
    brains = workspace / "artifacts" / "brains" / "actv1"
    assert sorted(path.name for path in brains.iterdir() if path.is_dir()) == ["default", "default-2"]
    copied = [json.loads(line) for line in (brains / "metrics.jsonl").read_text(encoding="utf8").splitlines()]
    assert [row["step"] for row in copied if row["event"] == "final"] == [1, 1]


def test_library_lines_of_the_readme_run(workspace: Path, source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    blocks = [block for language, block in FENCE.findall(README.read_text(encoding="utf8")) if language == "python"]
    assert len(blocks) == 2
    with_base_model(workspace, source)
    with_small_corpus(workspace)
    for block in blocks:
        # Fewer steps of a smaller network on less text: the only difference from what a reader would run.
        names: dict[str, Any] = {}
        exec(block.replace("steps=50", "steps=2, hidden_size=64, max_seq_len=32, eval_batches=1"), names)
        assert names["config"].run.steps == 2
    assert names["trainer"].step_number == 2
    assert names["report"].loss > 0
    printed = capsys.readouterr().out
    assert printed.startswith("The ")
    assert printed.splitlines()[-1].startswith("2 ")
    brains = sorted(path.name for path in (workspace / "artifacts" / "brains" / "actv1").iterdir())
    assert brains == ["default", "default-2"]
