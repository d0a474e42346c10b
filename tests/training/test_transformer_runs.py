"""A plain transformer is trained, resumed, read and used like the others."""

from __future__ import annotations

import json
from typing import Any

import pytest

from hrm_engine.bundles.listing import verify_bundle
from hrm_engine.bundles.load import load_bundle
from hrm_engine.errors import ConfigError
from hrm_engine.inference import generate
from lab.cli.app import main
from tests.tiny_runs import Lab, assert_same_end, row_of

STACK: dict[str, Any] = {"arch": "transformer", "h_layers": 2, "l_layers": 0}
KINDS: dict[str, dict[str, Any]] = {
    "dense": STACK,
    "run again on its own result": {**STACK, "halt_max_steps": 2},
    "experts": {**STACK, "use_moe": True, "amp": False},
}


@pytest.mark.parametrize("kind", KINDS)
def test_resumed_exactly(lab: Lab, kind: str) -> None:
    lab.train("straight", **KINDS[kind])
    lab.interrupted("interrupted", 3, **KINDS[kind])
    assert lab.resume("interrupted").state == "finished"
    assert_same_end(lab.run_dir("straight"), lab.run_dir("interrupted"))


@pytest.mark.parametrize("kind", KINDS)
def test_its_bundle_is_used_like_any_other(lab: Lab, kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    folder = lab.train("plain", steps=3, **KINDS[kind]).run_dir
    assert verify_bundle(folder) == []
    bundle = load_bundle(folder)
    depth = KINDS[kind].get("halt_max_steps", 1)
    assert (bundle.config.l_cycles, bundle.config.num_calls, bundle.config.halt_max_steps) == (0, 1, depth)
    assert not any(name.startswith("L_module") for name in bundle.model.state_dict())
    assert len(row_of(folder, "eval")["loss_by_segment"]) == depth
    greedy = [generate(bundle, "the cat", max_new_tokens=6, temperature=0.0).text for _ in range(2)]
    assert greedy[0] == greedy[1]
    assert main(["bundle", "show", "plain", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["config"]["arch"] == "transformer"


def test_flags_that_it_has_no_use_for_are_refused(lab: Lab) -> None:
    with pytest.raises(ConfigError, match="--l-cycles 2: transformer is one pass"):
        lab.config(**STACK, l_cycles=2)
