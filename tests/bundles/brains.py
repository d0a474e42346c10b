"""A tiny brain with two experts beside it, and what it says."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from hrm_engine.bundles.bundle import Bundle
from hrm_engine.bundles.load import load_bundle
from hrm_engine.models.act import TextBatch, run_segments
from tests.tiny_experts import make_expert
from tests.tiny_runs import Lab

TOKENS = torch.randint(4, 300, (4, 16), generator=torch.Generator().manual_seed(5))


SMALL = {"steps": 2, "eval_every": 2, "save_every": 2, "halt_max_steps": 2}


both_kinds = pytest.mark.parametrize("use_moe", [False, True], ids=["dense", "moe"])


@pytest.fixture
def brain(lab: Lab) -> Callable[..., Path]:
    """Trains a tiny brain ``base`` and makes two experts of its sizes, ``poems`` and ``prose``."""

    def make(use_moe: bool = False, **changed: Any) -> Path:
        settings = {**SMALL, "use_moe": use_moe, **({"num_experts": 4} if use_moe else {}), **changed}
        path = lab.trained("base", **settings).run_dir
        inner = json.loads((path / "config.json").read_text())["intermediate_size"]
        for seed, expert_id in enumerate(("poems", "prose")):
            make_expert(lab.workspace, expert_id, inner=inner, seed=seed)
        return path

    return make


def load(lab: Lab, bundle: str | Path) -> Bundle:
    return load_bundle(bundle, device="cpu", workspace=lab.workspace)


@torch.no_grad()
def logits(bundle: Bundle) -> Tensor:
    """At the deepest segment, without a cache."""
    batch = TextBatch(TOKENS, TOKENS, torch.arange(TOKENS.shape[1])[None], None)
    *_, carry = run_segments(bundle.model, batch, num_segments=2)
    return bundle.model.logits(carry.z_h)
