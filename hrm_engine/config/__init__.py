"""Typed configuration: every parameter of the lab is declared here, once, and never imports torch."""

from hrm_engine.config import kinds
from hrm_engine.config.base import Config, Leaf, build_config, flat, leaves, load_preset
from hrm_engine.config.core import CoreConfig
from hrm_engine.config.expert import ExpertConfig, ExpertTrainConfig
from hrm_engine.config.network import ARCHITECTURES, NetworkConfig, resolve_core
from hrm_engine.config.puzzle import PuzzleTrainConfig
from hrm_engine.config.puzzle_network import PuzzleNetworkConfig, resolve_puzzle_core
from hrm_engine.config.text import TextTrainConfig
from hrm_engine.config.training import TrainConfig

__all__ = [
    "ARCHITECTURES",
    "Config",
    "CoreConfig",
    "ExpertConfig",
    "ExpertTrainConfig",
    "Leaf",
    "NetworkConfig",
    "PuzzleNetworkConfig",
    "PuzzleTrainConfig",
    "TextTrainConfig",
    "TrainConfig",
    "build_config",
    "flat",
    "kinds",
    "leaves",
    "load_preset",
    "resolve_core",
    "resolve_puzzle_core",
]
