"""A text training before it begins: what it will train, and what that costs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from hrm_engine.config import CoreConfig, resolve_core
from hrm_engine.data.text.tokenizer import Tokenizer
from hrm_engine.models.act import TextBatch, accumulate_gradients
from hrm_engine.optim.updater import Backward
from hrm_engine.starting.implant import starting_point
from hrm_engine.starting.student import student_core
from hrm_engine.store.paths import Workspace
from hrm_engine.training.costs import Costs, DryStep
from hrm_engine.training.tasks.attached import with_attached
from hrm_engine.training.tasks.core_costs import core_costs
from hrm_engine.training.tasks.core_task import CoreTask
from hrm_engine.training.tasks.routing import Routers

_TRIAL_BATCHES = 2


class TextPlan(CoreTask):
    """What a text task says without its rows."""

    @classmethod
    def network_for(cls, config: Any, workspace: Workspace) -> CoreConfig:
        """The network of a new run; of the base model its tokenizer is read, of the data nothing."""
        model = workspace.resolve(config.start.model)
        if (model / "tokenizer.json").is_file():
            tokenizer = Tokenizer.load(model)
        else:
            hidden_size = config.network.hidden_size
            tokenizer = starting_point(config.start.model, hidden_size=hidden_size, workspace=workspace).tokenizer
        return cls.core_of(config, tokenizer, workspace)

    @classmethod
    def network_like(cls, config: Any, like: CoreConfig) -> CoreConfig:
        """The network that a configuration asks for with the tokens of another one."""
        return resolve_core(
            config.network, vocab_size=like.vocab_size, max_seq_len=config.data.max_seq_len, moe=config.moe
        )

    @classmethod
    def core_of(cls, config: Any, tokenizer: Tokenizer, workspace: Workspace, scale: float | None = None) -> CoreConfig:
        """The network on the tokens of a tokenizer; ``scale`` is that of taken-over embeddings."""
        core = resolve_core(
            config.network,
            vocab_size=tokenizer.vocab_size,
            max_seq_len=config.data.max_seq_len,
            embedding_scale=scale,
            moe=config.moe,
        )
        core = student_core(core, config.start.student_init, workspace)
        return with_attached(core, config.start.student_init, workspace)

    @classmethod
    def costs(cls, config: Any, network: CoreConfig) -> Costs:
        """Of all segments of a step, whose number may be drawn."""
        most = network.halt_max_steps
        return core_costs(
            config,
            network,
            num_segments=most,
            tokens_per_step=config.run.rows_per_step * network.max_seq_len,
            mean_share=(1 + most) / 2 / most if config.depth.sample_segments else 1.0,
        )

    @classmethod
    def built_first(cls, workspace: Workspace) -> list[Path]:
        """Base model and embedded corpus."""
        return [workspace.base_model, workspace.embedded_corpus]

    @classmethod
    def for_trial(cls, config: Any) -> Any:
        """The same with evaluations of a few batches."""
        batches = min(config.evaluation.eval_batches, _TRIAL_BATCHES)
        return config.model_copy(update={"evaluation": config.evaluation.model_copy(update={"eval_batches": batches})})

    @classmethod
    def dry_step(cls, config: Any, network: Any, model: Any, device: torch.device, *, checkpointing: bool) -> DryStep:
        """The first two segments of one micro-batch: the second has the first one's state beside it."""
        num_segments, shape = min(2, config.network.halt_max_steps), (config.run.batch_size, config.data.max_seq_len)
        inputs, labels, positions, documents, depths = torch.zeros((5, *shape), dtype=torch.int64, device=device)
        freezes = num_segments > 1 and config.depth.freeze_positions > 0
        batch = TextBatch(inputs, labels, positions, documents, depths if freezes else None)
        routers = Routers(config.moe, network, seed=0, total_steps=1)

        def run(backward: Backward) -> None:
            accumulate_gradients(
                model,
                batch,
                num_segments=num_segments,
                normaliser=1.0,
                backward=backward,
                checkpointing=checkpointing,
                dispatch=routers.dispatch(1, 0, device),
            )

        return DryStep(run)
