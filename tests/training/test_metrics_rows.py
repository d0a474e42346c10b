"""The rows that a trainer writes are those of the table in the code, with its fields; the observer sees the same."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from hrm_engine.config import PuzzleTrainConfig, build_config
from hrm_engine.data.puzzles.arc.build import build_arc
from hrm_engine.store.metric_table import ENVELOPE, EVENTS, METRICS
from hrm_engine.store.reader import MetricsReader
from hrm_engine.training import Trainer, train
from hrm_engine.training.monitor import system_figures
from tests.tiny_puzzles import PUZZLE_SETTINGS
from tests.tiny_runs import Lab, row_of, rows
from tests.training.expert_runs import train_expert
from tests.training.hungry import hungry

EVERY_SESSION = {"start", "train", "eval", "sample", "checkpoint", "final"}
# Only where there is a GPU.
ON_A_GPU = {("train", "memory_gpu_bytes"), ("system", "gpu_percent"), ("system", "gpu_memory_bytes")}


def written(run_dirs: list[Path]) -> dict[str, set[str]]:
    """Fields by event, envelope aside."""
    found: dict[str, set[str]] = {}
    for run_dir in run_dirs:
        for row in rows(run_dir):
            found.setdefault(row["event"], set()).update(row.keys() - ENVELOPE.keys())
    return found


def everything(lab: Lab) -> list[Path]:
    """Run folders that hold every event a trainer can write."""
    lab.interrupted("run", 3, use_moe=True, h_cycles=2, grad_calls_warmup=0.5)
    lab.resume("run")
    with hungry(lab, "trouble", most_rows=8, steps=60) as trainer:
        trainer.evaluate()
        for _ in range(50):
            trainer.step()
        trainer.state.recent_losses = [1e-6] * 50
        trainer.step()  # a spike against those
        head = trainer.setup.model.lm_head.weight
        with torch.no_grad():
            head[0, 0] = math.nan
        trainer.step()
        trainer.evaluate()  # no number, which is worse than at the start
        trainer.task.most_rows = 1
        trainer.step()  # memory for one row alone
        trainer.journal.write("system", trainer.step_number, **system_figures(trainer.run_dir, trainer.setup.device))
        trainer.finish()
    expert = train_expert(lab, "helper", steps=1).run_dir
    return [lab.run_dir("run"), lab.run_dir("trouble"), arc_run(lab), expert]


def arc_run(lab: Lab) -> Path:
    """A puzzle run with the fields that only ARC and Q-learning have."""
    tasks = lab.root / "tasks" / "evaluation"
    tasks.mkdir(parents=True)
    pair = {"input": [[1, 2], [3, 4]], "output": [[2, 1], [4, 3]]}
    (tasks / "abcd1234.json").write_text(json.dumps({"train": [pair], "test": [pair]}))
    build_arc(output_dir=lab.root / "arc", source=[str(tasks)], num_aug=0, seed=0)
    settings = {**PUZZLE_SETTINGS, "data_path": "arc", "arch": "hrm", "halt_max_steps": 2, "batch_size": 1, "steps": 2}
    config = build_config(PuzzleTrainConfig, overrides=settings)
    train(config, workspace=lab.workspace)
    return train(config, resume=True, given={"steps": 3}, workspace=lab.workspace).run_dir


def test_table_and_rows_agree(lab: Lab) -> None:
    found = written(everything(lab))
    declared = {event: {name for name, metric in METRICS.items() if event in metric.events} for event in EVENTS}
    assert found.keys() == EVENTS.keys()
    for event, fields in found.items():
        missing = {name for name in declared[event] - fields if (event, name) not in ON_A_GPU}
        assert (event, fields - declared[event]) == (event, set())
        assert (event, missing) == (event, set())


@pytest.mark.parametrize("freeze_positions", [0, 1])
@pytest.mark.parametrize("use_moe", [False, True])
def test_the_loss_that_is_told_is_the_one_that_is_minimised(lab: Lab, freeze_positions: int, use_moe: bool) -> None:
    how = {"halt_max_steps": 4, "batch_size": 4, "amp": False, "freeze_positions": freeze_positions}
    with Trainer(lab.config(brain_name="run", use_moe=use_moe, **how), workspace=lab.workspace) as trainer:
        minimised: list[float] = []

        def backward(loss: Tensor) -> None:
            minimised.append(float(loss.detach()))
            loss.backward()

        # two micro-batches of different numbers of labels and stopped positions
        measured = trainer.task.work(trainer.state, 3, checkpointing=False).run(backward)
        trainer.task.count(measured.numbers.tolist(), measured.counts, trainer.state)
        told = trainer.task.describe(measured.numbers.tolist(), measured.counts, 1.0, trainer.state)
    assert (told["act_steps_mean"] < 4) == bool(freeze_positions)
    assert told["loss"] == pytest.approx(sum(minimised), rel=1e-5)
    assert told["ce"] == pytest.approx(float(measured.loss), rel=1e-5)
    # a fresh halting head says 0.5 everywhere, and a fresh network gains nothing by another segment
    assert told["halt_loss"] == pytest.approx(math.log(2), rel=0.01)


def test_the_numbers_of_a_step(lab: Lab) -> None:
    result = lab.train(
        "run", halt_max_steps=3, freeze_positions=0, gradient_accumulation_steps=2, dataset_start_offset=3
    )
    first, second = [row for row in rows(result.run_dir) if row["event"] == "train"][:2]
    assert (first["step"], first["rows"], second["rows"]) == (1, 4, 8)
    assert (first["effective_batch_size"], first["dataset_position"], first["epoch"]) == (4, 7, 0)
    assert first["token_segments"] == 3 * first["tokens"]
    assert first["act_steps_mean"] == 3.0
    assert 0 < first["tokens"] <= 4 * 16
    assert second["tokens"] > first["tokens"]
    # what is minimised: the cross-entropy, and 0.05 of the halting loss for each of the two decisions
    assert first["loss"] == pytest.approx(first["ce"] + 0.05 * 2 * first["halt_loss"])
    assert first["token_segments_per_s"] == pytest.approx(3 * first["tokens_per_s"])
    assert first["step_time_s"] == pytest.approx(first["tokens"] / first["tokens_per_s"])
    assert first["lr"] == pytest.approx(3e-3 * (0.1 + 0.9 * (1 + math.cos(math.pi / 6)) / 2))
    evaluation = row_of(result.run_dir, "eval")
    assert evaluation["loss"] == evaluation["loss_by_segment"][-1]
    assert evaluation["perplexity"] == pytest.approx(math.exp(evaluation["loss"]))
    assert len(evaluation["loss_by_segment"]) == len(evaluation["token_accuracy_by_segment"]) == 3
    assert row_of(result.run_dir, "final")["loss"] == evaluation["loss"]
    assert result.first_eval is not None
    assert evaluation["loss"] < result.first_eval["loss"]


def test_the_observer_sees_what_is_written(lab: Lab) -> None:
    seen: list[dict[str, Any]] = []
    result = train(lab.config(brain_name="run"), workspace=lab.workspace, observer=seen.append)
    plain = [{name: value for name, value in row.items() if name != "ts"} for row in rows(result.run_dir)]
    assert json.loads(json.dumps(seen)) == plain
    assert seen[0]["event"] == "start"
    assert seen[0]["num_parameters"] == sum(p.numel() for p in parameters(lab))


def parameters(lab: Lab) -> Any:
    from hrm_engine.bundles.load import load_bundle

    return load_bundle("run", workspace=lab.workspace).model.parameters()


def test_without_evaluation_there_is_none(lab: Lab) -> None:
    result = lab.train("run", eval_batches=0)
    assert EVERY_SESSION - written([result.run_dir]).keys() == {"eval", "sample"}
    assert (result.first_eval, result.last_eval, result.sample) == (None, None, None)
    # documents are held out all the same
    assert row_of(result.run_dir, "start")["num_held_out_documents"] >= 1


def test_the_result_tells_what_the_rows_tell(lab: Lab) -> None:
    result = lab.trained("run")
    evaluations = [row for row in rows(result.run_dir) if row["event"] == "eval"]
    assert result.first_eval is not None
    assert result.last_eval is not None
    assert (result.first_eval["loss"], result.last_eval["loss"]) == (evaluations[0]["loss"], evaluations[-1]["loss"])
    sample = row_of(result.run_dir, "sample")
    assert result.sample == sample["prompt"] + sample["text"]


def test_readers_pass_over_what_a_resume_has_overtaken(lab: Lab) -> None:
    def observe(row: dict[str, Any]) -> None:
        if row["event"] == "train" and row["step"] == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(lab.config(brain_name="run", save_every=3), workspace=lab.workspace, observer=observe)
    lab.resume("run")
    assert [row["step"] for row in rows(lab.run_dir("run")) if row["event"] == "train"] == [1, 2, 3, 4, 5, 4, 5, 6]
    reader = MetricsReader(lab.run_dir("run") / "metrics.jsonl")
    reader.refresh()
    assert reader.skipped_lines == 0
    assert list(reader.rows("train")["step"]) == [1, 2, 3, 4, 5, 6]


def test_a_copy_of_the_metrics_is_shared_by_runs(lab: Lab) -> None:
    for name in ("one", "two"):
        lab.train(name, log_file="all.jsonl", steps=1, eval_batches=0)
    copied = [json.loads(line) for line in (lab.root / "all.jsonl").read_text().splitlines()]
    assert copied == rows(lab.run_dir("one")) + rows(lab.run_dir("two"))
    assert len({row["run_id"] for row in copied}) == 2


def test_a_torn_last_row_is_removed_on_resuming(lab: Lab) -> None:
    path = lab.interrupted("run", 3).run_dir / "metrics.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"ts":"2026-01-01","run_id":"x","ev')
    lab.resume("run")
    assert path.read_bytes().startswith(whole + b'{"ts":')
    assert all(json.loads(line) for line in path.read_text().splitlines())


def test_what_was_odd_about_the_data_is_told_and_stored(lab: Lab) -> None:
    lab.text.write_bytes(lab.text.read_bytes() + b"\n\nbroken \xff\xfe bytes\n\nna\xc3\xafve and plain\nplain\n")
    result = lab.train("run", ascii_only=True, steps=1, eval_batches=0)
    messages = row_of(result.run_dir, "start")["messages"]
    assert any("2 characters" in m and "cannot be read and were replaced" in m for m in messages)
    assert any("lines with non-ASCII characters were dropped (--ascii-only)" in message for message in messages)
    log = (result.run_dir / "run.log").read_text()
    assert all(message in log for message in messages)
