from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hrm_engine.errors import StorageError
from hrm_engine.store.files import new_folder
from hrm_engine.store.manifest import (
    check_entries,
    check_manifest,
    file_entries,
    list_checkpoints,
    schema_problem,
    write_manifest,
)
from hrm_engine.store.paths import MANIFEST_FILE


def make_checkpoint(run: Path, step: int) -> Path:
    folder = run / "checkpoints" / f"step_{step:08d}"
    with new_folder(folder) as temporary:
        (temporary / "model.safetensors").write_bytes(bytes(range(256)) * 10)
        (temporary / "config.json").write_text("{}")
        (temporary / "optimizer").mkdir()
        (temporary / "optimizer" / "part.safetensors").write_bytes(b"state")
        (temporary / "empty").write_bytes(b"")
        write_manifest(temporary)
    return folder


def edit_manifest(folder: Path, **changes: object) -> None:
    path = folder / MANIFEST_FILE
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def flip_byte(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(bytes(data))


def test_a_fresh_checkpoint_is_valid_and_its_manifest_says_all(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path, 200)
    assert check_manifest(folder) == []
    manifest = json.loads((folder / MANIFEST_FILE).read_text())
    assert manifest["schema_version"] == 1
    assert sorted(manifest["files"]) == ["config.json", "empty", "model.safetensors", "optimizer/part.safetensors"]
    # sha256 of "state", from the command line tool
    assert manifest["files"]["optimizer/part.safetensors"] == {
        "sha256": "4ba69735ca53765ed6a709edb56c6ea236b7193a3b29a6b390c346f0f4340e4e",
        "bytes": 5,
    }


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (lambda f: (f / "config.json").unlink(), "config.json is missing"),
        (lambda f: (f / MANIFEST_FILE).unlink(), "MANIFEST.json is missing"),
        (lambda f: (f / MANIFEST_FILE).write_text('{"schema_version": 1, "fi'), "MANIFEST.json is damaged"),
        (lambda f: (f / MANIFEST_FILE).write_bytes(b""), "MANIFEST.json is damaged"),
        (lambda f: edit_manifest(f, files=[]), "MANIFEST.json is damaged"),
        (lambda f: edit_manifest(f, schema_version=2), "written by a newer one"),
        (lambda f: edit_manifest(f, schema_version="1"), "no usable schema_version"),
        (lambda f: edit_manifest(f, schema_version=None), "no usable schema_version"),
        (lambda f: (f / "model.safetensors").write_bytes(b"short"), "model.safetensors is cut off: 5 of 2560 bytes"),
        (lambda f: (f / "config.json").write_text("{}\n"), "config.json has changed: 3 bytes instead of 2"),
        (lambda f: flip_byte(f / "model.safetensors", 1234), "model.safetensors has changed: its sha256"),
        (lambda f: flip_byte(f / "optimizer" / "part.safetensors", 0), "optimizer/part.safetensors has changed"),
        (lambda f: (f / "empty").write_bytes(b"x"), "empty has changed: 1 bytes instead of 0"),
        (lambda f: (f / "extra.bin").write_bytes(b"x"), "extra.bin is not in MANIFEST.json"),
        (lambda f: (f / "optimizer" / "extra").write_bytes(b"x"), "optimizer/extra is not in MANIFEST.json"),
    ],
)
def test_every_damage_is_named_with_its_file(tmp_path: Path, damage: Callable[[Path], object], expected: str) -> None:
    folder = make_checkpoint(tmp_path, 200)
    damage(folder)
    problems = check_manifest(folder)
    assert len(problems) == 1
    assert expected in problems[0]


@settings(max_examples=40, deadline=None)
@given(where=st.integers(0, 2559), bit=st.integers(0, 7))
def test_any_flipped_bit_is_found(tmp_path_factory: pytest.TempPathFactory, where: int, bit: int) -> None:
    folder = tmp_path_factory.mktemp("flip")
    data = bytearray(bytes(range(256)) * 10)
    (folder / "model.safetensors").write_bytes(bytes(data))
    write_manifest(folder)
    data[where] ^= 1 << bit
    (folder / "model.safetensors").write_bytes(bytes(data))
    assert len(check_manifest(folder)) == 1
    assert check_manifest(folder, hashes=False) == []


def test_several_damages_are_all_named(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path, 1)
    (folder / "config.json").unlink()
    flip_byte(folder / "model.safetensors", 0)
    (folder / "extra").write_text("x")
    assert [problem.split()[0] for problem in check_manifest(folder)] == ["config.json", "model.safetensors", "extra"]


def test_what_a_file_manager_leaves_is_no_damage(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path, 1)
    (folder / ".DS_Store").write_text("x")
    (folder / "optimizer" / "Thumbs.db").write_text("x")
    assert check_manifest(folder) == []


