"""Estimates against what real, tiny trainings then have and do; nothing of a trial is left."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import hrm_engine
from hrm_engine.config import TrainConfig
from hrm_engine.errors import BundleError, ConfigError, DataError
from hrm_engine.models.flops import step_flops
from hrm_engine.store.files import write_json
from hrm_engine.store.paths import Workspace
from hrm_engine.training import Trainer
from hrm_engine.training.costs import Stage
from hrm_engine.training.estimating.estimate import Estimate, estimate
from hrm_engine.training.estimating.step_memory import LiveBytes
from hrm_engine.training.estimating.trial import ANSWER_FILE, REQUEST_FILE, main, run_trial
from hrm_engine.training.tasks.puzzle import PuzzleTask
from hrm_engine.training.tasks.text import TextTask
from tests.tiny_puzzles import PuzzleLab
from tests.tiny_runs import Lab

CLOSE = 0.15
TEXT: list[dict[str, Any]] = [
    {"halt_max_steps": 2, "freeze_positions": 1.0},
    {"arch": "hrm", "grad_calls": "one_step", "optimizer": "adam_atan2", "ema_decay": 0.9},
    {"amp": False, "model_dtype": "bf16", "gradient_checkpointing": True, "window_size": 8},
    {"use_moe": True, "num_experts": 4, "batch_size": 8, "moe_capacity_factor": 0},
    {"optimizer": "muon", "pos_encodings": "learned", "halt_max_steps": 2, "freeze_positions": 0.0},
    {"use_8bit_optimizer": True},
]
PUZZLES: list[dict[str, Any]] = [
    {"ema_decay": 0.9},
    {"arch": "hrm", "h_cycles": 2, "gradient_accumulation_steps": 2},
    {"arch": "trm-mlp", "puzzle_tokens": 2, "grad_calls": 2},
    {"arch": "transformer", "l_cycles": 0, "halt_max_steps": 1, "use_moe": True, "num_experts": 4},
]


def names(settings: dict[str, Any]) -> str:
    return " ".join(f"{name}={value}" for name, value in settings.items()) or "default"


def of_experts(rows: Any, weight: Any, ends: Any, *, out_val: Any = None, **_: Any) -> int:
    return 2 * rows.shape[0] * rows.shape[1] * out_val.shape[-1]


def outer(left: Any, right: Any, ends: Any, *, out_val: Any = None, **_: Any) -> int:
    return 2 * left.shape[0] * left.shape[1] * right.shape[1]


for formula in (of_experts, outer):
    formula._get_raw = True  # type: ignore[attr-defined]


def counter() -> FlopCounterMode:
    """Torch's counter, which does not know the products of experts."""
    ours = torch.ops.hrm_lab
    mapping = {ours.expert_blocks: of_experts, ours.expert_outer_blocks: outer}
    return FlopCounterMode(display=False, custom_mapping=mapping)


def nbytes(tensors: Any) -> int:
    return sum(tensor.nbytes for tensor in tensors)


def assert_as_measured(config: TrainConfig, workspace: Workspace) -> None:
    """Parameters and bytes of what stays are equal; the peak of a step and its FLOPs are close."""
    found = estimate(config, workspace=workspace, measure=False)
    assert found.measured is None
    assert found.run_s is None
    with Trainer(config, workspace=workspace) as trainer:
        trainer.step()
        trainer.step()
        model = trainer.setup.model
        assert replace_scale(found) == trainer.task.core.model_copy(update={"embedding_scale": 1.0})
        assert found.parameters.total == sum(parameter.numel() for parameter in model.parameters())
        assert found.steps == trainer.total_steps
        assert (found.parameters.active < found.parameters.total) == bool(trainer.setup.model.experts)
        assert found.dtype == str(trainer.setup.precision.compute).removeprefix("torch.")
        own = {id(parameter) for parameter in model.parameters()}
        parameters = trainer.setup.weights.parameters.values()
        assert found.memory.weights == nbytes((*model.parameters(), *model.buffers()))
        assert found.memory.masters == nbytes(master for master in parameters if id(master) not in own)
        assert found.memory.gradients == nbytes(m.grad for m in parameters if m.grad is not None)
        assert found.memory.average == (
            0 if trainer.setup.average is None else nbytes(trainer.setup.average.state_tensors().values())
        )
        state = {name: t for name, t in trainer.setup.updater.state_tensors().items() if not name.endswith("step")}
        if found.memory.optimizer is not None:
            assert found.memory.optimizer == pytest.approx(nbytes(state.values()), abs=5000, rel=0.01)
        work = trainer.task.work(
            trainer.state, trainer.state.micro_batch_size, checkpointing=trainer.setup.checkpointing
        )
        with LiveBytes() as counted:
            work.run(torch.autograd.backward)
        assert found.memory.activations == pytest.approx(counted.peak, rel=CLOSE)
        work = trainer.task.work(
            trainer.state, trainer.state.micro_batch_size, checkpointing=trainer.setup.checkpointing
        )
        with counter() as flops:
            work.run(torch.autograd.backward)
        assert found.flops.total == pytest.approx(flops.get_total_flops(), rel=CLOSE)
        assert found.flops_per_run == found.steps * found.flops.total
        trainer.finish()


