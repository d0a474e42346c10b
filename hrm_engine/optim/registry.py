"""Names of update rules: the built-in ones and those of pytorch_optimizer."""

from __future__ import annotations

import difflib
from dataclasses import dataclass

from hrm_engine.config.training import OptimConfig
from hrm_engine.errors import ConfigError
from hrm_engine.optim import library
from hrm_engine.optim.rules import AdamATan2Updater, AdamW8bitUpdater, AdamWUpdater, MuonUpdater
from hrm_engine.optim.updater import Updater
from hrm_engine.optim.weights import Weights

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
    rules = [Rule(name, "built in", text, "") for name, (_, text) in BUILT_IN.items()]
    for name in library.names():
        if name not in BUILT_IN:
            rules.append(Rule(name, "pytorch_optimizer", library.describe(name), library.refusal(name)))
    return rules


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
        with_adam = library.takes_muon_groups(name)
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
    known = {*BUILT_IN, *library.names()}
    if name not in known:
        near = difflib.get_close_matches(name.lower(), sorted(known), n=3, cutoff=0.5)
        hint = f"did you mean {', '.join(near)}? " if near else ""
        raise ConfigError(f"--optimizer {name}: there is no such rule; {hint}'lab optim list' shows all")
    if reason := library.refusal(name):
        raise ConfigError(f"--optimizer {name} cannot be used: {reason}; 'lab optim list' shows those that can")
