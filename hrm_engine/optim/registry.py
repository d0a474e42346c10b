"""Update rules by name: the built-in ones and those of pytorch_optimizer."""

from __future__ import annotations

import difflib
import logging
from dataclasses import dataclass

import torch
from torch import Tensor

from hrm_engine.config.training import OptimConfig
from hrm_engine.errors import ConfigError, missing_package
from hrm_engine.optim import library
from hrm_engine.optim.adam_atan2 import AdamATan2
from hrm_engine.optim.groups import decay_groups, muon_groups
from hrm_engine.optim.muon import Muon
from hrm_engine.optim.updater import AskingUpdater, DeviceUpdater, Updater
from hrm_engine.optim.weights import Weights

EPS = 1e-8


class AdamWUpdater(DeviceUpdater):
    """Torch's fused AdamW; clipping and skipping happen inside its kernel."""

    def _make(self, config: OptimConfig, decay_all: bool) -> list[torch.optim.Optimizer]:
        groups = decay_groups(self.weights.parameters, config.lr, config.weight_decay, decay_all=decay_all)
        return [torch.optim.AdamW(groups, betas=(config.beta1, config.beta2), eps=EPS, fused=True)]


class AdamATan2Updater(DeviceUpdater):
    """:class:`~hrm_engine.optim.adam_atan2.AdamATan2`, which HRM was trained with."""

    def _make(self, config: OptimConfig, decay_all: bool) -> list[torch.optim.Optimizer]:
        groups = decay_groups(self.weights.parameters, config.lr, config.weight_decay, decay_all=decay_all)
        return [AdamATan2(groups, betas=(config.beta1, config.beta2))]

    def load_state_tensors(self, tensors: dict[str, Tensor]) -> None:
        super().load_state_tensors(tensors)
        for optimizer in self.optimizers:
            assert isinstance(optimizer, AdamATan2)
            optimizer.share_steps()


class MuonUpdater(DeviceUpdater):
    """:class:`~hrm_engine.optim.muon.Muon` for hidden matrices, AdamW for embeddings, heads, routers and vectors."""

    def _make(self, config: OptimConfig, decay_all: bool) -> list[torch.optim.Optimizer]:
        hidden, rest = muon_groups(self.weights.parameters, config, decay_all=decay_all, stacks=True)
        muon = Muon(hidden)
        if not rest:
            return [muon]
        return [muon, torch.optim.AdamW(rest, betas=(config.beta1, config.beta2), eps=EPS, fused=True)]


class AdamW8bitUpdater(AskingUpdater):
    """bitsandbytes' AdamW with state in blocks of 8-bit numbers (Dettmers et al. 2022, arXiv 2110.02861)."""

    def _make(self, config: OptimConfig, decay_all: bool) -> list[torch.optim.Optimizer]:
        # Nothing here uses the kernel that it warns about where a package for kernels from the hub is missing.
        logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
        try:
            from bitsandbytes.optim.adamw import AdamW8bit
        except ImportError as error:
            raise missing_package("--use-8bit-optimizer", "bitsandbytes") from error
        groups = decay_groups(self.weights.parameters, config.lr, config.weight_decay, decay_all=decay_all)
        return [AdamW8bit(groups, lr=config.lr, betas=(config.beta1, config.beta2), eps=EPS)]

    def _restored(self, tensor: Tensor, device: torch.device) -> object:
        return int(tensor) if tensor.ndim == 0 and not tensor.is_floating_point() else tensor.to(device)


BUILT_IN: dict[str, tuple[type[Updater], str]] = {
    "adamw": (AdamWUpdater, "AdamW (torch, fused)"),
    "adam_atan2": (AdamATan2Updater, "Adam with an arc tangent instead of a division; HRM's own"),
    "muon": (MuonUpdater, "Muon on hidden matrices, AdamW with --adam-lr on everything else"),
    "adamw_8bit": (AdamW8bitUpdater, "AdamW with 8-bit state (bitsandbytes); the same as --use-8bit-optimizer"),
}


@dataclass(frozen=True)
class Rule:
    """A name for ``--optimizer``. ``refused``: why it cannot be used; empty where it can."""

    name: str
    source: str
    description: str
    refused: str


def list_rules() -> list[Rule]:
    """All names, the built-in ones first."""
    from pytorch_optimizer import get_supported_optimizers

    rules = [Rule(name, "built in", text, "") for name, (_, text) in BUILT_IN.items()]
    names = [name for name in get_supported_optimizers() if name not in BUILT_IN]
    return rules + [Rule(n, "pytorch_optimizer", library.describe(n), library.REFUSED.get(n, "")) for n in names]


def make_updater(weights: Weights, config: OptimConfig, *, loss_scaling: bool, decay_all: bool = False) -> Updater:
    """The updater that a configuration names.

    Args:
        decay_all: weight decay on all parameters (puzzles, as HRM was trained); else on matrices that are no embedding.

    Raises:
        ConfigError: no such rule, one that cannot be used here, or settings that are none of its own.
        MissingExtraError: the optional package it needs is not installed.
    """
    name = "adamw_8bit" if config.use_8bit_optimizer else config.optimizer
    if name in BUILT_IN:
        rule = BUILT_IN[name][0]
        with_adam = name == "muon"
    else:
        check_name(name)
        rule = library.LibraryUpdater
        with_adam = name in library.MUON_LIKE
    if not with_adam:
        for flag, value in (("--adam-lr", config.adam_lr), ("--adam-weight-decay", config.adam_weight_decay)):
            if value is not None:
                raise ConfigError(f"{flag} is for rules that leave a part to AdamW (muon), not for --optimizer {name}")
    if rule.averages_weights_of(config) and config.ema_decay:
        raise ConfigError(
            f"--optimizer {name} averages the weights itself, and that average is what is evaluated and kept; "
            "use --ema-decay 0"
        )
    return rule(weights, config, loss_scaling=loss_scaling, decay_all=decay_all)


def check_name(name: str) -> None:
    """Raise ConfigError where ``name`` is no rule, or one that cannot be used."""
    if name in BUILT_IN:
        return
    from pytorch_optimizer import get_supported_optimizers

    known = {*BUILT_IN, *get_supported_optimizers()}
    if name not in known:
        near = difflib.get_close_matches(name.lower(), sorted(known), n=3, cutoff=0.5)
        hint = f"did you mean {', '.join(near)}? " if near else ""
        raise ConfigError(f"--optimizer {name}: there is no such rule; {hint}'lab optim list' shows all")
    if reason := library.REFUSED.get(name):
        raise ConfigError(f"--optimizer {name} cannot be used: {reason}; 'lab optim list' shows those that can")