def replace_scale(found: Estimate) -> Any:
    """The network without what only the embeddings that are taken over say."""
    return found.core.model_copy(update={"embedding_scale": 1.0})


@pytest.mark.parametrize("settings", TEXT, ids=names)
def test_text(lab: Lab, settings: dict[str, Any]) -> None:
    given = {"max_seq_len": 32, "batch_size": 4, "halt_max_steps": 1, **settings}
    assert_as_measured(lab.config(brain_name="run", **given), lab.workspace)


@pytest.mark.parametrize("settings", PUZZLES, ids=names)
def test_puzzles(puzzle_lab: PuzzleLab, settings: dict[str, Any]) -> None:
    assert_as_measured(puzzle_lab.config(run_name="run", **settings), puzzle_lab.workspace)


def test_active_parameters(lab: Lab) -> None:
    found = estimate(lab.config(use_moe=True, num_experts=8), workspace=lab.workspace, measure=False)
    one = 3 * found.core.hidden_size * found.core.intermediate_size
    layers = found.core.h_layers + found.core.l_layers
    assert found.parameters.total - found.parameters.active == layers * (8 - 2) * one


def files(root: Path) -> set[str]:
    return {path.relative_to(root).as_posix() for path in root.rglob("*")}


def test_a_trial_of_text(lab: Lab) -> None:
    (lab.root / "artifacts" / "brains").mkdir()
    before = files(lab.root)
    config = lab.config(brain_name="run", steps=100, eval_every=50, save_every=20, log_file="log", stop_file="stop")
    found = hrm_engine.estimate(config, workspace=lab.workspace, limit_s=0.2)
    assert files(lab.root) == before
    trial = found.measured
    assert trial is not None
    assert trial.num_steps >= 1
    assert trial.micro_batch_size == 2
    assert 0 < trial.cpu_share <= 1
    assert trial.peak_bytes > trial.libraries_bytes > 50 << 20
    # so small a training takes little beside its libraries
    assert 0.5 < trial.peak_bytes / found.memory.process < 2
    assert trial.optimizer_bytes == pytest.approx(found.memory.optimizer, rel=0.01)
    assert min(trial.step_s[0], trial.start_s, trial.evaluation_s, trial.save_s, trial.finish_s) > 0
    rest = trial.start_s + trial.first_step_s + 3 * trial.evaluation_s + 5 * trial.save_s + trial.finish_s
    assert found.run_s == pytest.approx(100 * trial.step_s[0] + rest)
    content = json.loads(json.dumps(found.as_json()))
    assert content["parameters"]["total"] == found.parameters.total
    assert content["measured"]["num_steps"] == trial.num_steps
    assert content["memory"]["process"] > found.memory.total


