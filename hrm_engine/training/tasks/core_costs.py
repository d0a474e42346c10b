"""What a step of a recurrent core costs, by its formulas."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hrm_engine.config import CoreConfig
from hrm_engine.models.flops import StepFlops, step_flops
from hrm_engine.optim.schedules import grad_calls
from hrm_engine.training.costs import Costs, Parameters

Setting = tuple[tuple[int, int] | None, int | None]
"""Cycles of a step under a depth curriculum, and module calls with gradient while these are warmed up; None: all."""
_PARTS = {
    "embed": "embeddings",
    "H_module": "high_level",
    "L_module": "low_level",
    "lm_head": "head",
    "halting": "halting",
}


def core_costs(
    config: Any,
    network: CoreConfig,
    *,
    num_segments: int = 1,
    cycles_at: Callable[[float], tuple[int, int] | None] = lambda share: None,
    tokens_per_step: int | None = None,
    mean_share: float = 1.0,
) -> Costs:
    """Costs of a training of a recurrent core.

    Args:
        num_segments: of a step of full depth.
        cycles_at: cycles at a share of the run under a depth curriculum; None where they are as ever.
    """
    steps, warmup = config.run.steps, config.network.grad_calls_warmup

    def setting_of(step: int) -> Setting:
        calls = grad_calls(step + 1, full=network.grad_calls, total_steps=steps, warmup_share=warmup)
        return cycles_at(step / steps), calls if warmup else None

    def flops(setting: Any, checkpointing: bool) -> StepFlops:
        cycles, calls = setting or (None, None)
        return step_flops(
            network,
            rows=config.run.rows_per_step,
            num_segments=num_segments,
            cycles=cycles,
            grad_calls=calls,
            checkpointing=checkpointing,
        )

    return Costs(
        tokens_per_step=tokens_per_step,
        mean_share=mean_share,
        parameters=_parameters,
        has_gradient=lambda name: network.trains_embeddings or not name.startswith("embed_"),
        setting_of=setting_of if warmup or cycles_at(0) is not None else None,
        flops=flops,
    )


def _parameters(model: Any) -> Parameters:
    """By part of the core."""
    parts = dict.fromkeys(_PARTS, 0)
    for name, parameter in model.named_parameters():
        part = next((part for part in parts if name.startswith(part)), "halting")
        parts[part] += parameter.numel()
    idle = sum(
        tensor.numel() * (moe.num_experts - moe.experts_per_token) // moe.num_experts
        for moe in model.experts.values()
        for tensor in (moe.gate_proj, moe.up_proj, moe.down_proj)
    )
    total, table = sum(parts.values()), model.puzzle_embedding
    return Parameters(
        total=total,
        active=total - idle,
        parts={_PARTS[part]: number for part, number in parts.items()},
        beside={"puzzle_embedding": 0 if table is None else table.weight.numel()},
    )
