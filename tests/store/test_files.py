from __future__ import annotations

import json
import math
import os
import signal
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hrm_engine.errors import BundleError, CheckpointError, StorageError
from hrm_engine.store import files
from tests.store.conftest import Spawn

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@settings(max_examples=60, deadline=None)
@given(value=st.dictionaries(st.text(), JSON, max_size=5))
def test_json_comes_back_as_it_was(tmp_path_factory: pytest.TempPathFactory, value: dict[str, object]) -> None:
    path = tmp_path_factory.getbasetemp() / "roundtrip.json"
    files.write_json(path, value)
    assert files.read_json(path) == value


def test_writing_makes_the_folder_and_leaves_no_temporary(tmp_path: Path) -> None:
    target = tmp_path / "a" / "b" / "x.json"
    files.write_json(target, {"ü": [1, 2.5, None], "half": "\udcff"})
    files.write_text(tmp_path / "a" / "b" / "t.txt", "one\r\ntwo\n")
    assert names_in(target.parent) == ["t.txt", "x.json"]
    assert files.read_json(target) == {"ü": [1, 2.5, None], "half": "\udcff"}
    assert (target.parent / "t.txt").read_bytes() == b"one\r\ntwo\n"


@pytest.mark.parametrize("bad", [{"x": math.nan}, {"x": [math.inf]}, {"x": object()}, {("a",): 1}])
def test_what_json_cannot_hold_leaves_the_old_file(tmp_path: Path, bad: object) -> None:
    path = tmp_path / "x.json"
    files.write_json(path, {"old": True})
    with pytest.raises((ValueError, TypeError)):
        files.write_json(path, bad)
    assert files.read_json(path) == {"old": True}
    assert names_in(tmp_path) == ["x.json"]


def test_finite_replaces_only_what_json_cannot_hold() -> None:
    value = {"a": math.nan, "b": [1.0, -math.inf, {"c": math.inf, "d": "nan"}], "e": True, "f": (1, 2)}
    assert files.finite(value) == {"a": None, "b": [1.0, None, {"c": None, "d": "nan"}], "e": True, "f": [1, 2]}


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b'{\n "a": 1,\n "b": }\n', "line 3"),
        (b'{"a": 1', "line 1"),
        (b"", "line 1"),
        (b'{"a":\n"\xff"}', "line 2"),
        (b"[1, 2]", "a JSON object is expected, found list"),
        (b'{"a": ' + b"9" * 5000 + b"}", "not usable JSON"),
        (b"[" * 200_000, "not usable JSON"),
    ],
)
def test_damaged_json_is_named_with_its_line(tmp_path: Path, content: bytes, expected: str) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=expected) as raised:
        files.read_json(path, CheckpointError)
    assert str(path) in str(raised.value)


def test_json_with_byte_order_mark_is_read_and_a_missing_one_is_said(tmp_path: Path) -> None:
    (tmp_path / "bom.json").write_bytes(b'\xef\xbb\xbf{"a": 1}')
    assert files.read_json(tmp_path / "bom.json") == {"a": 1}
    with pytest.raises(BundleError, match=r"none\.json does not exist"):
        files.read_json(tmp_path / "none.json")
    with pytest.raises(BundleError, match="no regular file"):
        files.read_json(tmp_path)
    with pytest.raises(BundleError, match="cannot read"):
        files.read_json(Path("a\0b"))
    with (tmp_path / "large.json").open("wb") as file:
        file.truncate(files.OBJECT_LIMIT + 1)
    with pytest.raises(BundleError, match=r"large\.json has 67,108,865 bytes; at most"):
        files.read_json(tmp_path / "large.json")


def test_a_file_in_the_folders_place_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("x")
    for write in (
        lambda: files.write_json(tmp_path / "plain" / "x.json", {}),
        lambda: files.ensure_writable(tmp_path / "plain"),
        lambda: files.ensure_writable(tmp_path / "plain" / "sub"),
        lambda: files.new_folder(tmp_path / "plain" / "new").__enter__(),
    ):
        with pytest.raises(StorageError, match="plain") as raised:
            write()
        assert raised.value.exit_code == 5
    (tmp_path / "folder").mkdir()
    with pytest.raises(StorageError, match="folder"):
        files.write_json(tmp_path / "folder", {})
    assert names_in(tmp_path) == ["folder", "plain"]


def test_ensure_writable_makes_the_folder_and_leaves_nothing_in_it(tmp_path: Path) -> None:
    files.ensure_writable(tmp_path / "new" / "one")
    assert names_in(tmp_path / "new" / "one") == []


def test_a_new_folder_appears_whole(tmp_path: Path) -> None:
    target = tmp_path / "checkpoints" / "step_00000001"
    with files.new_folder(target) as folder:
        (folder / "inner").mkdir()
        (folder / "inner" / "x").write_bytes(b"1")
        assert not target.exists()
        assert folder.parent == target.parent
    assert (target / "inner" / "x").read_bytes() == b"1"
    assert names_in(target.parent) == ["step_00000001"]


def test_a_failed_new_folder_leaves_nothing_and_keeps_the_old_one(tmp_path: Path) -> None:
    target = tmp_path / "best"
    with files.new_folder(target) as folder:
        (folder / "x").write_text("old")

    def fail() -> None:
        with files.new_folder(target, replace=True) as folder:
            (folder / "x").write_text("new")
            raise RuntimeError("boom")

    with pytest.raises(RuntimeError, match="boom"):
        fail()
    with pytest.raises(StorageError, match="best"), files.new_folder(target) as folder:
        (folder / "x").write_text("new")
    assert (target / "x").read_text() == "old"
    assert names_in(tmp_path) == ["best"]
    with files.new_folder(target, replace=True) as folder:
        (folder / "y").write_text("new")
    assert names_in(target) == ["y"]
    assert names_in(tmp_path) == ["best"]


