"""What a step of a recurrent core costs, by its formulas."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

from hrm_engine.config import CoreConfig
from hrm_engine.models.core import RecurrentCore
from hrm_engine.models.flops import StepFlops, step_flops
from hrm_engine.optim.schedules import grad_calls
from hrm_engine.training.costs import Costs, DryStep, Parameters

Setting = tuple[tuple[int, int] | None, int | None]
"""Cycles of a step under a depth curriculum, and module calls with gradient while these are warmed up; None: all."""
_PARTS = {
    "embed": "embeddings",
    "H_module": "high_level",
    "L_module": "low_level",
    "lm_head": "head",
    "halting": "halting",
}


class CoreCosts(Costs):
    """Of a training of a recurrent core; puzzles run one segment in a step."""

    network: CoreConfig
    num_segments = 1

    def parameters(self, model: Any) -> Parameters:
        """By part of the core."""
        assert isinstance(model, RecurrentCore)
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

    def has_gradient(self, name: str) -> bool:
        """Of the token embeddings, where enough module calls carry gradient."""
        return self.network.trains_embeddings or not name.startswith("embed_")

    def cycles_at(self, share: float) -> tuple[int, int] | None:
        """Cycles at this share of the run; None where they are as ever."""
        return None

    def setting_of(self) -> Callable[[int], Hashable] | None:
        """By the depth curriculum and the warm-up of the gradient."""
        steps, warmup = self.config.run.steps, self.config.network.grad_calls_warmup  # type: ignore[attr-defined]

        def setting(step: int) -> Setting:
            cycles = self.cycles_at(step / steps)
            if not warmup:
                return cycles, None
            full = self.network.grad_calls
            return cycles, grad_calls(step + 1, full=full, total_steps=steps, warmup_share=warmup)

        return setting if warmup or self.cycles_at(0) is not None else None

    def flops(self, dry: DryStep, setting: Any, *, checkpointing: bool) -> StepFlops:
        """By the formulas."""
        cycles, calls = setting or (None, None)
        return step_flops(
            self.network,
            rows=self.rows,
            num_segments=self.num_segments,
            cycles=cycles,
            grad_calls=calls,
            checkpointing=checkpointing,
        )
