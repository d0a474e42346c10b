"""Memory that runs out: the micro-batch halves, the step stays the same; with one row left the run ends."""

from __future__ import annotations

import json

import pytest

from hrm_engine.errors import OutOfMemoryError
from hrm_engine.store.status import read_status
from hrm_engine.training import Trainer
from tests.tiny_runs import Lab, lasting_rows, row_of, rows
from tests.training.hungry import HungryTask, hungry


def test_the_micro_batch_halves_at_the_same_effective_batch(lab: Lab) -> None:
    gradients = []
    for name, settings, most_rows in (
        ("whole", {"batch_size": 8}, 8),
        ("split", {"batch_size": 2, "gradient_accumulation_steps": 4}, 8),
        ("hungry", {"batch_size": 8}, 2),
    ):
        with hungry(lab, name, most_rows, steps=2, eval_batches=0, **settings) as trainer:
            report = trainer.step()
            gradients.append(float(report.update.grad_norm))
            assert (trainer.config.run.rows_per_step, trainer.state.rows) == (8, 8)
            trainer.step()
            trainer.finish()
    run_dir = lab.run_dir("hungry")
    assert [(row["step"], row["micro_batch_size"]) for row in rows(run_dir) if row["event"] == "oom"] == [
        (0, 4),
        (0, 2),
    ]
    assert "the micro-batch is 2 rows now, same effective batch" in (run_dir / "run.log").read_text()
    assert gradients[2] == gradients[1], "the same micro-batches give the same gradients"
    assert gradients[2] == pytest.approx(gradients[0], rel=1e-5)
    trained = [
        [row for row in lasting_rows(lab.run_dir(name)) if row["event"] == "train"] for name in ("split", "hungry")
    ]
    assert trained[0] == trained[1]


def test_an_odd_micro_batch_halves_down_to_one(lab: Lab) -> None:
    with hungry(lab, "run", 1, batch_size=7, steps=1, eval_batches=0) as trainer:
        trainer.step()
        trainer.finish()
    assert [row["micro_batch_size"] for row in rows(lab.run_dir("run")) if row["event"] == "oom"] == [3, 1]
    assert row_of(lab.run_dir("run"), "train")["effective_batch_size"] == 7


def test_a_resumed_run_keeps_the_smaller_micro_batch(lab: Lab) -> None:
    with hungry(lab, "run", 1, batch_size=4, steps=4, eval_batches=0) as trainer:
        trainer.step()
        trainer.save()
    lab.resume("run")
    state = json.loads((lab.run_dir("run") / "checkpoints" / "step_00000004" / "state.json").read_text())
    assert state["state"]["micro_batch_size"] == 1
    assert len([row for row in rows(lab.run_dir("run")) if row["event"] == "oom"]) == 2


def test_an_evaluation_that_needs_too_much_halves_too(lab: Lab) -> None:
    with hungry(lab, "run", 2, batch_size=4) as trainer:
        result = trainer.evaluate()
        trainer.finish()
    with hungry(lab, "whole", 4, batch_size=4) as trainer:
        whole = trainer.evaluate()
        trainer.finish()
    assert result is not None
    assert whole is not None
    assert [row["micro_batch_size"] for row in rows(lab.run_dir("run")) if row["event"] == "oom"] == [2]
    assert result.fields["num_tokens"] == whole.fields["num_tokens"]
    assert result.fields["loss"] == pytest.approx(whole.fields["loss"], rel=1e-6)


def test_gradients_give_their_memory_back_before_another_attempt(lab: Lab) -> None:
    held: list[bool] = []
    with hungry(lab, "run", 4, batch_size=4) as trainer:
        assert isinstance(trainer.task, HungryTask)
        trainer.step()
        trainer.task.most_rows = 2
        trainer.task.attempts = lambda: held.append(
            any(parameter.grad is not None for parameter in trainer.setup.model.parameters())
        )
        trainer.evaluate()
        trainer.finish()
    assert held[:2] == [True, False]


def test_at_one_row_the_run_ends_with_its_own_exit_code(lab: Lab) -> None:
    with (
        pytest.raises(OutOfMemoryError, match=r"micro-batch of one row.*shorter rows.*--use-8bit-optimizer") as raised,
        hungry(lab, "run", 0, batch_size=2) as trainer,
    ):
        trainer.step()
    assert raised.value.exit_code == 4
    status = read_status(lab.run_dir("run"))
    assert status is not None
    assert (status.state, status.step) == ("failed", 0)
    assert row_of(lab.run_dir("run"), "stop")["exit_code"] == 4


def test_other_failures_are_not_taken_for_memory(lab: Lab) -> None:
    def step_with_a_head_that_does_not_fit() -> None:
        with Trainer(lab.config(brain_name="run"), workspace=lab.workspace) as trainer:
            trainer.setup.model.lm_head.weight.data = trainer.setup.model.lm_head.weight.data[:, :-1]
            trainer.step()

    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        step_with_a_head_that_does_not_fit()
    assert [row["event"] for row in rows(lab.run_dir("run"))] == ["start", "stop"]
