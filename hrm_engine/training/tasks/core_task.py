"""What trainings of a recurrent core have in common: its experts, its weights, and forks with other settings."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hrm_engine.bundles.core_config import read_core_config
from hrm_engine.bundles.load import build_model
from hrm_engine.bundles.steering import bias_routers
from hrm_engine.config import CoreConfig
from hrm_engine.errors import CheckpointError, ConfigError
from hrm_engine.models.core import RecurrentCore
from hrm_engine.optim.schedules import grad_calls
from hrm_engine.reading import told_by
from hrm_engine.starting.student import load_student
from hrm_engine.store.attached import Attached
from hrm_engine.store.paths import Workspace
from hrm_engine.training.state import TrainState
from hrm_engine.training.task import Task
from hrm_engine.training.tasks.attached import look_up
from hrm_engine.training.tasks.routing import Routers

MAY_DIFFER = ("h_cycles", "grad_calls", "experts_per_token", "window_size", "damping", "state_noise")
"""Settings of a network that its weights were not made for: how long, how deep, how noisy."""


class CoreTask(Task):
    """A task whose model is a recurrent core, with experts or without."""

    core: CoreConfig
    model: RecurrentCore
    device: torch.device
    routers: Routers
    attached: Sequence[dict[str, Any]] = ()
    """Experts attached to what a new run starts from: see :mod:`hrm_engine.training.tasks.attached`."""

    @classmethod
    def network_like(cls, config: Any, like: CoreConfig) -> CoreConfig:
        """The network that a configuration asks for on the data of another one; what no flag says is at its default."""
        raise NotImplementedError

    @classmethod
    def build(cls, network: CoreConfig) -> Any:
        """A core of these settings."""
        return RecurrentCore(network)

    def first_model(self, workspace: Workspace) -> tuple[Any, dict[str, str] | None]:
        """A core with its first weights, or those of ``--student-init``."""
        model = RecurrentCore(self.core)
        model.initialise(self.config.run.seed)
        self.take_over(model)
        source = self.config.start.student_init
        return model, None if source is None else load_student(model, source, workspace)

    def take_over(self, model: RecurrentCore) -> None:
        """Put weights of a base model in the place of first ones."""
        return

    def saved_model(self, folder: Path, weights: dict[str, Tensor]) -> Any:
        """The core of a checkpoint."""
        self.core = read_core_config(folder, kind=self.kind)
        return build_model(self.core, weights, where=folder, error=CheckpointError)

    def forked_model(self, folder: Path, weights: dict[str, Tensor], saved: Any) -> tuple[Any, list[str]]:
        """The core with the checkpoint's weights and the settings that are asked for, as far as those fit."""
        model, core = self.saved_model(folder, weights), self.core
        before, after = self.network_like(saved, core), self.network_like(self.config, core)
        changed = {
            name: (getattr(before, name), getattr(after, name))
            for name in CoreConfig.model_fields
            if name != "embedding_scale" and getattr(before, name) != getattr(after, name)  # that one follows the width
        }
        misfits = [name for name, (then, now) in changed.items() if not _may_differ(core, name, then, now)]
        if misfits:
            raise ConfigError(
                f"--from-checkpoint {folder}: its weights are of another network: "
                + "; ".join(f"{name} is {changed[name][0]} there, {changed[name][1]} was asked for" for name in misfits)
            )
        if not changed:
            return model, []
        settings = {**core.model_dump(), **{name: now for name, (_, now) in changed.items()}}
        self.core = CoreConfig.model_validate(settings)
        model = build_model(self.core, weights, where=folder, error=CheckpointError)
        return model, [f"{name} is {now} from here on; it was {then}" for name, (then, now) in changed.items()]

    def fill(self, state: TrainState) -> None:
        """Keep which experts are attached, as the registry and the goals have them now."""
        state.of_task["experts"] = list(self.attached)

    def forked_state(self, state: TrainState, folder: Path, saved: Any, workspace: Workspace) -> list[str]:
        """Look experts up again where other goals are to steer them."""
        moe, before = self.config.moe, saved.moe
        if (moe.goal, moe.goal_bias_strength) == (before.goal, before.goal_bias_strength):
            return []
        experts, notes = look_up(folder, moe, workspace)
        state.of_task = {**state.of_task, "experts": experts}
        return notes

    def begin(self, model: Any, device: torch.device, state: TrainState) -> None:
        """Keep the model, and set its routers as the state of the run says."""
        experts = state.of_task.get("experts", [])
        self.model, self.device, self.attached = model, device, experts
        with told_by(lambda why: CheckpointError(f"the state's list of attached experts is damaged: {why}")):
            biases = {(e["layer"], e["column"]): e["bias"] if e["is_active"] else -math.inf for e in experts}
            bias_routers(model, biases)
            for expert in experts:
                if expert["bias"]:
                    self.routers.biased.setdefault(expert["layer"], []).append(expert["column"])

    def warmed_grad_calls(self, state: TrainState) -> int | None:
        """Module calls with gradient in the next step, while these are warmed up; None where no step has fewer."""
        share, steps = self.config.network.grad_calls_warmup, state.schedule_steps
        if not share:
            return None
        return grad_calls(state.step + 1, full=self.core.grad_calls, total_steps=steps, warmup_share=share)

    def frozen_rows(self) -> list[tuple[str, int]]:
        """Slices of the weights that belong to frozen experts."""
        slices = []
        for entry in self.attached:
            if entry["is_frozen"]:
                own = {id(parameter) for parameter in self.model.experts[entry["layer"]].parameters()}
                slices += [(name, entry["column"]) for name, p in self.model.named_parameters() if id(p) in own]
        return slices

    def keeps_wide(self, name: str) -> bool:
        """Routers are in fp32 whatever the rest is stored in."""
        return ".router." in name

    def events(self, step: int, numbers: list[float]) -> list[tuple[str, dict[str, Any]]]:
        """Use of the experts."""
        return [("expert_usage", fields) for fields in self.routers.usage(step, numbers)]

    def bundle_facts(self) -> dict[str, Any]:
        """The experts that are attached."""
        experts = [{name: entry[name] for name in Attached.__dataclass_fields__} for entry in self.attached]
        return {"experts": experts} if experts else {}


def _may_differ(core: CoreConfig, name: str, before: Any, now: Any) -> bool:
    if name == "max_seq_len":  # where positions have weights
        return core.pos_encodings != "learned" and core.mixer != "sequence_mlp"
    if name == "halt_max_steps":  # one segment has no halting head
        return core.halting != "token" or (before > 1) == (now > 1)
    if name == "l_cycles":
        return bool(before) == bool(now)
    return name in MAY_DIFFER
