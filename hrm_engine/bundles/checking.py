"""Checks of weights and companions of a bundle whose files are what was written; loads no weights."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import torch

from hrm_engine.bundles.core_config import attached_experts, read_config, read_core_config, read_kind
from hrm_engine.bundles.puzzle_card import PuzzleCard
from hrm_engine.bundles.weights import check_shapes, expert_shapes, meta_tensors
from hrm_engine.config import ExpertConfig, kinds
from hrm_engine.data.text.tokenizer import Tokenizer
from hrm_engine.errors import BundleError, HRMError
from hrm_engine.models.core import RecurrentCore


def bundle_problems(path: Path) -> list[str]:
    """Everything that the check of its kind finds, one sentence each; nothing for kinds without one."""
    try:
        recorded = read_kind(path, error=BundleError)
        kind = kinds.named(recorded)
        if recorded is None:
            return [f"{path / 'config.json'} names no kind"]
        if kind is None or kind.check is None:
            return []
        module, name = kind.check.split(":")
        problems: list[str] = getattr(import_module(module), name)(path)
    except HRMError as problem:
        return [str(problem)]
    return problems


def text_problems(path: Path) -> list[str]:
    """Problems of a text brain."""
    return _core_problems(path, Tokenizer.load(path).vocab_size, "tokenizer.json")


def puzzle_problems(path: Path) -> list[str]:
    """Problems of a solver."""
    return _core_problems(path, PuzzleCard.load(path).vocab_size, "puzzle.json")


def expert_problems(path: Path) -> list[str]:
    """Problems of an expert."""
    config = read_config(path, ExpertConfig, error=BundleError)
    expected = expert_shapes(config.hidden_size, config.intermediate_size)
    return check_shapes(meta_tensors(path, "expert"), expected, where=path / "expert.safetensors")


def _core_problems(path: Path, num_tokens: int, source: str) -> list[str]:
    config = read_core_config(path, error=BundleError)
    tensors = meta_tensors(path, "model")
    with torch.device("meta"):
        expected = RecurrentCore(config).state_dict()
    problems = check_shapes(tensors, expected, where=path / "model.safetensors")
    try:
        attached_experts(path)
    except BundleError as problem:
        problems.append(str(problem))
    if num_tokens > config.vocab_size:
        problems.append(f"{source} has {num_tokens} tokens, the model only {config.vocab_size}")
    return problems
