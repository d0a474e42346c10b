"""ARC datasets: every row is the same transform of input and output, and can be brought back to its task."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hrm_engine.data.puzzles.arc import build
from hrm_engine.data.puzzles.arc.augment import IDENTITY, parse_identifier
from hrm_engine.data.puzzles.arc.build import ArcReport, build_arc, demonstration_order
from hrm_engine.data.puzzles.arc.grids import SIDE, crop, encode
from hrm_engine.data.puzzles.format import PuzzleDataset, open_dataset
from hrm_engine.errors import ConfigError, DataError
from hrm_engine.store.paths import Workspace
from tests import arc_tasks

ROOT = Path(__file__).parents[3]
NUM_AUG = 12


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return arc_tasks.write_tasks(tmp_path_factory.mktemp("arc"))


@pytest.fixture(scope="module")
def built(source: Path) -> tuple[Path, ArcReport]:
    folder = source.parent / "built"
    return folder, build_arc(output_dir=folder, source=[str(source)], num_aug=NUM_AUG)


def puzzles(dataset: PuzzleDataset) -> list[tuple[str, np.ndarray, np.ndarray]]:
    """(identifier, inputs, labels) of every puzzle."""
    (part,) = dataset.sets
    assert dataset.identifiers is not None
    return [
        (dataset.identifiers[identifier], part.inputs[first:end], part.labels[first:end])
        for identifier, first, end in zip(
            part.puzzle_identifiers, part.puzzle_indices[:-1], part.puzzle_indices[1:], strict=True
        )
    ]


def tasks_of(source: Path) -> dict[str, dict[str, Any]]:
    return {path.stem: json.loads(path.read_text()) for path in source.rglob("*.json")}


def moved_back(rows: tuple[np.ndarray, np.ndarray]) -> tuple[list[np.ndarray], tuple[int, int]]:
    """Boards with what both hold moved to the upper left corner, cropped; and from where."""
    boards = [row.reshape(SIDE, SIDE) for row in rows]
    colours = (boards[0] > 1) | (boards[1] > 1)
    corner = int(colours.any(axis=1).argmax()), int(colours.any(axis=0).argmax())
    grids = []
    for board in boards:
        moved = np.zeros_like(board)
        moved[: SIDE - corner[0], : SIDE - corner[1]] = board[corner[0] :, corner[1] :]
        grids.append(crop(moved.reshape(-1)))
    return grids, corner


def test_report_and_shape(built: tuple[Path, ArcReport]) -> None:
    folder, report = built
    train, test = (open_dataset(folder, split) for split in ("train", "test"))
    assert (report.num_training_tasks, report.num_evaluation_tasks, report.num_copies) == (2, 2, 0)
    assert report.num_puzzles == 4 * (NUM_AUG + 1) == train.info.num_puzzle_identifiers - 1
    assert report.num_train_rows == train.num_rows == (3 + 1 + 3 + 1 + 3 + 3) * (NUM_AUG + 1)
    assert report.num_test_rows == test.num_rows == (1 + 2) * (NUM_AUG + 1)
    assert (train.num_groups, test.num_groups, report.num_short) == (4, 2, 0)
    assert report.num_bytes == sum(map(len, files_of(folder).values()))
    for dataset in (train, test):
        assert (dataset.info.vocab_size, dataset.info.seq_len) == (12, 900)
        assert dataset.info.pad_id == dataset.info.ignore_label_id == dataset.info.blank_identifier_id == 0
        assert (dataset.about.kind, dataset.about.height, dataset.about.seed) == ("arc", 30, 42)
        assert np.diff(dataset.sets[0].group_indices).tolist() == [NUM_AUG + 1] * dataset.num_groups
        assert dataset.identifiers is not None
        assert dataset.identifiers[0] == "<blank>"
        assert len(set(dataset.identifiers)) == len(dataset.identifiers)


def test_every_row_leads_back_to_its_pair(built: tuple[Path, ArcReport], source: Path) -> None:
    tasks = tasks_of(source)
    seen = Counter[tuple[str, str]]()
    corners = Counter[tuple[int, int]]()
    for split in ("train", "test"):
        for identifier, inputs, labels in puzzles(open_dataset(built[0], split)):
            name, augmentation = parse_identifier(identifier)
            demonstrations, tests = tasks[name]["train"], tasks[name]["test"]
            if split == "test":
                expected = tests
            else:
                expected = demonstrations if name.startswith("evalu") else demonstrations + tests
            assert len(inputs) == len(expected)
            at_corner = 0
            for *rows, pair in zip(inputs, labels, expected, strict=True):
                grids, corner = moved_back((rows[0], rows[1]))
                assert [augmentation.undo(grid).tolist() for grid in grids] == [pair["input"], pair["output"]]
                # Both lie at the same place, with their end marks: the row can be written anew from it.
                for row, grid in zip(rows, grids, strict=True):
                    np.testing.assert_array_equal(row, encode(grid, *corner))
                at_corner += corner == (0, 0)
                corners[corner] += split == "train"
            assert at_corner == len(expected) if split == "test" else at_corner >= 1
            seen[split, name] += 1
    assert set(seen.values()) == {NUM_AUG + 1}
    # Rows were moved, to many places, as far as the other side.
    assert len(corners) > 50
    assert max(row for row, _ in corners) > 18


def test_the_answers_of_evaluation_tasks_are_only_in_the_test_split(
    built: tuple[Path, ArcReport], source: Path
) -> None:
    answers = {
        encode(np.array(pair["output"], dtype=np.uint8)).tobytes()
        for name, task in tasks_of(source).items()
        if name.startswith("evalu")
        for pair in task["test"]
    }
    rows = {
        split: {encode(moved_back((row, row))[0][0]).tobytes() for row in open_dataset(built[0], split).sets[0].labels}
        for split in ("train", "test")
    }
    assert answers <= rows["test"]
    assert not answers & rows["train"]


def test_test_puzzles_are_the_evaluation_tasks_as_they_were(built: tuple[Path, ArcReport], source: Path) -> None:
    found = json.loads((built[0] / "test_puzzles.json").read_text())
    assert found == {name: task for name, task in tasks_of(source).items() if name.startswith("evalu")}


def test_augmentations_of_a_task_are_the_same_in_both_splits(built: tuple[Path, ArcReport]) -> None:
    train, test = (open_dataset(built[0], split).sets[0] for split in ("train", "test"))
    assert set(test.puzzle_identifiers.tolist()) < set(train.puzzle_identifiers.tolist())


def test_same_seed_same_bytes_whatever_else_is_built(source: Path, tmp_path: Path) -> None:
    build_arc(output_dir=tmp_path / "a", source=[str(source)], num_aug=3)
    build_arc(output_dir=tmp_path / "b", source=[source.name], num_aug=3, workspace=Workspace(source.parent))
    build_arc(output_dir=tmp_path / "other", source=[str(source)], num_aug=3, seed=1)
    a, b, other = (files_of(tmp_path / name) for name in ("a", "b", "other"))
    for files in (a, b):
        files.pop("about.json")  # its description names the source as it was given
    assert a == b
    assert a["train/all__inputs.npy"] != other["train/all__inputs.npy"]
    build_arc(output_dir=tmp_path / "part", source=[str(source / "evaluation")], num_aug=3)
    whole, part = (puzzles(open_dataset(tmp_path / name, "test")) for name in ("a", "part"))
    assert [name for name, *_ in whole] == [name for name, *_ in part]
    for (_, *first), (_, *second) in zip(whole, part, strict=True):
        np.testing.assert_array_equal(first, second)


def test_order_variants_permute_the_demonstrations_of_augmentations(source: Path, tmp_path: Path) -> None:
    for name, order_variants in (("plain", False), ("ordered", True)):
        build_arc(
            output_dir=tmp_path / name, source=[str(source)], num_aug=NUM_AUG, order_variants=order_variants, seed=7
        )
    plain, ordered = (puzzles(open_dataset(tmp_path / name, "train")) for name in ("plain", "ordered"))
    differing = 0
    for (identifier, *first), (_, *second) in zip(plain, ordered, strict=True):
        order = demonstration_order(identifier, 3, 7)
        if parse_identifier(identifier)[1] == IDENTITY:
            order = np.arange(3)
        for before, after in zip(first, second, strict=True):
            np.testing.assert_array_equal(after[:3][np.argsort(order)], before[:3])
            np.testing.assert_array_equal(after[3:], before[3:])
        differing += order.tolist() != [0, 1, 2]
    assert differing > NUM_AUG
    plain_files, ordered_files = (files_of(tmp_path / name) for name in ("plain", "ordered"))
    assert {name for name in plain_files if plain_files[name] != ordered_files[name]} == {
        "about.json",
        "train/all__inputs.npy",
        "train/all__labels.npy",
    }


def test_tasks_without_answers_and_without_evaluation(tmp_path: Path) -> None:
    folder = tmp_path / "kaggle"
    folder.mkdir()
    for seed, part in enumerate(("training", "test")):
        task = arc_tasks.task_json(seed)
        del task["test"][0]["output"]
        (folder / f"{part}_challenges.json").write_text(json.dumps({part: task}))
    build_arc(output_dir=tmp_path / "both", source=[str(folder)], num_aug=2)
    train, test = (open_dataset(tmp_path / "both", split) for split in ("train", "test"))
    assert not np.any(test.sets[0].labels)  # padding carries no loss
    assert np.all(np.any(test.sets[0].inputs, axis=1))
    assert np.all(np.any(train.sets[0].labels, axis=1))
    assert train.num_rows == 3 * (3 + 3)
    (folder / "test_challenges.json").unlink()
    report = build_arc(output_dir=tmp_path / "training", source=[str(folder)], num_aug=2)
    assert (report.num_evaluation_tasks, report.num_test_rows) == (0, 0)
    assert {path.name for path in (tmp_path / "training").iterdir()} == {"about.json", "identifiers.json", "train"}


def test_short_tasks_are_counted(tmp_path: Path) -> None:
    (tmp_path / "tasks").mkdir()
    pair = {"input": [[1]], "output": [[1]]}
    (tmp_path / "tasks" / "dot.json").write_text(json.dumps({"train": [pair], "test": [pair]}))
    report = build_arc(output_dir=tmp_path / "built", source=[str(tmp_path / "tasks")], num_aug=20)
    assert (report.num_short, report.num_puzzles, report.num_train_rows) == (1, 9, 18)
    assert build_arc(output_dir=tmp_path / "none", source=[str(tmp_path / "tasks")], num_aug=0).num_short == 0


def test_an_interrupted_build_leaves_nothing(source: Path, tmp_path: Path) -> None:
    def interrupt(done: int, total: int) -> None:
        assert total == 4
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_arc(output_dir=tmp_path / "built", source=[str(source)], num_aug=2, progress=interrupt)
    assert list(tmp_path.iterdir()) == []
    build_arc(output_dir=tmp_path / "built", source=[str(source)], num_aug=2)
    before = files_of(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        build_arc(output_dir=tmp_path / "built", source=[str(source)], num_aug=3, progress=interrupt, replace=True)
    with pytest.raises(DataError, match="exists"):
        build_arc(output_dir=tmp_path / "built", source=[str(source)], num_aug=3)
    assert files_of(tmp_path) == before
    build_arc(output_dir=tmp_path / "built", source=[str(source)], num_aug=3, replace=True)
    assert open_dataset(tmp_path / "built", "test").num_rows == 3 * 4


def test_bad_settings(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--num-aug.*-1"):
        build_arc(output_dir=tmp_path / "built", source=["x"], num_aug=-1)
    with pytest.raises(ConfigError, match="--source"):
        build_arc(output_dir=tmp_path / "built", source=[])
    with pytest.raises(DataError, match="not a folder"):
        build.build_arc(output_dir=tmp_path / "built", source=["nowhere"], workspace=Workspace(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_a_killed_build_is_put_away_by_the_next_which_is_whole(source: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from hrm_engine.data.puzzles.arc.build import build_arc\n"
        "build_arc(output_dir=Path(sys.argv[1]), source=[sys.argv[2]], num_aug=400, "
        "progress=lambda *done: print(done, flush=True))"
    )
    build_dir = tmp_path / "work"
    words = [sys.executable, "-c", code, str(build_dir / "arc"), str(source)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, cwd=ROOT) as killed:
        assert killed.stdout is not None
        assert killed.stdout.readline() == b"(1, 4)\n"
        killed.kill()
    (left,) = build_dir.iterdir()
    assert left.name.startswith(".tmp-")
    build_arc(output_dir=build_dir / "arc", source=[str(source)], num_aug=NUM_AUG)
    assert [path.name for path in build_dir.iterdir()] == ["arc"]
    build_arc(output_dir=tmp_path / "straight", source=[str(source)], num_aug=NUM_AUG)
    assert files_of(build_dir / "arc") == files_of(tmp_path / "straight")