def test_a_new_folder_does_not_replace_a_file(tmp_path: Path) -> None:
    (tmp_path / "best").write_text("a file")
    with pytest.raises(StorageError, match="in the way"), files.new_folder(tmp_path / "best", replace=True) as folder:
        (folder / "x").write_text("new")
    assert (tmp_path / "best").read_text() == "a file"
    assert names_in(tmp_path) == ["best"]


KILLED_BETWEEN_RENAMES = """
import os, sys
from pathlib import Path
from hrm_engine.store import files
target = Path(sys.argv[1])
def watch(event, args):
    if event == "os.rename" and str(args[0]).split(os.sep)[-1].startswith(".tmp-") and Path(args[0]).is_dir():
        print("killed", flush=True)
        os._exit(9)
sys.addaudithook(watch)
with files.new_folder(target, replace=True) as folder:
    (folder / "x").write_text("new")
"""


def test_a_kill_between_the_two_renames_of_a_replacement_is_repaired(tmp_path: Path, spawn: Spawn) -> None:
    with files.new_folder(tmp_path / "best") as folder:
        (folder / "x").write_text("old")
    out, err = spawn(KILLED_BETWEEN_RENAMES, tmp_path / "best").communicate()
    assert out == "killed\n", err
    assert not (tmp_path / "best").exists()
    done = files.clean_temporaries(tmp_path)
    assert (tmp_path / "best" / "x").read_text() == "old"
    assert names_in(tmp_path) == ["best"]
    assert any("best was brought back" in sentence for sentence in done)
    assert files.clean_temporaries(tmp_path) == []


def test_leftovers_of_living_processes_and_other_files_are_kept(tmp_path: Path, spawn: Spawn) -> None:
    living = spawn("input()")
    ended = spawn("pass")
    ended.communicate()
    kept = tmp_path / f".tmp-{living.pid}-0123abcd-step_00000001"
    gone = tmp_path / f".tmp-{ended.pid}-0123abcd-step_00000002"
    kept.mkdir()
    gone.mkdir()
    (gone / "model.safetensors").write_bytes(b"half")
    (tmp_path / ".tmp-notes").write_text("mine")
    assert files.clean_temporaries(tmp_path) == [f"{gone.name}, left by an interrupted save, was removed"]
    assert names_in(tmp_path) == sorted([kept.name, ".tmp-notes"])
    assert files.clean_temporaries(tmp_path / "nowhere") == []


KEEPS_WRITING = """
import sys
from pathlib import Path
from hrm_engine.store import files
number = 0
while True:
    number += 1
    files.write_json(Path(sys.argv[1]), {"number": number, "fill": [number] * 5000})
    print(number, flush=True)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL on Windows")
def test_readers_and_kills_never_see_a_part_of_a_file(tmp_path: Path, spawn: Spawn) -> None:
    path = tmp_path / "x.json"
    for wait_for in (1, 4, 7):
        writer = spawn(KEEPS_WRITING, path)
        assert writer.stdout is not None
        for _ in range(wait_for):
            assert writer.stdout.readline()
            seen = files.read_json(path)
            assert set(seen["fill"]) == {seen["number"]}
        os.kill(writer.pid, signal.SIGKILL)
        writer.wait()
        seen = files.read_json(path)
        assert set(seen["fill"]) == {seen["number"]}
    files.clean_temporaries(tmp_path)
    assert names_in(tmp_path) == ["x.json"]


def test_threads_that_write_the_same_file_do_not_disturb_each_other(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    failures: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for _ in range(10):
                files.write_json(path, {"number": number, "fill": [number] * 500})
        except StorageError as problem:
            failures.append(problem)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    seen = json.loads(path.read_text())
    assert set(seen["fill"]) == {seen["number"]}
    assert names_in(tmp_path) == ["x.json"]


def test_new_files_have_the_ordinary_permissions(tmp_path: Path) -> None:
    if sys.platform == "win32":
        pytest.skip("Windows has no permission bits")
    (tmp_path / "plain").write_text("x")
    files.write_json(tmp_path / "x.json", {})
    assert (tmp_path / "x.json").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_number_that_another_process_has_now_keeps_no_leftover(tmp_path: Path) -> None:
    """Without a lock what this process writes is left alone, what one before it with the same number left is not."""
    fresh = tmp_path / f".tmp-{os.getpid()}-0123abcd-new"
    fresh.mkdir()
    assert files.clean_temporaries(tmp_path, own=False) == []
    assert files.clean_temporaries(tmp_path) == [f"{fresh.name}, left by an interrupted save, was removed"]


def test_a_folder_is_moved_or_removed_as_a_whole(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x").write_text("mine")
    (tmp_path / "taken").mkdir()
    with pytest.raises(StorageError, match="something of that name is in the way"):
        files.move_folder(tmp_path / "a", tmp_path / "taken")
    files.move_folder(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "b" / "x").read_text() == "mine"
    files.remove_folder(tmp_path / "b")
    assert names_in(tmp_path) == ["taken"]
    with pytest.raises(StorageError, match="cannot move b"):
        files.remove_folder(tmp_path / "b")
