"""A puzzle training before it begins: what it will train, and what that costs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from hrm_engine.config import CoreConfig, resolve_puzzle_core
from hrm_engine.data.puzzles.description import DatasetInfo
from hrm_engine.data.puzzles.embedded import EMBEDDED, build_embedded
from hrm_engine.data.puzzles.format import open_dataset
from hrm_engine.models.slots import Objective, Rows, empty_slots, think
from hrm_engine.optim.updater import Backward
from hrm_engine.store.paths import Workspace
from hrm_engine.training.costs import Costs, DryStep
from hrm_engine.training.tasks.attached import with_attached
from hrm_engine.training.tasks.core_costs import core_costs
from hrm_engine.training.tasks.core_task import CoreTask
from hrm_engine.training.tasks.routing import Routers


class PuzzlePlan(CoreTask):
    """What a puzzle task says without its rows."""

    @classmethod
    def network_for(cls, config: Any, workspace: Workspace) -> CoreConfig:
        """The network of a new run on the sizes of its dataset, which is built where the lab can."""
        folder = workspace.resolve(config.data.data_path)
        build_embedded(folder, workspace.puzzles)
        return cls.core_of(config, open_dataset(folder, "train", check_tokens=False).info, workspace)

    @classmethod
    def network_like(cls, config: Any, like: CoreConfig) -> CoreConfig:
        """The network that a configuration asks for on the boards of another one."""
        return resolve_puzzle_core(
            config.network,
            vocab_size=like.vocab_size,
            seq_len=like.max_seq_len - like.prefix_tokens,
            num_identifiers=max(1, like.num_identifiers),
            moe=config.moe,
        )

    @classmethod
    def core_of(cls, config: Any, info: DatasetInfo, workspace: Workspace) -> CoreConfig:
        """The network on the sizes of a dataset."""
        core = resolve_puzzle_core(
            config.network,
            vocab_size=info.vocab_size,
            seq_len=info.seq_len,
            num_identifiers=info.num_puzzle_identifiers,
            moe=config.moe,
        )
        return with_attached(core, config.start.student_init, workspace)

    @classmethod
    def costs(cls, config: Any, network: CoreConfig) -> Costs:
        """Of one segment, in the stages of the depth curriculum."""
        return core_costs(config, network, cycles_at=config.cycles_at)

    @classmethod
    def built_first(cls, workspace: Workspace) -> list[Path]:
        """The datasets that the lab can make by itself."""
        return [workspace.puzzles / name for name in EMBEDDED]

    @classmethod
    def for_trial(cls, config: Any) -> Any:
        """The same with one batch in an evaluation, and none of all rows."""
        rows = min(config.evaluation.eval_rows, max(config.run.batch_size, min(256, config.run.rows_per_step)))
        changes = {"eval_rows": rows, "full_eval": False}
        return config.model_copy(update={"evaluation": config.evaluation.model_copy(update=changes)})

    @classmethod
    def dry_step(cls, config: Any, network: Any, model: Any, device: torch.device, *, checkpointing: bool) -> DryStep:
        """A segment of the slots of one micro-batch."""
        rows, cells = config.run.batch_size, network.max_seq_len - network.prefix_tokens
        row_type = torch.uint8 if network.vocab_size <= 256 else torch.int32
        queue = Rows(
            torch.zeros(1, cells, dtype=row_type, device=device),
            torch.zeros(1, cells, dtype=row_type, device=device),
            torch.zeros(1, dtype=torch.int32, device=device),
        )
        slots = empty_slots(model, rows, queue)
        settings, routers = config.objective, Routers(config.moe, network, seed=0, total_steps=1)
        objective = Objective(settings.loss, settings.label_smoothing, settings.halt_loss_weight)

        def run(backward: Backward) -> None:
            ids = torch.zeros(rows, dtype=torch.int64, device=device)
            table = None if model.puzzle_embedding is None else model.puzzle_embedding(ids).requires_grad_()
            positions = torch.arange(network.max_seq_len, device=device)[None]
            context = model.context(positions, checkpointing=checkpointing, dispatch=routers.dispatch(1, 0, device))
            backward(think(model, slots, context, objective, num_slots=rows, min_segments=ids, puzzle=table).loss)

        kept = sum(tensor.nbytes for tensor in slots.tensors().values())
        return DryStep(run, carry=kept * config.run.gradient_accumulation_steps)
