"""``--ema-decay`` in a text training: the average is what is evaluated and kept; training goes on with the weights."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file

from hrm_engine.bundles.load import load_bundle
from hrm_engine.training import Trainer
from tests.tiny_runs import Lab


@pytest.mark.parametrize("settings", [{"amp": False}, {"use_moe": True}], ids=str)
def test_the_bundle_is_the_average_and_says_so(lab: Lab, settings: dict[str, bool]) -> None:
    run = lab.train("run", ema_decay=0.8, eval_batches=0, **settings).run_dir
    checkpoint = run / "checkpoints" / "step_00000006"
    state = load_file(checkpoint / "optimizer.safetensors")
    average = {name.removeprefix("ema/"): tensor for name, tensor in state.items() if name.startswith("ema/")}
    kept, weights = load_file(run / "model.safetensors"), load_file(checkpoint / "model.safetensors")
    assert average.keys() <= kept.keys()
    assert [name for name, tensor in average.items() if not torch.equal(kept[name], tensor)] == []
    assert not torch.equal(weights["lm_head.weight"], kept["lm_head.weight"])
    assert json.loads((run / "metadata.json").read_text())["weights"] == {"which": "last", "step": 6, "average": 0.8}
    model = load_bundle("run", workspace=lab.workspace).model
    assert torch.equal(model.lm_head.weight, average["lm_head.weight"])


def test_the_average_is_evaluated_and_the_weights_go_on(lab: Lab) -> None:
    config = lab.config(brain_name="run", ema_decay=0.9, amp=False, lr=0.03, warmup_steps=0)
    with Trainer(config, workspace=lab.workspace) as trainer:
        for _ in range(4):
            trainer.step()
        before = {name: tensor.clone() for name, tensor in trainer.setup.model.state_dict().items()}
        found = trainer.evaluate()
        plain = trainer.task.evaluate(2)
        assert trainer.setup.average is not None
        with trainer.setup.average.applied():
            averaged = trainer.task.evaluate(2)
        assert found is not None
        assert plain is not None
        assert averaged is not None
        assert found.fields["loss"] == averaged.fields["loss"] != plain.fields["loss"]
        after = trainer.setup.model.state_dict()
        assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
        trainer.finish()
    best = load_file(lab.run_dir("run") / "best" / "model.safetensors")
    assert not torch.equal(best["lm_head.weight"], before["lm_head.weight"])
    weights = json.loads((lab.run_dir("run") / "metadata.json").read_text())["weights"]
    assert weights == {"which": "best", "step": 4, "average": 0.9}
