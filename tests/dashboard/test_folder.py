"""Parameters, checkpoints and log of a run folder."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dashboard.queries.filecache import FileCache
from dashboard.queries.folder import LOG_BYTES, LOG_LINES, Checkpoints, log_tail, read_parameters
from hrm_engine.store.files import write_json
from tests.dashboard.run_folders import training_args, write_checkpoint


@pytest.fixture
def args_file(tmp_path: Path) -> Path:
    write_json(tmp_path / "training_args.json", training_args("default", 1000))
    return tmp_path / "training_args.json"


def test_parameters_are_flat_with_their_group(args_file: Path) -> None:
    found = read_parameters(args_file)
    assert ("network", "hidden_size", "256") in found.lines
    assert ("run", "max_minutes", "null") in found.lines
    assert ("", "command_line", "lab train actv1 --brain-name default --steps 1000") in found.lines
    assert found.value("steps") == 1000
    assert found.value("no such parameter") is None


@pytest.mark.parametrize(
    ("search", "names"),
    [("warm", ["warmup_steps"]), ("OPTIM cosine", ["lr_scheduler"]), ("256", ["hidden_size"]), ("(", [])],
)
def test_parameters_are_found_by_name_value_and_group(args_file: Path, search: str, names: list[str]) -> None:
    assert list(read_parameters(args_file).frame(search)["name"]) == names


def test_parameters_of_any_shape(tmp_path: Path) -> None:
    path = tmp_path / "training_args.json"
    write_json(path, {"parameters": [1, 2], "a": {"b": {}}, "c": {"d": {"e": None}}})
    assert read_parameters(path).lines == (("", "parameters", "[1, 2]"), ("a", "b", "{}"), ("c.d", "e", "null"))
    path.write_text("{")
    assert "training_args.json" in (read_parameters(path).problem or "")


def test_damaged_checkpoints_are_named_newest_first(tmp_path: Path) -> None:
    good, bad = write_checkpoint(tmp_path, 100), write_checkpoint(tmp_path, 200)
    with (bad / "state.safetensors").open("r+b") as file:
        file.write(b"\xff")
    found = Checkpoints().of(tmp_path)
    assert [checkpoint.name for checkpoint in found] == [bad.name, good.name]
    assert "state.safetensors" in found[0].problems[0]
    assert found[1].problems == ()
    assert found[1].hashed


def test_large_checkpoints_are_hashed_when_asked_for_and_then_remembered(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path, 100, num_bytes=10_000)
    with (folder / "state.safetensors").open("r+b") as file:
        file.write(b"\xff")
    checkpoints = Checkpoints(hash_at_once_bytes=1000)
    before = checkpoints.of(tmp_path)[0]
    assert (before.hashed, before.problems) == (False, ())
    asked = checkpoints.of(tmp_path, hash_all=True)[0]
    assert asked.hashed
    assert "state.safetensors has changed" in asked.problems[0]
    assert checkpoints.of(tmp_path)[0] == asked


def test_a_file_that_changes_is_hashed_again(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path, 100)
    checkpoints = Checkpoints()
    assert checkpoints.of(tmp_path)[0].problems == ()
    path = folder / "state.safetensors"
    content = bytearray(path.read_bytes())
    content[0] ^= 1
    path.write_bytes(content)
    os.utime(path, (1, 1))
    assert checkpoints.of(tmp_path)[0].problems != ()


def test_no_checkpoints(tmp_path: Path) -> None:
    assert Checkpoints().of(tmp_path) == []


def test_log_tail_is_the_end_and_says_that_it_is_cut(tmp_path: Path) -> None:
    path = tmp_path / "run.log"
    assert log_tail(path) is None
    path.write_text("".join(f"line {number}\n" for number in range(LOG_LINES + 50)))
    tail = log_tail(path)
    assert tail is not None
    assert tail.cut
    assert tail.num_lines == LOG_LINES
    assert tail.text.startswith("line 50\n")
    assert tail.text.endswith(f"line {LOG_LINES + 49}")
    path.write_text("one\ntwo")
    assert log_tail(path) == type(tail)("one\ntwo", 2, False, 7)


def test_log_tail_reads_only_the_end_of_a_huge_log(tmp_path: Path) -> None:
    path = tmp_path / "run.log"
    path.write_bytes(b"x" * (LOG_BYTES + 100) + b"\nthe end\n")
    tail = log_tail(path)
    assert tail is not None
    assert tail.text == "the end"
    assert tail.cut


def test_log_without_terminal_codes_and_progress_bars(tmp_path: Path) -> None:
    path = tmp_path / "run.log"
    path.write_bytes(b"\x1b[31mred\x1b[0m\r\n 1 %\r 50 %\r100 %\nbad \xff byte\0\n")
    tail = log_tail(path)
    assert tail is not None
    assert tail.text == "red\n100 %\nbad \ufffd byte"


def test_file_cache_loads_again_after_a_change_and_forgets_the_oldest(tmp_path: Path) -> None:
    loaded: list[str] = []

    def load(path: Path) -> str:
        loaded.append(path.name)
        return path.read_text()

    cache = FileCache(load, limit=2)
    for name in "abc":
        (tmp_path / name).write_text(name)
    assert cache.get(tmp_path / "missing") is None
    assert [cache.get(tmp_path / name) for name in "aab"] == ["a", "a", "b"]
    assert loaded == ["a", "b"]
    (tmp_path / "a").write_text("new content")
    assert cache.get(tmp_path / "a") == "new content"
    cache.get(tmp_path / "c")
    cache.get(tmp_path / "b")
    assert loaded == ["a", "b", "a", "c", "b"]