def test_stages_are_those_of_the_trainer(lab: Lab, puzzle_lab: PuzzleLab) -> None:
    text = lab.config(steps=20, grad_calls="full", grad_calls_warmup=0.5, h_cycles=2, l_cycles=1)
    puzzles = puzzle_lab.config(
        steps=20, h_cycles=2, grad_calls="full", grad_calls_warmup=0.4, depth_curriculum="0:1x1,0.25:1x2,0.5:2x2"
    )
    for config, workspace in ((text, lab.workspace), (puzzles, puzzle_lab.workspace)):
        with Trainer(config, workspace=workspace) as trainer:
            plan = trainer.task.costs(config, trainer.task.core).stages(20)
            assert [stage.first for stage in plan] == [sum(s.num_steps for s in plan[:n]) for n in range(len(plan))]
            assert sum(stage.num_steps for stage in plan) == 20
            assert len(plan) > 2
            for stage in plan:
                for step in (stage.first, stage.first + stage.num_steps - 1):
                    trainer.state.step = step
                    cycles, grad_calls = stage.setting
                    assert trainer.task.warmed_grad_calls(trainer.state) == grad_calls
                    if isinstance(trainer.task, PuzzleTask):
                        assert trainer.task.cycles(trainer.state) == cycles
            trainer.state.step = 0
            assert TextTask.costs(lab.config(steps=7), trainer.task.core).stages(7) == [Stage(0, 7)]


def test_a_run_of_cheaper_steps(lab: Lab) -> None:
    warmed = {"h_cycles": 2, "grad_calls": "full", "grad_calls_warmup": 0.5}
    config = lab.config(steps=20, **warmed, halt_max_steps=3, sample_segments=True, freeze_positions=0)
    found = estimate(config, workspace=lab.workspace, measure=False)
    per_step = [
        stage.num_steps * step_flops(found.core, rows=2, num_segments=3, grad_calls=stage.setting[1]).total
        for stage in TextTask.costs(config, found.core).stages(20)
    ]
    assert len(per_step) > 2
    assert found.flops_per_run == pytest.approx(sum(per_step) * 2 / 3)
    assert sum(per_step) < 20 * found.flops.total


def test_a_trial_of_puzzles_with_a_curriculum(puzzle_lab: PuzzleLab) -> None:
    config = puzzle_lab.config(steps=10, h_cycles=2, depth_curriculum="0:1x1,0.25:1x2,0.5:2x2", run_name="tried")
    trial = run_trial(config, puzzle_lab.workspace, limit_s=0.1, began=time.time())
    assert len(trial.step_s) == 3
    assert min(*trial.step_s, trial.evaluation_s, trial.save_s) > 0
    assert trial.optimizer_bytes > 10_000


def test_a_trial_tells_what_is_wrong(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    config = lab.config(optimizer="nothing")
    request = {"kind": config.kind, "module": "hrm_engine.training.tasks.text", "path": sys.path}
    request |= {"parameters": config.model_dump(mode="json"), "root": str(lab.root), "limit_s": 0.1, "began": 0.0}
    write_json(lab.root / REQUEST_FILE, request)
    monkeypatch.setattr("sys.argv", ["trial", str(lab.root)])
    assert main() == 0
    answer = json.loads((lab.root / ANSWER_FILE).read_text())
    assert answer["error"] == "ConfigError"
    assert "there is no such rule" in answer["message"]


def test_what_must_be_built_first_is_built_elsewhere(workspace: Path) -> None:
    found = estimate(hrm_engine.load_puzzle_config("sudoku-4x4"), workspace=Workspace(workspace), measure=False)
    assert found.core.vocab_size == 6
    assert found.steps == 400
    assert files(workspace) == {"artifacts", "training_data"}


def test_steps_of_epochs(puzzle_lab: PuzzleLab) -> None:
    config = puzzle_lab.config(epochs=2.0, batch_size=8)
    assert estimate(config, workspace=puzzle_lab.workspace, measure=False).steps == 6


def test_what_is_refused(lab: Lab) -> None:
    before = files(lab.root)
    cases: list[tuple[dict[str, Any], type[Exception], str]] = [
        ({"dataset_file": "nowhere.txt"}, DataError, f"--dataset-file: {lab.root}/nowhere.txt does not exist"),
        ({"eval_file": "gone.txt"}, DataError, f"--eval-file: {lab.root}/gone.txt does not exist"),
        ({"student_init": "artifacts/nobody"}, BundleError, "nobody"),
        ({"device": "cuda:99", "strict": True}, ConfigError, "cuda:99"),
    ]
    for changed, error, told in cases:
        for measure in (True, False):
            with pytest.raises(error, match=told):
                estimate(lab.config(**changed), workspace=lab.workspace, limit_s=0.1, measure=measure)
    assert files(lab.root) == before
