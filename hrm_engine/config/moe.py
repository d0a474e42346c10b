"""Mixture of experts: how many, how they are chosen and kept balanced, and which goals steer the choice."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, model_validator

from hrm_engine.config.base import Config, Needs, written_as
from hrm_engine.config.training import OptimConfig, TrainConfig

_GOALS = written_as(r"active|\d{1,18}(,\d{1,18})*", "use numbers of goals with commas, or active")
# A bundle to start from may have attached experts, whose routers a dense network has too.
HasRouters = Needs("use_moe", unless="student_init")


class MoEConfig(Config):
    """Experts in the place of the feed-forward layers, and the router that chooses among them."""

    use_moe: bool = Field(True, description="Experts in the place of each feed-forward layer; --no-moe: dense layers.")
    num_experts: Annotated[int, Needs("use_moe")] = Field(8, ge=1, le=1024, description="Experts of each layer.")
    num_experts_per_tok: Annotated[int, Needs("use_moe")] = Field(
        2, ge=1, le=64, description="Experts of a token (top-k)."
    )
    moe_capacity_factor: Annotated[float, HasRouters] = Field(
        1.25,
        ge=0,
        le=64,
        description="In training an expert takes this times the even share of tokens and drops the rest, which keep "
        "their residual path; 0 = drops none. Evaluation and generation never drop.",
    )
    balance: Annotated[Literal["loss", "bias", "none"], HasRouters] = Field(
        "loss", description="What evens out the experts: a loss, a bias in the choice that follows the load, nothing."
    )
    load_balance_coef: Annotated[float, HasRouters, Needs("balance", "loss")] = Field(
        0.01, ge=0, le=10, description="Weight of the load-balancing loss."
    )
    balance_rate: Annotated[float, HasRouters, Needs("balance", "bias")] = Field(
        1e-3, ge=0, le=1, description="Step of the balancing bias (--balance bias)."
    )
    router_z_coef: Annotated[float, HasRouters] = Field(1e-3, ge=0, le=10, description="Weight of the router's z-loss.")
    router_noise: Annotated[float, HasRouters] = Field(
        0.0, ge=0, le=10, description="Standard deviation of noise on the scores in the choice, in training."
    )
    goal: Annotated[str, _GOALS] | None = Field(
        None,
        description="Send more tokens to attached experts that serve these goals: numbers with commas, or active.",
    )
    goal_bias_strength: Annotated[float, Needs("goal")] = Field(
        1.0, ge=0, le=5, description="What --goal adds to the scores of these experts."
    )
    auto_adjust_lr: Annotated[bool, Needs("use_moe")] = Field(
        True,
        description="Multiply the learning rate by sqrt(experts per token / experts) where there are experts: each "
        "sees that share of the tokens. The change is logged.",
    )

    @model_validator(mode="after")
    def _fits_together(self) -> MoEConfig:
        if self.use_moe and self.num_experts_per_tok > self.num_experts:
            raise ValueError(
                f"--num-experts-per-tok {self.num_experts_per_tok} of --num-experts {self.num_experts}: a token cannot "
                "be sent to more experts than there are"
            )
        return self

    @property
    def lr_scale(self) -> float:
        """What the learning rate is multiplied by."""
        if not (self.use_moe and self.auto_adjust_lr):
            return 1.0
        return float((self.num_experts_per_tok / self.num_experts) ** 0.5)

    def core_settings(self) -> dict[str, object]:
        """The settings of :class:`~hrm_engine.config.core.CoreConfig` that are about experts."""
        if not self.use_moe:
            return {}
        return {"feed_forward": "moe", "num_experts": self.num_experts, "experts_per_token": self.num_experts_per_tok}


class PuzzleMoEConfig(MoEConfig):
    """Experts in the place of the feed-forward layers, and the router that chooses among them."""

    use_moe: bool = Field(False, description="Experts in the place of each feed-forward layer.")


class MoETrainConfig(TrainConfig):
    """What trainings of models that may have experts have in common."""

    if TYPE_CHECKING:
        moe: MoEConfig

    @classmethod
    def as_of_now(cls, saved: Mapping[str, Any]) -> dict[str, Any]:
        """Runs from before there were experts say nothing of them, and had none."""
        return {"moe": {"use_moe": False}, **saved}

    @property
    def optim_used(self) -> OptimConfig:
        """``optim`` with the rates that ``--auto-adjust-lr`` makes of the given ones."""
        scale, optim = self.moe.lr_scale, self.optim
        if scale == 1:
            return optim
        adam_lr = None if optim.adam_lr is None else optim.adam_lr * scale
        return optim.model_copy(update={"lr": optim.lr * scale, "adam_lr": adam_lr})

    @property
    def lr_reason(self) -> str:
        """Why the rates are not the given ones."""
        return "each expert sees a share of the tokens (--no-auto-adjust-lr leaves it)"
