"""Losses that are not finite or jump: the step is skipped, told, and in the end the run stops with its checkpoints."""

from __future__ import annotations

import json
import math
import statistics
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from hrm_engine.bundles.load import load_bundle
from hrm_engine.errors import NonFiniteLossError
from hrm_engine.store.incidents import incident_text
from hrm_engine.store.manifest import list_checkpoints
from hrm_engine.store.status import read_status
from hrm_engine.training import Trainer
from tests.tiny_runs import Lab, assert_same_end, row_of, rows


def poison(lab: Lab, name: str = "poison.safetensors") -> str:
    """Weights that fit a tiny run, with a number in the output head that leaves no room for its logits."""
    tensors = load_file(lab.train("healthy", steps=1, eval_batches=0).run_dir / "model.safetensors")
    tensors["lm_head.weight"][0] = 3e38
    save_file(tensors, lab.root / name)
    return name


def of(run_dir: Path, event: str) -> list[dict[str, Any]]:
    """The rows of an event."""
    return [row for row in rows(run_dir) if row["event"] == event]


def test_a_loss_that_stays_nan_stops_the_run(lab: Lab) -> None:
    weights = poison(lab)
    told = r"3 times in a row up to step 3 \(--nan-patience 3\)\. There is no checkpoint yet; try a smaller --lr"
    with pytest.raises(NonFiniteLossError, match=told):
        lab.train("none", student_init=weights, nan_patience=3, save_every=100)
    with pytest.raises(NonFiniteLossError, match=r"3 times in a row up to step 3 .*Checkpoints are intact") as raised:
        lab.train("run", student_init=weights, nan_patience=3, save_every=1)
    assert raised.value.exit_code == 3
    run_dir = lab.run_dir("run")
    assert [(row["step"], row["what"], row["in_a_row"]) for row in of(run_dir, "nan")] == [
        (1, "loss", 1),
        (2, "loss", 2),
        (3, "loss", 3),
    ]
    losses = of(run_dir, "train")
    assert [row["loss"] for row in losses] == [None] * 3
    assert all({"loss", "ce", "grad_norm"} <= set(row["nonfinite"]) for row in losses)
    assert row_of(run_dir, "eval")["nonfinite"][0] == "loss"
    status = read_status(run_dir)
    assert status is not None
    assert (status.state, status.step) == ("failed", 3)
    assert row_of(run_dir, "stop")["exit_code"] == 3
    # nothing was learned from what was not finite
    assert [info.problems for info in list_checkpoints(run_dir)] == [[], []]
    start = load_file(lab.root / weights)
    kept = load_file(run_dir / "checkpoints" / "step_00000002" / "model.safetensors")
    assert all(torch.equal(kept[name], start[name]) for name in start)


def test_the_count_goes_on_after_a_resume(lab: Lab) -> None:
    weights = poison(lab)
    lab.interrupted("run", 2, student_init=weights, nan_patience=4, eval_batches=0)
    with pytest.raises(NonFiniteLossError, match="4 times in a row up to step 4"):
        lab.resume("run")


def test_a_healthy_step_begins_the_count_anew(lab: Lab) -> None:
    with Trainer(lab.config(brain_name="run", amp=False, nan_patience=2), workspace=lab.workspace) as trainer:
        head = trainer.setup.model.lm_head.weight
        for broken in (True, False, True, False):
            value = head[0, 0].item()
            with torch.no_grad():
                head[0, 0] = math.nan if broken else value
            before = {name: tensor.clone() for name, tensor in trainer.setup.weights.tensors().items()}
            trainer.step()
            same = all(
                torch.equal(before[n], t) or before[n].isnan().any() for n, t in trainer.setup.weights.tensors().items()
            )
            assert same == broken
            with torch.no_grad():
                head[0, 0] = value if broken else head[0, 0]
        trainer.finish()
    assert [row["step"] for row in of(trainer.run_dir, "nan")] == [1, 3]


def test_a_run_that_diverges_keeps_what_it_had(lab: Lab) -> None:
    settings = {"lr": 10.0, "grad_clip": 0.0, "warmup_steps": 0, "model_dtype": "fp16"}
    with pytest.raises(NonFiniteLossError, match="5 times in a row.*Checkpoints are intact; try a smaller --lr"):
        lab.train("run", **settings, steps=40, eval_batches=0, save_every=1)
    run_dir = lab.run_dir("run")
    first = of(run_dir, "nan")[0]["step"]
    assert first > 1, "the first step is meant to be a healthy one"
    assert all(info.problems == [] for info in list_checkpoints(run_dir))
    weights = load_file(list_checkpoints(run_dir)[-1].path / "model.safetensors")
    assert all(bool(tensor.isfinite().all()) for tensor in weights.values())
    with pytest.raises(NonFiniteLossError):
        lab.resume("run")


def test_a_huge_but_finite_loss_can_be_saved(lab: Lab) -> None:
    """The perplexity of a loss above 709 is infinite, which JSON cannot hold."""
    tensors = load_file(lab.train("healthy", steps=1, eval_batches=0).run_dir / "model.safetensors")
    tensors["lm_head.weight"] *= 1e5
    save_file(tensors, lab.root / "huge.safetensors")
    result = lab.train("run", student_init="huge.safetensors", amp=False, steps=2, eval_every=1, save_every=1)
    evaluated = row_of(result.run_dir, "eval")
    assert evaluated["loss"] > 709
    assert (evaluated["perplexity"], evaluated["nonfinite"]) == (None, ["perplexity"])
    metadata = json.loads((result.run_dir / "metadata.json").read_text())
    assert metadata["last_metrics"]["perplexity"] is None
    assert load_bundle(result.run_dir).metadata["weights"]["which"] == "best"


