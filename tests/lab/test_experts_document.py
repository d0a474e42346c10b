"""The commands of the document on subbrains, in its order, in one workspace; flags behind them make networks small."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from hrm_engine.store.experts import ExpertRegistry
from hrm_engine.store.goals import Goals
from lab.cli import aios
from tests.tiny_runs import REPOSITORY, with_base_model

TRAIN = (
    "hrm-hf train-actv1 --model artifacts/hf_implant/base_model "
    "--dataset-file training_data/curated_datasets/test_sample.txt"
)
SMALL = (
    "--hidden-size 64 --num-heads 2 --max-seq-len 32 --h-layers 1 --l-layers 1 --h-cycles 1 --l-cycles 1 "
    "--eval-batches 1 --eval-every 30"
)
BRAIN_LOG, EXPERT_LOG = "artifacts/brains/actv1/metrics.jsonl", "artifacts/experts/{}/metrics.jsonl"


def words(line: str, *more: str) -> list[str]:
    return [*line.split(), *more]


def test_every_command_of_the_document(workspace: Path, source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = with_base_model(workspace, source)
    sample = Path("training_data/curated_datasets/test_sample.txt")
    (workspace / sample).parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(REPOSITORY / sample, workspace / sample)

    def run(line: str, *more: str) -> str:
        assert aios.main(words(line, *more)) == 0
        return capsys.readouterr().out

    moe = "--use-moe --num-experts 8 --num-experts-per-tok 2"
    run(f"{TRAIN} --steps 20 --batch-size 8 {moe} --moe-capacity-factor 1.25 --log-file {BRAIN_LOG} {SMALL}")
    run(f"{TRAIN} --steps 20 --batch-size 8 --no-moe --log-file {BRAIN_LOG} {SMALL}")
    expert, goal = "test-expert-004", "Improve summarization quality"
    log = f"--log-file {EXPERT_LOG.format(expert)}"
    run(f"{TRAIN} --steps 3 --batch-size 2 --expert-id {expert} {log}", "--default-goal", goal)
    run("goals-add", goal, "--expert-id", expert)
    goals = Goals(place)
    while not goals.list_goals(active_only=False)[-1].id >= 42:  # the document's number stands for one that exists
        goals.add("another goal")
    run(f"goals-link-expert 42 {expert}")
    assert goal in run("goals-list")
    assert "another goal" in run(f"goals-list-for-expert {expert}")
    run(f"{TRAIN} --steps 30 --batch-size 4 {moe} --log-file {BRAIN_LOG} {SMALL}")
    demo, clarity = "demo-expert-001", "Focus on troubleshooting clarity"
    log = f"--log-file {EXPERT_LOG.format(demo)}"
    run(f"{TRAIN} --steps 3 --batch-size 2 --expert-id {demo} {log}", "--default-goal", clarity)
    assert clarity in run(f"goals-list-for-expert {demo}")

    assert [card.expert_id for card in ExpertRegistry(place).cards()] == [expert, demo]
    for name in (expert, demo):
        assert (workspace / "artifacts" / "experts" / name / "expert.safetensors").is_file()
    events = [json.loads(line) for line in (workspace / BRAIN_LOG).read_text().splitlines()]
    kinds = {name: (place.brains / name / "config.json") for name in ("default", "default-2", "default-3")}
    found = [json.loads(path.read_text())["feed_forward"] for path in kinds.values()]
    assert found == ["moe", "dense", "moe"]
    assert [row["step"] for row in events if row["event"] == "expert_usage"] == [
        step for last in (20, 30) for step in (1, 3, 10, last) for _ in range(2)
    ]
