"""How far the gradient reaches back in a step, while that is warmed up."""

from __future__ import annotations

from collections.abc import Mapping

from hrm_engine.config import CoreConfig
from hrm_engine.optim.schedules import FIRST_GRAD_CALLS, grad_calls
from hrm_engine.training.state import TrainState


def warmed_grad_calls(core: CoreConfig, share: float, state: TrainState) -> int | None:
    """Module calls with gradient in the step after ``state.step``; None where all steps have those of ``core``."""
    if not share:
        return None
    return grad_calls(state.step + 1, full=core.grad_calls, total_steps=state.schedule_steps, warmup_share=share)


def warms_embeddings(core: CoreConfig) -> bool:
    """Whether a gradient reaches the token embeddings from the first step of a warm-up on."""
    return core.model_copy(update={"grad_calls": FIRST_GRAD_CALLS}).trains_embeddings


def warmed_fields(counts: Mapping[str, int]) -> dict[str, int]:
    """What a ``train`` row says of it."""
    return {"grad_calls": counts["grad_calls"]} if "grad_calls" in counts else {}
