"""Maze datasets: what is written, from the generator and from CSV files in the published form."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hrm_engine.data.puzzles.dihedral import INVERSE, NUM_DIHEDRAL, dihedral_cells
from hrm_engine.data.puzzles.format import open_dataset
from hrm_engine.data.puzzles.kinds import BOARDS
from hrm_engine.data.puzzles.maze import build
from hrm_engine.data.puzzles.maze.board import PATH
from hrm_engine.data.puzzles.maze.build import build_mazes, orientations
from hrm_engine.data.puzzles.maze.generate import MazeSettings, canonical_keys, generate_mazes
from hrm_engine.data.puzzles.maze.published import read_mazes
from hrm_engine.data.puzzles.rated import Puzzles
from hrm_engine.errors import ConfigError, DataError

SHA256 = "c3fcfd59ec4d8fed65ada0605170e6a521bcf1234ec715348a8236822f04dd07"
SMALL = {"size": 8, "count": 12, "test_count": 5, "seed": 1}


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def write_csv(path: Path, rows: Iterable[Sequence[str]], header: str = "source,question,answer,rating") -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        file.write(header + "\n")
        csv.writer(file, lineterminator="\n").writerows(rows)
    return path


def csv_rows(mazes: Puzzles) -> list[list[str]]:
    pairs = zip(mazes.inputs, mazes.labels, strict=True)
    return [
        ["made", BOARDS["maze"].to_text(question), BOARDS["maze"].to_text(answer), "0"] for question, answer in pairs
    ]


@pytest.fixture(scope="module")
def mazes() -> Puzzles:
    return generate_mazes(MazeSettings(size=8, min_path=8, loops=0.1, seed=0), count=20, name="train", seen=set())


class TestGenerated:
    def test_report_and_dataset(self, tmp_path: Path) -> None:
        report = build_mazes(output_dir=tmp_path / "mazes", num_aug=8, min_path=9, **SMALL)
        train, test = (open_dataset(tmp_path / "mazes", split) for split in ("train", "test"))
        assert (len(report.train_ratings), report.num_train_rows, len(report.test_ratings)) == (12, 96, 5)
        assert (train.num_groups, train.num_rows, test.num_groups, test.num_rows) == (12, 96, 5, 5)
        assert train.info.vocab_size == 6
        assert train.info.ignore_label_id == train.info.pad_id == 0
        assert (train.about.kind, train.about.height, train.about.width, train.about.seed) == ("maze", 8, 8, 1)
        assert not train.about.is_proxy  # only 30 x 30 stands in for something published
        for dataset in (train, test):
            (part,) = dataset.sets
            assert BOARDS["maze"].are_valid(part.inputs, part.labels).all()
            assert part.ratings is not None
            np.testing.assert_array_equal(part.ratings, (part.labels == PATH).sum(axis=1) + 1)
            assert part.ratings.min() >= min(report.train_ratings.min(), report.test_ratings.min()) >= 9
            assert np.diff(part.puzzle_indices).tolist() == [1] * part.num_rows
            assert not part.puzzle_identifiers.any()
        assert np.diff(train.sets[0].group_indices).tolist() == [8] * 12
        assert not set(canonical_keys(np.array(train.sets[0].inputs))) & set(
            canonical_keys(np.array(test.sets[0].inputs))
        )

    def test_a_group_is_one_maze_in_its_eight_orientations(self, tmp_path: Path) -> None:
        build_mazes(output_dir=tmp_path / "one", num_aug=1, **SMALL)
        build_mazes(output_dir=tmp_path / "eight", num_aug=8, **SMALL)
        (one,), (eight,) = (open_dataset(tmp_path / name, "train").sets for name in ("one", "eight"))
        cells = dihedral_cells(8)
        for rows, originals in ((eight.inputs, one.inputs), (eight.labels, one.labels)):
            for number in range(NUM_DIHEDRAL):
                variants = np.array(rows).reshape(12, 8, 64)[:, number]
                np.testing.assert_array_equal(variants[:, cells[INVERSE[number]]], originals)

    @given(num=st.integers(1, 20), num_aug=st.integers(1, 8), seed=st.integers(0, 99))
    def test_orientations_are_different_ones_the_given_first(self, num: int, num_aug: int, seed: int) -> None:
        drawn = orientations(num, num_aug, seed)
        assert drawn.shape == (num, num_aug)
        assert not drawn[:, 0].any()
        assert all(len(set(row)) == num_aug and set(row) <= set(range(8)) for row in drawn.tolist())

    def test_same_seed_same_bytes_and_the_test_mazes_do_not_depend_on_the_others(self, tmp_path: Path) -> None:
        for name, changes in {"a": {}, "b": {}, "more": {"count": 20}, "other": {"seed": 2}}.items():
            build_mazes(output_dir=tmp_path / name, **{**SMALL, **changes})
        a, b, more, other = (files_of(tmp_path / name) for name in ("a", "b", "more", "other"))
        assert a == b
        assert a["test/all__inputs.npy"] == more["test/all__inputs.npy"] != other["test/all__inputs.npy"]
        # The bytes themselves are part of the contract: a changed generator is a changed dataset.
        (part,) = open_dataset(tmp_path / "a", "train").sets
        assert hashlib.sha256(bytes(part.inputs) + bytes(part.labels)).hexdigest() == SHA256

    def test_thirty_by_thirty_is_labelled_as_a_proxy(self, tmp_path: Path) -> None:
        build_mazes(output_dir=tmp_path / "mazes", count=2, test_count=0)
        about = open_dataset(tmp_path / "mazes", "train").about
        assert about.is_proxy
        assert "at least 30 steps" in about.description
        assert not (tmp_path / "mazes" / "test").exists()

    def test_settings_out_of_range(self, tmp_path: Path) -> None:
        for changes, message in (
            ({"count": 0}, "--count"),
            ({"test_count": -1}, "--test-count"),
            ({"num_aug": 9}, "--num-aug"),
        ):
            with pytest.raises(ConfigError, match=message):
                build_mazes(output_dir=tmp_path / "mazes", **{**SMALL, **changes})
        assert list(tmp_path.iterdir()) == []

    def test_an_interrupted_build_leaves_nothing_and_an_old_one_in_place(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        build_mazes(output_dir=tmp_path / "mazes", **SMALL)
        before = files_of(tmp_path)
        with pytest.raises(DataError, match="exists"):
            build_mazes(output_dir=tmp_path / "mazes", **SMALL)
        chosen = orientations

        def interrupted(num: int, num_aug: int, seed: int) -> np.ndarray:
            if num == 5:  # the test split comes last
                raise KeyboardInterrupt
            return chosen(num, num_aug, seed)

        monkeypatch.setattr(build, "orientations", interrupted)
        for replace, name in ((True, "mazes"), (False, "new")):
            with pytest.raises(KeyboardInterrupt):
                build_mazes(output_dir=tmp_path / name, replace=replace, **{**SMALL, "seed": 9})
        assert files_of(tmp_path) == before


class TestFromCsv:
    def test_round_trip(self, tmp_path: Path, mazes: Puzzles) -> None:
        files = [
            write_csv(tmp_path / "a.csv", csv_rows(mazes[:12])),
            write_csv(tmp_path / "b.csv", csv_rows(mazes[12:17])),
        ]
        tested = write_csv(tmp_path / "test.csv", csv_rows(mazes[17:]))
        report = build_mazes(output_dir=tmp_path / "mazes", csv=files, test_csv=[tested], num_aug=2)
        assert (len(report.train_ratings), report.num_train_rows, len(report.test_ratings)) == (17, 34, 3)
        (train,), (test,) = (open_dataset(tmp_path / "mazes", split).sets for split in ("train", "test"))
        np.testing.assert_array_equal(train.inputs[::2], mazes.inputs[:17])
        np.testing.assert_array_equal(train.labels[::2], mazes.labels[:17])
        np.testing.assert_array_equal(test.labels, mazes.labels[17:])
        assert test.ratings is not None
        np.testing.assert_array_equal(test.ratings, mazes.ratings[17:])
        assert open_dataset(tmp_path / "mazes", "train").about.description == "mazes from a.csv, b.csv, test.csv"

    def test_a_held_out_part_and_a_subsample_are_drawn_by_the_seed(self, tmp_path: Path, mazes: Puzzles) -> None:
        file = write_csv(tmp_path / "all.csv", csv_rows(mazes))
        for name, seed in (("a", 0), ("b", 0), ("c", 1)):
            build_mazes(output_dir=tmp_path / name, csv=[file], test_count=6, subsample_size=10, seed=seed)
        assert files_of(tmp_path / "a") == files_of(tmp_path / "b")
        assert files_of(tmp_path / "a")["test/all__inputs.npy"] != files_of(tmp_path / "c")["test/all__inputs.npy"]
        train, test = (open_dataset(tmp_path / "a", split).sets[0].inputs for split in ("train", "test"))
        assert (len(train), len(test)) == (10, 6)
        assert not set(map(bytes, train)) & set(map(bytes, test))
        for setting, message in (({"test_count": 20}, "some must remain"), ({"subsample_size": 21}, "20 training")):
            with pytest.raises(ConfigError, match=message):
                build_mazes(output_dir=tmp_path / "d", csv=[file], **setting)

    def test_training_mazes_that_are_tested_are_left_out_in_every_orientation(
        self, tmp_path: Path, mazes: Puzzles
    ) -> None:
        cells = dihedral_cells(8)[3]
        turned = Puzzles(mazes.inputs[:4, cells], mazes.labels[:4, cells], mazes.ratings[:4])
        train, test = (write_csv(tmp_path / f"{n}.csv", csv_rows(m)) for n, m in (("train", mazes), ("test", turned)))
        report = build_mazes(output_dir=tmp_path / "mazes", csv=[train], test_csv=[test])
        assert (report.num_left_out, len(report.train_ratings), len(report.test_ratings)) == (4, 16, 4)
        with pytest.raises(DataError, match="every training maze"):
            build_mazes(output_dir=tmp_path / "none", csv=[test], test_csv=[train])

    def test_several_shortest_paths_are_counted_and_the_given_one_stands(self, tmp_path: Path) -> None:
        file = write_csv(tmp_path / "open.csv", [["x", "S   G    ", "So  G    ", "1"]])
        found = read_mazes([file])
        assert found.num_several == 1
        assert BOARDS["maze"].to_text(found.mazes.labels[0]) == "So  G    "

    @pytest.mark.parametrize(
        ("question", "answer", "told"),
        [
            ("S  #G   #", "Soo#G   #", "not one path"),
            ("S # G # #", "S # G # #", "not one path"),
            ("S # #   G", "So# #o  G", "not one path"),
            ("S # #o  G", "So#o#o oG", "shows a path already"),
            ("S#     #G", "So     oG", "through a wall"),
            ("S# #    G", "S# #    G", "no path leads"),
            ("S   #   G", "So  o  oG", "through a wall"),
            ("S   #   G", "S# o#  oG", "another maze"),
            ("S   #   S", "So oo  oS", "exactly one S and one G"),
            ("    #   G", "    #   G", "exactly one S and one G"),
            ("S  G     ", "Sooo  G  ", "another maze|over S or G"),
            ("S G      ", "SoG     o", "not one path"),
            ("S G      ", "S Gooo   ", "not the shortest"),
            ("S G      ", "S Gooo  x", "character 9 is 'x'"),
            ("S G    ", "SoG    ", "7 cells is not a square"),
            ("S G      ", "SoG     ", "9 cells, the answer 8"),
            ("S  G", "S oG", "2 x 2 among mazes of 3 x 3"),
        ],
    )
    def test_bad_rows_are_refused_with_their_line_or_skipped(
        self, tmp_path: Path, question: str, answer: str, told: str
    ) -> None:
        good = ["x", "S G  #  #", "SoG  #  #", "1"]
        file = write_csv(tmp_path / "mazes.csv", [good, ["x", question, answer, "1"], good, ["x", "bad", "bad", "1"]])
        with pytest.raises(DataError, match=rf"mazes.csv, line 3: .*({told}).*--skip-bad-records"):
            read_mazes([file])
        found = read_mazes([file], skip_bad=True)
        assert (len(found.mazes), found.num_skipped) == (2, 2)

    @pytest.mark.parametrize(
        ("content", "told"),
        [
            (b"question,answer\n", "no maze in"),
            (b"", "line 1: no column question and no column answer"),
            (b"source,question,rating\nx,S,1\n", "line 1: no column answer"),
            (b"source,question,answer,rating\nx,S G      \n", "line 2: the row ends before its answer"),
            (b"source,question,answer,rating\nx,\xff\xfe,S,1\n", "not UTF-8"),
        ],
    )
    def test_bad_files(self, tmp_path: Path, content: bytes, told: str) -> None:
        file = tmp_path / "mazes.csv"
        file.write_bytes(content)
        with pytest.raises(DataError, match=told):
            read_mazes([file])
        with pytest.raises(DataError, match="does not exist"):
            read_mazes([tmp_path / "nowhere.csv"])

    def test_many_rows_keep_their_order_across_chunks(self, tmp_path: Path, mazes: Puzzles) -> None:
        rows = [row for _ in range(60) for row in csv_rows(mazes)]
        file = write_csv(tmp_path / "mazes.csv", rows)
        found = read_mazes([file])
        np.testing.assert_array_equal(found.mazes.labels, np.tile(mazes.labels, (60, 1)))
        rows[1000][2] = rows[1000][1]
        with pytest.raises(DataError, match="line 1002: "):
            read_mazes([write_csv(tmp_path / "bad.csv", rows)])
