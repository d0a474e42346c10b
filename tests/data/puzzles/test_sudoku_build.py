"""Sudoku datasets: generated, from CSV files, the hard set; disjoint, repeatable, whole or absent."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hrm_engine.data.puzzles.format import PuzzleDataset, open_dataset
from hrm_engine.data.puzzles.kinds import BOARDS
from hrm_engine.data.puzzles.rated import Puzzles
from hrm_engine.data.puzzles.sudoku import build
from hrm_engine.data.puzzles.sudoku.generate import candidate_blocks, generate
from hrm_engine.data.puzzles.sudoku.hard import HARD_PROXY, HardSet, make_hard_set, puzzles_hash
from hrm_engine.data.puzzles.sudoku.solve import solve
from hrm_engine.errors import ConfigError, DataError
from tests.data.puzzles.csv_text import written

TINY_HASH = "a3599eec23702dca8ac8e58404d90698ae990af4289d22a4e2d64cd211a4cf41"
TINY = HardSet(size=6, seed=3, num_candidates=3000, num_train=20, num_test=60, sha256=TINY_HASH)


def both(folder: Path) -> tuple[PuzzleDataset, PuzzleDataset]:
    return open_dataset(folder, "train"), open_dataset(folder, "test")


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_generated_dataset(tmp_path: Path) -> None:
    report = build.build_sudokus(
        output_dir=tmp_path / "made", size=4, count=60, test_count=25, blanks=9, seed=1, num_aug=3, workers=2
    )
    train, test = both(tmp_path / "made")
    assert (train.num_rows, train.num_groups, test.num_rows, test.num_groups) == (240, 60, 25, 25)
    assert (train.info.vocab_size, train.info.seq_len, train.info.ignore_label_id) == (6, 16, 0)
    assert (train.about.kind, train.about.height, train.about.seed, train.about.is_proxy) == ("sudoku", 4, 1, False)
    assert train.identifiers == ["<blank>"]
    for dataset in (train, test):
        (part,) = dataset.sets
        assert BOARDS["sudoku"].are_valid(part.inputs, part.labels).all()
        assert (solve(part.inputs).num_solutions == 1).all()
        assert ((part.inputs == 1).sum(axis=1) == 9).all()
    assert (len(report.train_ratings), report.num_train_rows, len(report.test_ratings)) == (60, 240, 25)
    assert report.num_left_out == 0
    assert report.description == "generated 4x4 Sudokus, 9 blanks"


def test_no_row_of_training_is_a_test_puzzle(tmp_path: Path) -> None:
    """With one blank there are 4,608 puzzles of 4x4, so that chance alone would let hundreds of variants meet."""
    build.build_sudokus(output_dir=tmp_path / "made", size=4, count=500, test_count=1500, blanks=1, seed=1, num_aug=4)
    train, test = both(tmp_path / "made")
    rows, held_out = ({row.tobytes() for row in part.sets[0].inputs} for part in (train, test))
    assert len(held_out) == 1500
    assert rows & held_out == set()
    with pytest.raises(DataError, match="are test puzzles however often they are drawn"):
        build.build_sudokus(output_dir=tmp_path / "full", size=4, count=8, test_count=4600, blanks=1, seed=1, num_aug=4)
    assert not (tmp_path / "full").exists()


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    wanted = {"size": 6, "count": 30, "test_count": 10, "blanks": 20, "num_aug": 2}
    for name, seed, workers in (("a", 1, 1), ("b", 1, 3), ("c", 2, 1)):
        build.build_sudokus(output_dir=tmp_path / name, seed=seed, workers=workers, **wanted)
    assert files(tmp_path / "a") == files(tmp_path / "b")
    assert open_dataset(tmp_path / "a", "test").fingerprint != open_dataset(tmp_path / "c", "test").fingerprint
    build.build_sudokus(output_dir=tmp_path / "more", seed=1, **{**wanted, "count": 40, "num_aug": 0})
    a, more = both(tmp_path / "a"), both(tmp_path / "more")
    np.testing.assert_array_equal(a[1].sets[0].inputs, more[1].sets[0].inputs)
    np.testing.assert_array_equal(a[0].sets[0].inputs[::3], more[0].sets[0].inputs[:30])


def test_ratings_are_the_guesses_and_variants_have_their_originals(tmp_path: Path) -> None:
    report = build.build_sudokus(
        output_dir=tmp_path / "hard", size=9, count=12, test_count=4, seed=3, min_difficulty=5, num_aug=1
    )
    train, test = both(tmp_path / "hard")
    ratings, held_out = train.sets[0].ratings, test.sets[0].ratings
    assert ratings is not None
    assert held_out is not None
    assert min(ratings.min(), held_out.min()) >= 5
    np.testing.assert_array_equal(ratings[::2], ratings[1::2])
    np.testing.assert_array_equal(solve(test.sets[0].inputs).guesses, held_out)
    assert report.test_ratings.min() == held_out.min()
    assert report.test_ratings.max() == held_out.max()


@pytest.fixture
def csv(tmp_path: Path) -> Path:
    """A file of 50 puzzles with ratings 0 to 49."""
    puzzles = Puzzles.joined(list(generate(6, 50, seed=5)))
    path = tmp_path / "train.csv"
    path.write_text(written(Puzzles(puzzles.inputs, puzzles.labels, np.arange(50))))
    return path


def ratings(dataset: PuzzleDataset) -> list[int]:
    found = dataset.sets[0].ratings
    assert found is not None
    return [int(rating) for rating in found]


def test_a_csv_file_is_held_out_from_and_drawn_from(csv: Path, tmp_path: Path) -> None:
    report = build.build_sudokus(
        output_dir=tmp_path / "d", csv=csv, test_count=5, subsample_size=20, min_difficulty=10, num_aug=1, seed=2
    )
    train, test = both(tmp_path / "d")
    assert (train.num_rows, train.num_groups, test.num_rows) == (40, 20, 5)
    assert set(ratings(train)).isdisjoint(ratings(test))
    assert min(ratings(train) + ratings(test)) >= 10
    assert (train.about.height, report.description) == (6, "6x6 Sudokus of train.csv")
    build.build_sudokus(
        output_dir=tmp_path / "e", csv=csv, test_count=5, subsample_size=20, min_difficulty=10, num_aug=1, seed=2
    )
    assert files(tmp_path / "d") == files(tmp_path / "e")
    build.build_sudokus(output_dir=tmp_path / "f", csv=csv, test_count=5, seed=3)
    assert sorted(ratings(open_dataset(tmp_path / "f", "train")) + ratings(open_dataset(tmp_path / "f", "test"))) == [
        *range(50)
    ]


def test_two_csv_files_and_what_stands_in_both(csv: Path, tmp_path: Path) -> None:
    lines = csv.read_text().splitlines(keepends=True)
    test_csv = tmp_path / "test.csv"
    test_csv.write_text("".join([lines[0], *lines[3:8]]))
    report = build.build_sudokus(output_dir=tmp_path / "d", csv=csv, test_csv=test_csv)
    train, test = both(tmp_path / "d")
    assert (report.num_left_out, train.num_rows, ratings(test)) == (5, 45, [2, 3, 4, 5, 6])
    build.build_sudokus(output_dir=tmp_path / "e", csv=csv, test_csv=test_csv, test_count=2)
    assert open_dataset(tmp_path / "e", "test").num_rows == 2


def test_a_csv_file_needs_something_to_evaluate_on(csv: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="add --test-csv FILE or --test-count M"):
        build.build_sudokus(output_dir=tmp_path / "d", csv=csv)
    with pytest.raises(DataError, match="has 45 puzzles to choose from, but 46"):
        build.build_sudokus(output_dir=tmp_path / "d", csv=csv, test_count=5, subsample_size=46)
    with pytest.raises(DataError, match="no rows were left for the test split"):
        build.build_sudokus(output_dir=tmp_path / "d", csv=csv, test_csv=csv, min_difficulty=50)
    with pytest.raises(DataError, match="no rows were left for the train split"):
        build.build_sudokus(output_dir=tmp_path / "d", csv=csv, test_csv=csv)
    with pytest.raises(ConfigError, match="--test-count"):
        build.build_sudokus(output_dir=tmp_path / "d", size=4, count=1, test_count=0)
    csv.write_text(csv.read_text().replace("made", "x", 1) + "made,1,1,1\n")
    with pytest.raises(DataError, match=r"train\.csv, line 52: the question has 1 characters"):
        build.build_sudokus(output_dir=tmp_path / "d", csv=csv, test_count=5)
    assert {path.name for path in tmp_path.iterdir()} == {"train.csv"}


def test_an_existing_folder_is_refused_before_any_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def work(*_: object, **__: object) -> None:
        pytest.fail("puzzles were made for a folder that is refused")

    build.build_sudokus(output_dir=tmp_path / "d", size=4, count=3, test_count=3)
    before = files(tmp_path / "d")
    monkeypatch.setattr(build, "make_hard_set", work)
    with pytest.raises(DataError, match="exists already"):
        build.build_sudokus(output_dir=tmp_path / "d", hard_proxy=True)
    assert files(tmp_path / "d") == before
    build.build_sudokus(output_dir=tmp_path / "d", size=4, count=4, test_count=3, replace=True)
    assert open_dataset(tmp_path / "d", "train").num_rows == 4


def test_a_failure_midway_leaves_nothing(tmp_path: Path) -> None:
    def fail(done: int, total: int) -> None:
        if done > 2000:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build.build_sudokus(output_dir=tmp_path / "d", size=6, count=50_000, test_count=10, workers=2, progress=fail)
    assert list(tmp_path.iterdir()) == []


KILLED = """
import os, signal, sys
from pathlib import Path
from hrm_engine.data.puzzles.sudoku.build import build_sudokus
def die(done, total):
    if done > 5000:
        os.kill(os.getpid(), signal.SIGKILL)
