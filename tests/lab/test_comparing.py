"""Comparisons: a training is made once, and differences are judged seed by seed."""

from __future__ import annotations

import pytest

from hrm_engine.store.reader import read_metrics
from hrm_engine.training import train
from lab.comparing import paired, train_once
from tests.tiny_runs import Lab, interrupter, rows


def test_a_training_of_the_same_settings_is_made_once(lab: Lab) -> None:
    config = lab.config(steps=2)
    folder = train_once(config, data="a", workspace=lab.workspace)
    assert folder.parent == lab.workspace.brains
    assert folder.name.startswith("comparison-")
    before = (folder / "metrics.jsonl").read_bytes()
    assert train_once(config, data="a", workspace=lab.workspace) == folder
    assert (folder / "metrics.jsonl").read_bytes() == before
    assert read_metrics(folder).rows("eval")["step"].iloc[-1] == 2
    assert train_once(config, data="b", workspace=lab.workspace) != folder, "of other data"
    assert train_once(lab.config(steps=1), data="a", workspace=lab.workspace) != folder, "of other settings"


def test_a_training_that_has_only_begun_goes_on(lab: Lab) -> None:
    config = lab.config(steps=4)
    name = train_once(config, workspace=lab.workspace).name
    straight = rows(lab.run_dir(name))
    lab.run_dir(name).rename(lab.root / "straight")
    train(lab.config(steps=4, brain_name=name), workspace=lab.workspace, observer=interrupter(2))
    folder = train_once(config, workspace=lab.workspace)
    assert folder.name == name
    events = [(row["event"], row["step"]) for row in rows(folder)]
    assert ("resume", 2) in events
    assert rows(folder)[-1]["loss"] == straight[-1]["loss"]


@pytest.mark.parametrize(
    ("values", "others", "options", "sentence"),
    [
        ([1.0, 2.0], [1.5, 2.4], {"unit": " nat"}, "-0.4500 nat (spread 0.0707, lower in 2 of 2 seeds): better"),
        ([1.5, 2.4], [1.0, 2.0], {}, "+0.4500 (spread 0.0707, lower in 0 of 2 seeds): worse"),
        ([0.9, 0.8], [0.4, 0.4], {"more_is_better": True}, "+0.4500 (spread 0.0707, higher in 2 of 2 seeds): better"),
        (
            [1.0, 2.0],
            [1.1, 1.9],
            {},
            "+0.0000 (spread 0.1414, lower in 1 of 2 seeds): no difference that these seeds can tell",
        ),
        (
            [1.0, 2.0],
            [1.1, 2.9],
            {},
            "-0.5000 (spread 0.5657, lower in 2 of 2 seeds): no difference that these seeds can tell",
        ),
        ([1.0], [2.0], {}, "-1.0000 (spread nan, lower in 1 of 1 seeds): no difference that these seeds can tell"),
        ([1.0], [1.0], {}, "+0.0000 (spread nan, lower in 0 of 1 seeds): no difference that these seeds can tell"),
    ],
)
def test_differences_are_judged_pair_by_pair(
    values: list[float], others: list[float], options: dict[str, object], sentence: str
) -> None:
    assert paired(values, others, **options) == sentence  # type: ignore[arg-type]
