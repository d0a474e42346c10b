"""Trainings of experts, and the bases that they are trained on."""

from __future__ import annotations

from typing import Any

from hrm_engine.config import ExpertTrainConfig, build_config
from hrm_engine.config.base import leaves
from hrm_engine.training import TrainResult, train
from tests.tiny_runs import SETTINGS, Lab, interrupter

BASES: dict[str, dict[str, Any]] = {
    "dense": {"use_moe": False, "halt_max_steps": 2},
    "experts": {"use_moe": True, "num_experts": 3},
    "model folder": {},
}


def expert_config(lab: Lab, expert_id: str, **changed: Any) -> ExpertTrainConfig:
    groups = {name: leaf.path[0] for name, leaf in leaves(ExpertTrainConfig).items()}
    settings = {name: value for name, value in SETTINGS.items() if groups[name] not in {"network", "moe"}}
    overrides = {
        **settings,
        "model": str(lab.source / "artifacts" / "hf_implant" / "base_model"),
        "expert_id": expert_id,
        "amp": False,
        **changed,
    }
    return build_config(ExpertTrainConfig, overrides=overrides)


def train_expert(
    lab: Lab, expert_id: str, *, resume: bool = False, stop_at: int | None = None, **changed: Any
) -> TrainResult:
    return train(
        expert_config(lab, expert_id, **changed),
        workspace=lab.workspace,
        resume=resume,
        given={name: changed[name] for name in changed if name == "allow_other_base"} if resume else None,
        observer=None if stop_at is None else interrupter(stop_at),
    )


def base_of(lab: Lab, kind: str) -> dict[str, Any]:
    """Settings that name a base of that kind, which is made first."""
    if kind == "model folder":
        return {}
    result = lab.trained("base", amp=False, **BASES[kind])
    return {"student_init": str(result.run_dir)}
