"""Expert-only training: the task behind ``lab train actv1 --expert-id ID``.

The base is frozen. It is a text bundle, in whose last high-level layer the expert takes part, or a causal model in
Hugging Face format, behind whose last layer it stands. What is trained is the language-model loss of the whole.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hrm_engine.bundles.weights import check_shapes, load_tensors
from hrm_engine.config import CoreConfig, ExpertConfig, ExpertTrainConfig
from hrm_engine.config.kinds import EXPERT
from hrm_engine.config.text import DepthConfig, TextTrainConfig
from hrm_engine.errors import CheckpointError, ConfigError, RegistryError
from hrm_engine.inference.text.evaluate import Evaluation, evaluate, token_means
from hrm_engine.kernels.losses import head_statistics, token_losses
from hrm_engine.models.act import TextBatch, TextLosses
from hrm_engine.models.core import RecurrentCore
from hrm_engine.models.expert import (
    BehindLastLayer,
    Expert,
    ExpertModel,
    OpenMoE,
    initialise_expert,
    open_layer,
    switched,
)
from hrm_engine.optim.updater import Backward
from hrm_engine.starting.base_network import BaseNetwork, find_base
from hrm_engine.store.clock import now_iso
from hrm_engine.store.expert_cards import ExpertCard, check_expert_id, shown
from hrm_engine.store.experts import ExpertRegistry
from hrm_engine.store.files import read_json, sha256_file, write_bytes
from hrm_engine.store.goals import Goals
from hrm_engine.store.paths import CONFIG_FILE, METADATA_FILE, Workspace
from hrm_engine.training.state import TrainState
from hrm_engine.training.task import Evaluated, load_checked
from hrm_engine.training.tasks.text import TextTask
from hrm_engine.training.tasks.text_rows import StepRows


class ExpertTask(TextTask):
    """Rows, losses and evaluation of one expert on one base."""

    kind = EXPERT.name
    core: ExpertConfig  # type: ignore[assignment]

    def __init__(self, config: ExpertTrainConfig, workspace: Workspace, base: BaseNetwork) -> None:
        self._base = base
        self._learned: dict[str, bytes] = {}
        self._used: tuple[int, float] = (0, 0.0)
        super().__init__(config, base.tokenizer, workspace)

    @classmethod
    def resolve(cls, config: Any, workspace: Workspace) -> Any:
        """The configuration with the defaults that depend on steps; the base has settings of its own."""
        return config.resolved()

    @classmethod
    def first(cls, config: Any, workspace: Workspace) -> tuple[TextTask, list[str]]:
        """The task of a new training; one that trains an expert further begins with what it has learned.

        Raises:
            ConfigError: the expert is frozen, or its id or its base cannot be used.
        """
        expert_id = check_expert_id(config.run.expert_id)
        card = next((card for card in ExpertRegistry(workspace).cards() if card.expert_id == expert_id), None)
        if card is not None and card.is_frozen:
            raise ConfigError(f"expert {expert_id} is frozen: thaw it with `lab experts unfreeze {expert_id}` first")
        base, messages = find_base(config, workspace)
        before = {} if card is None else card.training_config
        if "base" in before and not base.is_of(before["base"], before.get("base_sha256")):
            if not config.run.allow_other_base:
                raise ConfigError(
                    f"expert {expert_id} was trained on {shown(before['base'])} as it was then, and {base.place} is "
                    "another base now: its weights work on the states of that one alone. Take another id, or "
                    "train it further on this base with --allow-other-base"
                )
            messages.append(f"{base.place} is another base than the one that {expert_id} was trained on")
        return cls(config, workspace, base), messages

    @classmethod
    def resumed(cls, config: Any, workspace: Workspace, checkpoint: Path) -> tuple[TextTask, list[str]]:
        """The task of a run that goes on; its base is looked at before its data, which it may have cut otherwise."""
        base, messages = find_base(config, workspace)
        _check_same(base.digest, base.place, checkpoint, config)
        return cls(config, workspace, base), messages

    def _network(self) -> None:
        config, base = self.config, self._base
        length = config.data.max_seq_len
        if base.most_positions is not None and length > base.most_positions:
            raise ConfigError(f"--max-seq-len {length}: the base {base.place} has {base.most_positions} positions")
        if base.segments == 1 and config.depth != DepthConfig():
            raise ConfigError(
                f"--sample-segments, --freeze-positions: the base {base.place} runs one segment; leave them out"
            )
        assert config.run.expert_id is not None
        self.core = ExpertConfig(
            expert_id=config.run.expert_id,
            hidden_size=base.width,
            intermediate_size=base.inner,
            layer=base.layer,
            base=base.place,
            base_hash=base.digest,
        )

    @classmethod
    def network_for(cls, config: Any, workspace: Workspace) -> CoreConfig:
        """Refused: of an expert alone there is no estimate."""
        raise ConfigError("an estimate is of a whole network; leave out --expert-id")

    def forked_model(self, folder: Path, weights: dict[str, Tensor], saved: Any) -> tuple[Any, list[str]]:
        return self.saved_model(folder, weights), []

    def first_model(self, workspace: Workspace) -> tuple[ExpertModel, dict[str, str] | None]:
        """The expert in its base, with the weights that it has already, or first ones."""
        model, like = self._in_base()
        registry, expert_id = ExpertRegistry(workspace), self.core.expert_id
        parent = None if self._base.digest is None else {"path": self._base.place, "sha256": self._base.digest}
        initialise_expert(model.expert, like, seed=self.config.run.seed)
        try:
            weights = registry.weights(expert_id)
        except (RegistryError, ConfigError):
            return model, parent
        learned = load_tensors(weights.parent, weights.stem)
        if problems := check_shapes(learned, model.state_dict(), where=weights):
            raise ConfigError(f"expert {expert_id} does not fit this base: {'; '.join(problems)}")
        model.load_state_dict(learned)
        kept = (weights, weights.with_name(METADATA_FILE), weights.with_name(CONFIG_FILE))
        self._learned = {file.name: file.read_bytes() for file in kept if file.is_file()}
        return model, parent

    def opened(self, run_dir: Path) -> None:
        """Keep what the expert had learned where the registry looks for it, until there is something newer."""
        for name, content in self._learned.items():
            write_bytes(run_dir / name, content)

    def saved_model(self, folder: Path, weights: dict[str, Tensor]) -> ExpertModel:
        """The expert of a checkpoint in its base."""
        _check_same(self.core.base_hash, self.core.base, folder, self.config)
        model, _ = self._in_base()
        load_checked(model, weights, folder)
        return model

    def begin(self, model: ExpertModel, device: torch.device, state: TrainState) -> None:
        """Keep the model, and how much the expert had been used before."""
        self.expert_model, self.device = model, device
        self.model = model.base
        last = state.last_eval or {}
        if "total_activations" in last:
            self._used = last["total_activations"], last["avg_routing_weight"]
        elif (card := self._card()) is not None:
            self._used = card.total_activations, card.avg_routing_weight

    @property
    def num_segments(self) -> int:
        """ACT segments: those of the base."""
        return self._base.segments

    def losses(
        self, model: RecurrentCore, rows: StepRows, backward: Backward, *, step: int, checkpointing: bool
    ) -> TextLosses:
        """Gradients of the expert, to which every token is sent."""
        with switched(self.expert_model, is_forced=True):
            return super().losses(model, rows, backward, step=step, checkpointing=checkpointing)

    def gradients(
        self, model: Any, batch: TextBatch, rows: StepRows, backward: Backward, *, checkpointing: bool, dispatch: Any
    ) -> TextLosses:
        """Those of one micro-batch, on a base of either sort."""
        if not isinstance(model, BehindLastLayer):
            return super().gradients(model, batch, rows, backward, checkpointing=checkpointing, dispatch=dispatch)
        states = model(batch.inputs.long(), batch.positions, batch.documents)
        total, _ = token_losses(states.flatten(0, 1), model.head, batch.labels.flatten().long())
        backward(total / rows.normaliser)
        return TextLosses(total.detach()[None], torch.zeros((), device=total.device))

    def evaluate(self, micro_batch: int, *, full: bool = False) -> Evaluated | None:
        """Loss on held-out text with the expert as it will be used, and without it."""
        if not self._num_eval_rows or full:
            return None
        with switched(self.expert_model, is_on=False):
            without = self._measure(micro_batch)
        for layer in self._open_layers():
            layer.use = torch.zeros(2)
        result = self._measure(micro_batch)
        self._count_use(result)
        used = dict(zip(_USE, self._used, strict=True))
        fields = {**self.evaluation_fields(result), "loss_without": without.loss, **used}
        summary = f"validation loss {result.loss:.4f} with the expert, {without.loss:.4f} without"
        return Evaluated(fields, [result.loss], summary)

    def sample(self) -> dict[str, str] | None:
        """None: an expert alone says nothing."""
        return None

    def finished(self, run_dir: Path, state: TrainState) -> None:
        """Enter the expert in the registry, and link its goal."""
        registry, core = ExpertRegistry(self._workspace), self.core
        old = self._card()
        dataset = str(self.config.data.dataset_file)
        datasets = list(old.training_datasets) if old is not None else []
        of_weights = read_json(run_dir / METADATA_FILE).get("metrics") or state.last_eval or {}
        measured = {name: of_weights[field] for name, field in _MEASURED.items() if field in of_weights}
        fields: dict[str, Any] = {
            "last_trained": now_iso(),
            "training_datasets": [*datasets, *([] if dataset in datasets else [dataset])],
            "performance_metrics": measured,
            **dict(zip(_USE, self._used, strict=True)),
            "model_architecture": "swiglu",
            "checkpoint_path": registry.place(run_dir / "expert.safetensors"),
            "sha256": sha256_file(run_dir / "expert.safetensors"),
            "training_config": {
                **core.model_dump(include=_SIZES),
                "steps": state.step,
                "batch_size": self.config.run.rows_per_step,
                "base": core.base,
                "base_sha256": core.base_hash,
            },
        }
        if old is None:
            name = self.config.run.default_goal or core.expert_id
            registry.add(ExpertCard(expert_id=core.expert_id, name=name, **fields), base_model=core.base)
        else:
            registry.update(core.expert_id, **fields)
        if self.config.run.default_goal is not None:
            Goals(self._workspace).add(self.config.run.default_goal, core.expert_id, unless_there=True)

    def bundle_facts(self) -> dict[str, Any]:
        """What an attaching reads beside the weights."""
        core = self.core
        return {
            **super().bundle_facts(),
            "expert_id": core.expert_id,
            **core.model_dump(include=_SIZES),
            "base": {"path": core.base, "sha256": core.base_hash},
        }

    def _in_base(self) -> tuple[ExpertModel, Any]:
        """The expert, not initialised, in a fresh copy of its base; and the network in whose place it is."""
        base, expert = self._base, Expert(self._base.width, self._base.inner)
        network = base.network
        if base.layer is None or not isinstance(network, RecurrentCore):
            return ExpertModel(expert, BehindLastLayer(network, expert)), None
        like = next(m.mlp for m in network.modules() if getattr(m, "name", None) == base.layer)
        open_layer(network, base.layer, expert)
        return ExpertModel(expert, network), like

    @torch.no_grad()
    def _measure(self, micro_batch: int) -> Evaluation:
        model = self.expert_model.base
        batches = self._eval_batches(micro_batch)
        if not isinstance(model, BehindLastLayer):
            return evaluate(model, batches, num_segments=self.num_segments)

        def statistics(batch: TextBatch) -> tuple[Tensor, Tensor]:
            states = model(batch.inputs.long(), batch.positions, batch.documents)
            losses, correct = head_statistics(states.flatten(0, 1), model.head, batch.labels.flatten().long())
            return losses.sum(dtype=torch.float64)[None], correct.sum()[None]

        (losses, accuracies), num_tokens = token_means(batches, statistics)
        return Evaluation(losses, accuracies, num_tokens)

    def _open_layers(self) -> list[OpenMoE]:
        return [module for module in self.expert_model.base.modules() if isinstance(module, OpenMoE)]

    def _count_use(self, result: Evaluation) -> None:
        """Add what routers did with the expert in the evaluation just made to what they had done before."""
        assigned = weight = float(result.num_tokens)  # behind the last layer there is no router: every token goes to it
        if layers := self._open_layers():
            assigned, weight = sum((layer.use for layer in layers), torch.zeros(2)).tolist()
        before, mean = self._used
        total = before + round(assigned)
        self._used = total, (mean * before + weight) / total if total else 0.0

    def _card(self) -> ExpertCard | None:
        cards = ExpertRegistry(self._workspace).cards()
        return next((card for card in cards if card.expert_id == self.core.expert_id), None)


def _check_same(digest: str | None, place: str, checkpoint: Path, config: TextTrainConfig) -> None:
    """Raise CheckpointError where a base is not the one of a checkpoint, unless that was allowed."""
    before = read_json(checkpoint / CONFIG_FILE, CheckpointError).get("base_hash")
    if before != digest and not config.run.allow_other_base:
        raise CheckpointError(
            f"{checkpoint}: the base {place} is not the one this training began on; bring that one back, or go on with "
            "the new one with --allow-other-base"
        )


_MEASURED = {
    "loss_with": "loss",
    "loss_without": "loss_without",
    "unigram_loss": "unigram_loss",
    "num_tokens": "num_tokens",
}
"""Figures of a card, from the evaluation of the expert's weights, by their names in its row."""
_SIZES = {"hidden_size", "intermediate_size", "layer"}
_USE = ("total_activations", "avg_routing_weight")
"""Fields of cards and of ``eval`` rows: both count on from one training of an expert to the next."""