WILD = {"lr": 3.0, "grad_clip": 0.0, "warmup_steps": 0}


def test_a_run_that_ends_worse_than_it_began_is_diverged_and_says_so(lab: Lab) -> None:
    result = lab.train("run", **WILD)
    assert result.first_eval is not None
    assert result.last_eval is not None
    first, last = result.first_eval["loss"], result.last_eval["loss"]
    assert last > first
    told = f"validation is worse than at the start: loss {last:.4g} now, loss {first:.4g} then"
    assert (result.state, result.exit_code, result.message) == ("diverged", 0, f"{told}; try a smaller --lr")
    status = read_status(result.run_dir)
    assert status is not None
    assert (status.state, status.message) == ("diverged", result.message)
    [event] = of(result.run_dir, "diverged")
    assert (event["step"], event["first_loss"]) == (3, first)
    assert incident_text(event).startswith("validation is worse than at the start: loss ")
    assert f"WARNING {incident_text(event)}" in (result.run_dir / "run.log").read_text()
    assert row_of(result.run_dir, "final")["message"] == result.message


def test_a_diverged_run_that_is_stopped_or_goes_on_still_says_so(lab: Lab) -> None:
    lab.train("straight", **WILD)
    stopped = lab.interrupted("run", 4, **WILD)
    assert stopped.state == "stopped"
    assert stopped.message.startswith("stopped by SIGTERM; validation is worse than at the start: ")
    assert lab.resume("run").state == "diverged"
    assert len(of(lab.run_dir("run"), "diverged")) == 1
    assert_same_end(lab.run_dir("straight"), lab.run_dir("run"))


def test_what_recovers_is_finished_and_what_was_no_number_is_no_start(lab: Lab) -> None:
    with Trainer(lab.config(brain_name="run", steps=4), workspace=lab.workspace) as trainer:
        head = trainer.setup.weights.tensors()["lm_head.weight"]
        seen = []
        for factor in (math.nan, 1.0, 100.0, math.nan, 100.0, 1.0):
            whole = trainer.setup.model.lm_head.weight.detach().clone()
            with torch.no_grad():
                trainer.setup.model.lm_head.weight.mul_(factor)
            trainer.evaluate()
            with torch.no_grad():
                trainer.setup.model.lm_head.weight.copy_(whole)
            seen.append(trainer.state.is_diverged)
        assert seen == [False, False, True, True, True, False]
        assert head.isfinite().all()
        for _ in range(4):
            trainer.step()
        trainer.finish()
    assert trainer.outcome.state == "finished"
    assert len(of(trainer.run_dir, "diverged")) == 1


def test_metadata_has_the_figures_of_the_weights_that_it_holds(lab: Lab) -> None:
    with Trainer(lab.config(brain_name="run", steps=4), workspace=lab.workspace) as trainer:
        losses = []
        for factor in (1.0, 100.0):
            trainer.step()
            trainer.step()
            with torch.no_grad():
                trainer.setup.model.lm_head.weight.mul_(factor)
            evaluated = trainer.evaluate()
            assert evaluated is not None
            losses.append(evaluated.fields["loss"])
        trainer.finish()
    metadata = json.loads((trainer.run_dir / "metadata.json").read_text())
    assert metadata["weights"] == {"which": "best", "step": 2}
    assert (metadata["metrics"]["step"], metadata["metrics"]["loss"]) == (2, losses[0])
    assert (metadata["last_metrics"]["step"], metadata["last_metrics"]["loss"]) == (4, losses[1])
    last = lab.train("last", steps=4, eval_every=100)  # only at the start and at the end
    assert last.best_eval == last.last_eval
    unmeasured = lab.interrupted("unmeasured", 2, eval_every=100)
    metadata = json.loads((unmeasured.run_dir / "metadata.json").read_text())
    assert (metadata["weights"]["which"], metadata["metrics"], metadata["last_metrics"]["step"]) == ("last", None, 0)


def test_a_spike_is_told_and_training_goes_on(lab: Lab) -> None:
    with Trainer(lab.config(brain_name="run", amp=False, steps=60, eval_batches=0), workspace=lab.workspace) as trainer:
        for _ in range(51):
            trainer.step()
        median = statistics.median(trainer.state.recent_losses)
        with torch.no_grad():
            trainer.setup.model.lm_head.weight *= 1000
        trainer.step()
        trainer.step()
        trainer.finish()
    spikes = of(trainer.run_dir, "spike")
    assert spikes[0]["step"] == 52
    assert spikes[0]["loss"] > 10 * spikes[0]["median"]
    assert spikes[0]["median"] == median
    assert "above 10 times the recent median" in (trainer.run_dir / "run.log").read_text()


def test_overflow_of_scaled_fp16_gradients_is_no_bad_loss(lab: Lab) -> None:
    """The first steps in fp16 may overflow until the loss scale has adapted: skipped, but not counted."""
    with Trainer(lab.config(brain_name="run", model_dtype="fp16", nan_patience=1), workspace=lab.workspace) as trainer:
        trainer.setup.updater.loss_scale.fill_(2.0**60)
        before = {name: tensor.clone() for name, tensor in trainer.setup.weights.tensors().items()}
        report = trainer.step()
        assert not bool(report.update.stepped)
        assert all(torch.equal(before[name], tensor) for name, tensor in trainer.setup.weights.tensors().items())
        assert float(trainer.setup.updater.loss_scale) < 2.0**60
    assert of(trainer.run_dir, "nan") == []