build_sudokus(output_dir=Path(sys.argv[1]), size=6, count=100_000, test_count=10, progress=die)
"""


def test_a_kill_midway_leaves_no_dataset_and_the_next_build_no_rest(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / "d")], check=False)
    assert done.returncode == -9
    assert not (tmp_path / "d").exists()
    build.build_sudokus(output_dir=tmp_path / "d", size=4, count=3, test_count=3)
    assert [path.name for path in tmp_path.iterdir()] == ["d"]


def test_a_hard_set_is_the_hardest_of_its_candidates() -> None:
    told: list[tuple[int, int]] = []
    train, test = make_hard_set(TINY, workers=2, progress=lambda *at: told.append(at))
    assert (len(train), len(test), told[-1]) == (20, 60, (3000, 3000))
    everything = Puzzles.joined(list(candidate_blocks(6, blanks=None, seed=3, num_candidates=3000)))
    _, first = np.unique(everything.inputs, axis=0, return_index=True)
    expected = np.sort(everything.ratings[first])[::-1][:80]
    assert sorted([*train.ratings, *test.ratings], reverse=True) == expected.tolist()
    keys = {row.tobytes() for row in np.concatenate([train.inputs, test.inputs])}
    assert len(keys) == 80
    assert train.ratings.min() < test.ratings.max(), "both are a fair draw"


def test_a_hard_set_is_frozen_by_its_hash(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"has the hash [0-9a-f]{64}, and .* is recorded"):
        build.build_sudokus(output_dir=tmp_path / "d", hard_proxy=True, recipe=replace(TINY, seed=4))
    with pytest.raises(DataError, match="do not give 80 different puzzles"):
        make_hard_set(replace(TINY, num_candidates=50))
    assert list(tmp_path.iterdir()) == []
    report = build.build_sudokus(output_dir=tmp_path / "d", hard_proxy=True, recipe=TINY, num_aug=2, seed=9)
    train, test = both(tmp_path / "d")
    assert (train.num_rows, train.num_groups, test.num_rows) == (60, 20, 60)
    for dataset in (train, test):
        assert dataset.about.is_proxy
        assert "proxy" in dataset.about.description
        assert "not comparable" in dataset.about.description
    assert report.is_proxy
    part = train.sets[0]
    assert part.ratings is not None
    originals = Puzzles(np.array(part.inputs[::3]), np.array(part.labels[::3]), part.ratings[::3].astype(np.int64))
    held_out = test.sets[0]
    assert held_out.ratings is not None
    tests = Puzzles(np.array(held_out.inputs), np.array(held_out.labels), held_out.ratings.astype(np.int64))
    assert puzzles_hash(originals, tests) == TINY.sha256


def test_the_shipped_recipe() -> None:
    assert (HARD_PROXY.size, HARD_PROXY.num_train, HARD_PROXY.num_test) == (9, 1000, 10_000)
    assert len(HARD_PROXY.sha256) == 64
