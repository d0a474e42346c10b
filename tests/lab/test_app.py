"""The command line as a whole: quick to start, helpful, and honest in what it exits with."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from cyclopts import App

from hrm_engine.config import kinds, leaves
from hrm_engine.errors import ConfigError, NonFiniteLossError, StorageError
from lab.cli import aios, app
from lab.cli.app import build_app, main
from lab.cli.console import human_bytes, human_count, human_seconds, printable, show_table

HEAVY = ["torch", "transformers", "tokenizers", "streamlit", "duckdb", "pandas", "plotly", "papermill", "pydantic"]


def commands(tree: App, words: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    names = [name for name in tree if not name.startswith("-")]
    if words:
        yield words
    for name in names:
        yield from commands(tree[name], (*words, name))


@pytest.mark.parametrize("words", list(commands(build_app())), ids=" ".join)
def test_every_command_has_help(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*words, "--help"]) == 0
    shown = capsys.readouterr()
    assert f"Usage: lab {' '.join(words)}" in shown.out
    assert shown.err == ""


@pytest.mark.parametrize("words", [(verb, kind) for verb in ("train", "estimate") for kind in ("actv1", "puzzle")])
def test_help_of_a_training_begins_with_the_common_flags(
    words: tuple[str, str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert main([*words, "--help"]) == 0
    common = capsys.readouterr().out
    flags = {leaf.flag for leaf in leaves(kinds.table()[words[1]].config).values()}
    shown = [flag for flag in flags if f" {flag} " in common]
    assert 10 <= len(shown) <= 15
    assert len(common.splitlines()) < 60
    assert f"'lab {' '.join(words)} --help-all' shows all flags." in common
    assert main([*words, "--help-all"]) == 0
    everything = capsys.readouterr().out
    assert [flag for flag in flags if f" {flag} " not in everything] == []
    assert main([*words, "--help"]) == 0
    assert capsys.readouterr().out == common


def test_help_lists_every_group_and_loads_nothing_heavy() -> None:
    probe = (
        "import json, sys\nfrom lab.cli.app import main\ncode = main(['--help'])\n"
        f"print(json.dumps([code, [name for name in {HEAVY!r} if name in sys.modules]]))"
    )
    result = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert json.loads(result.stdout.splitlines()[-1]) == [0, []]
    for name, *_ in app.COMMANDS:
        assert f" {name} " in result.stdout


def test_module_and_scripts_are_the_same_program(tmp_path: Path) -> None:
    for module, *words in (["lab", "train", "actv1"], ["aios.cli.aios", "hrm-hf", "train-actv1"]):
        command = [sys.executable, "-m", module, *words, "--stepz", "1"]
        result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert result.returncode == 2
        assert "--stepz" in result.stderr
        assert f"{module.rpartition('.')[2]} {' '.join(words)} --help" in result.stderr


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["trane"], 'Did you mean "train"'),
        (["train", "actv1", "--batch-sise", "2"], "Did you mean --batch-size?"),
        (["train", "actv1", "--steps", "many"], "--steps many: a whole number is needed"),
        (["train", "actv1", "--steps"], "--steps: a value is needed"),
        (["train", "actv1", "leftover"], "leftover"),
        (["generate", "--prompt", "x"], "--bundle"),
        (["run"], "'lab run' needs RECIPE"),
        (["bundle", "show", "a", "b", "c"], "'lab bundle show' does not take b c"),
        (["train", "actv1", "--steps", "1", "--steps", "2"], "--steps is given twice"),
        (["train", "actv1", "--amp=maybe"], "--amp maybe: true or false is needed"),
        (["data", "show", "x", "--split", "both"], "--split both: use train or test"),
        (["dashboard", "--port", "high"], "--port high: a whole number is needed"),
        (["bundle", "shw", "x"], 'Did you mean "show"'),
    ],
)
def test_wrong_usage_exits_2_with_a_sentence_and_no_traceback(
    words: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("error: ")
    assert told in shown.err
    assert re.search("--help(-all)?' shows what it takes", shown.err)
    assert "Traceback" not in shown.err


def raising(error: BaseException) -> App:
    broken = build_app()

    @broken.command
    def breaks() -> int:
        raise error

    return broken


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigError("a \x1b[31m[bold]setting"), 2),
        (NonFiniteLossError("not finite"), 3),
        (StorageError("disk full"), 5),
        (KeyboardInterrupt(), 130),
    ],
    ids=["bad input", "non-finite", "storage", "Ctrl-C"],
)
def test_errors_are_one_message_with_their_exit_code(
    error: BaseException, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(app, "build_app", lambda: raising(error))
    assert main(["breaks"]) == code
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err == f"error: {printable(error) or 'interrupted'}\n"


def test_debug_shows_the_traceback(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(app, "build_app", lambda: raising(ConfigError("a setting")))
    assert main(["breaks", "--debug"]) == 2
    shown = capsys.readouterr()
    assert "Traceback (most recent call last)" in shown.err
    assert "ConfigError: a setting" in shown.err


def test_version_and_bare_call(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == app.version()
    assert main([]) == 0
    assert "Usage: lab" in capsys.readouterr().out


def test_aios_knows_its_words_and_says_what_else_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert aios.main(["hrm-hf", "train-actv1", "--help"]) == 0
    shown = capsys.readouterr().out
    assert "Usage: aios hrm-hf train-actv1" in shown
    assert "'aios hrm-hf train-actv1 --help-all' shows all flags" in shown
    for words in (["hrm-hf"], ["hrm-hf", "--help"]):
        assert aios.main(words) == 0
        assert "train-actv1" in capsys.readouterr().out
    assert aios.main([]) == 0
    assert "goals-add" in capsys.readouterr().out
    for words, told in (
        (["goals-shout"], """Unknown command "goals-shout". .*Everything else is 'lab'"""),
        (["goals-add"], "'aios goals-add' needs TEXT"),
        (
            ["hrm-hf", "train-actv1", "--lr", "x"],
            "--lr x: a number is needed\n'aios hrm-hf train-actv1 --help-all' shows",
        ),
    ):
        assert aios.main(words) == 2
        shown = capsys.readouterr()
        assert re.match(f"error: {told}", shown.err)
        assert shown.out == ""


def test_numbers_are_written_for_people() -> None:
    assert [human_bytes(size) for size in (0, 999, 1400, 2.5e6, 3e15)] == [
        "0 B",
        "999 B",
        "1.4 KB",
        "2.5 MB",
        "3000.0 TB",
    ]
    assert [human_count(number) for number in (7, 9999, 12_400, 5.1e6, 7e9)] == [
        "7",
        "9999",
        "12.4 k",
        "5.1 M",
        "7.0 G",
    ]
    assert [human_seconds(seconds) for seconds in (4.24, 185, 7800)] == ["4.2 s", "3:05", "2:10:00"]


def test_tables_keep_whole_cells_and_cannot_steer_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    long = "x" * 300
    show_table(("name", "n"), [(f"\x1b[2Jä\n{long}", 1), ("b", 22)], right=("n",))
    first, second, third = capsys.readouterr().out.splitlines()
    assert second == f"[2Jä {long}   1"
    assert third == "b".ljust(len(second) - 4) + "  22"
    assert first.split() == ["name", "n"]