def test_not_a_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    assert "not a folder" in check_manifest(tmp_path / "file")[0]
    assert "not a folder" in check_manifest(tmp_path / "nowhere")[0]


@pytest.mark.parametrize(
    "name", ["../secret", "/etc/passwd", "a/../../secret", "..\\secret", "", "a\0b", "x" * 300, "out/secret"]
)
def test_names_that_lead_out_are_not_followed(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "bundle"
    folder.mkdir()
    (tmp_path / "secret").write_text("hidden")
    try:
        (folder / "out").symlink_to(tmp_path)
    except OSError:
        pytest.skip("this account may not make symbolic links")
    entry = file_entries(tmp_path, ["secret"])["secret"]
    problems = check_entries(folder, {name: entry})
    assert len(problems) == 1


@pytest.mark.parametrize(
    "entries",
    [
        None,
        [],
        "x",
        {"a": None},
        {"a": {}},
        {"a": {"bytes": 1}},
        {"a": {"bytes": "1", "sha256": "0" * 64}},
        {"a": {"bytes": 1, "sha256": "zz"}},
    ],
)
def test_a_damaged_list_is_a_sentence(tmp_path: Path, entries: object) -> None:
    (tmp_path / "a").write_text("x")
    problems = check_entries(tmp_path, entries)
    assert len(problems) == 1
    assert "damaged" in problems[0]


def test_entries_of_a_bundle(tmp_path: Path) -> None:
    (tmp_path / "best").mkdir()
    (tmp_path / "best" / "model.safetensors").write_bytes(b"b")
    (tmp_path / "config.json").write_bytes(b"{}")
    (tmp_path / "metrics.jsonl").write_bytes(b"")
    entries = file_entries(tmp_path, ["config.json", "best/model.safetensors"])
    assert check_entries(tmp_path, entries) == []
    (tmp_path / "metrics.jsonl").write_bytes(b"{}\n")
    assert check_entries(tmp_path, entries) == []
    (tmp_path / "best" / "model.safetensors").write_bytes(b"c")
    assert "best/model.safetensors" in check_entries(tmp_path, entries)[0]
    with pytest.raises(StorageError, match="nowhere"):
        file_entries(tmp_path, ["nowhere"])


def test_checkpoints_are_listed_by_step_with_their_problems(tmp_path: Path) -> None:
    for step in (1000, 200, 99_999_999, 400):
        make_checkpoint(tmp_path, step)
    folder = tmp_path / "checkpoints"
    flip_byte(folder / "step_00000400" / "model.safetensors", 0)
    (folder / ".tmp-1-0123abcd-step_00000500").mkdir()
    (folder / "step_00000600").write_text("a file")
    (folder / "step_x").mkdir()
    (folder / "step_00000700").mkdir()
    found = list_checkpoints(tmp_path)
    assert [info.step for info in found] == [200, 400, 700, 1000, 99_999_999]
    assert [bool(info.problems) for info in found] == [False, True, True, False, False]
    assert "model.safetensors" in found[1].problems[0]
    assert found[0].bytes == sum(p.stat().st_size for p in found[0].path.rglob("*") if p.is_file())
    assert [bool(info.problems) for info in list_checkpoints(tmp_path, hashes=False)] == [
        False,
        False,
        True,
        False,
        False,
    ]
    assert list_checkpoints(tmp_path / "nowhere") == []


def test_a_checkpoint_that_is_a_link_is_not_chosen(tmp_path: Path) -> None:
    outside = make_checkpoint(tmp_path / "other", 5)
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    try:
        (tmp_path / "run" / "checkpoints" / "step_00000005").symlink_to(outside)
    except OSError:
        pytest.skip("this account may not make symbolic links")
    assert "is a link" in list_checkpoints(tmp_path / "run")[0].problems[0]


def test_links_inside_a_checkpoint_are_not_ours(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "run", 5)
    (tmp_path / "outside").mkdir()
    (tmp_path / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
    (folder / "model.safetensors").unlink()
    try:
        (folder / "sly").symlink_to(tmp_path / "outside")
        (folder / "model.safetensors").symlink_to(tmp_path / "model.safetensors")
    except OSError:
        pytest.skip("this account may not make symbolic links")
    first, second = check_manifest(folder)
    assert "model.safetensors' is listed, but leads out" in first
    assert "sly is not in MANIFEST.json" in second


def test_schema_versions() -> None:
    where = Path("metadata.json")
    assert schema_problem(1, known=1, where=where) is None
    assert schema_problem(1, known=3, where=where) is None
    assert "update HRM Lab" in str(schema_problem(4, known=3, where=where))
    for bad in (0, -1, True, None, "1", 1.0):
        assert "metadata.json" in str(schema_problem(bad, known=3, where=where))
