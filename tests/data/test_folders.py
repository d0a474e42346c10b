"""One rule about which files of a folder are data, for text and for ARC tasks alike."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from hrm_engine.data.folders import data_folders
from hrm_engine.data.puzzles.arc.sources import read_source
from hrm_engine.data.text.documents import read_documents
from hrm_engine.errors import DataError

READERS: dict[str, Callable[[Path], object]] = {
    "text": read_documents,
    "arc": lambda folder: read_source(str(folder), root=Path()),
}


def write(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(path.name)
    return path


def listed(folder: Path) -> list[str]:
    return [file.relative_to(folder).as_posix() for part in data_folders(folder, {".json"}) for file in part.files]


def test_a_folder_comes_before_its_subfolders_and_all_is_sorted(tmp_path: Path) -> None:
    for name in ("b/2.json", "b/a/3.json", "a/1.JSON", "z.json", "c.Json", "a/1.txt", "a/json", "b.json/4.json"):
        write(tmp_path / name)
    assert listed(tmp_path) == ["c.Json", "z.json", "a/1.JSON", "b/2.json", "b/a/3.json", "b.json/4.json"]
    assert [part.num_others for part in data_folders(tmp_path, {".json"})] == [0, 2, 0, 0, 0]


@pytest.mark.parametrize(
    "name",
    [
        "._a.json",
        ".a.json",
        ".ipynb_checkpoints/a-checkpoint.json",
        "__MACOSX/data/a.json",
        "@eaDir/a.json",
        "$RECYCLE.BIN/a.json",
        ".git/a.json",
        "Thumbs.db",
        "desktop.ini",
    ],
)
def test_hidden_and_system_names_are_passed_over(tmp_path: Path, name: str) -> None:
    for folder in ("", "below/"):
        write(tmp_path / folder / name)
        write(tmp_path / folder / "a.json")
    assert listed(tmp_path) == ["a.json", "below/a.json"]
    assert {part.num_others for part in data_folders(tmp_path, {".json"})} == {0}


def test_a_hidden_folder_that_is_named_itself_is_read(tmp_path: Path) -> None:
    write(tmp_path / ".data" / "a.json")
    assert listed(tmp_path / ".data") == ["a.json"]


class TestLinks:
    def test_they_are_followed_once_behind_what_a_folder_has_itself(self, tmp_path: Path) -> None:
        write(tmp_path / "elsewhere" / "far.json")
        data = tmp_path / "data"
        write(data / "v2" / "own.json")
        (data / "latest").symlink_to("v2")
        (data / "again").symlink_to(tmp_path / "elsewhere")
        (data / "twice").symlink_to(tmp_path / "elsewhere")
        (data / "a.json").symlink_to("v2/own.json")
        (data / "b.json").symlink_to(write(tmp_path / "blob"))
        (data / "c.json").symlink_to(tmp_path / "blob")
        assert listed(data) == ["b.json", "v2/own.json", "again/far.json"]

    def test_loops_end(self, tmp_path: Path) -> None:
        write(tmp_path / "data" / "sub" / "a.json")
        (tmp_path / "data" / "sub" / "up").symlink_to("..")
        (tmp_path / "data" / "out").symlink_to(tmp_path)
        (tmp_path / "itself").symlink_to(tmp_path / "data")
        assert listed(tmp_path / "itself") == ["sub/a.json"]

    @pytest.mark.parametrize("name", ["task.json", "folder"])
    @pytest.mark.parametrize("target", ["nowhere", "itself"])
    @pytest.mark.parametrize("reader", READERS)
    def test_broken_ones_are_named(self, tmp_path: Path, reader: str, name: str, target: str) -> None:
        link = tmp_path / "data" / name
        link.parent.mkdir()
        link.symlink_to(name if target == "itself" else target)
        for place in (link.parent, link):
            if place == link and reader == "text" and name == "folder":
                continue  # a file of no known kind, whether it is there or not
            with pytest.raises(DataError, match=f"{name} is a broken link: it leads to .*, which is not there"):
                READERS[reader](place)

    def test_one_that_would_not_be_read_is_no_matter(self, tmp_path: Path) -> None:
        write(tmp_path / "a.json")
        (tmp_path / "notes.md").symlink_to("nowhere")
        (tmp_path / ".#a.json").symlink_to("the lock of an editor")
        assert listed(tmp_path) == ["a.json"]


@pytest.mark.skipif(sys.platform == "win32", reason="no folder that is out of reach whoever asks")
@pytest.mark.parametrize("reader", READERS)
def test_a_folder_that_cannot_be_read_is_told(tmp_path: Path, reader: str) -> None:
    write(tmp_path / "a.json")
    place, name = os.open(tmp_path, os.O_RDONLY), "deep" * 60
    for _ in range(20):  # more than the 4,096 bytes of a longest path
        os.mkdir(name, dir_fd=place)
        below = os.open(name, os.O_RDONLY, dir_fd=place)
        os.close(place)
        place = below
    os.close(place)
    with pytest.raises(DataError, match=r"deep: cannot be read \(File name too long\)"):
        READERS[reader](tmp_path)
