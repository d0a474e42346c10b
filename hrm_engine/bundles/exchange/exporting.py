"""Bundles become checkpoints that the reference implementations load."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from hrm_engine.bundles.bundle import PuzzleBundle
from hrm_engine.bundles.exchange.checkpoint import CONFIG_FILE, write_arch, write_checkpoint
from hrm_engine.bundles.exchange.importing import UNUSED_STEM, theirs_of
from hrm_engine.bundles.exchange.names import COMPILED, Format, differences
from hrm_engine.bundles.exchange.sizes import expansion_of
from hrm_engine.bundles.load import load_bundle
from hrm_engine.bundles.weights import load_tensors
from hrm_engine.config import ARCHITECTURES, CoreConfig
from hrm_engine.config.exchange import ExportConfig
from hrm_engine.errors import BundleError, ConfigError
from hrm_engine.store.paths import Workspace


@dataclass(frozen=True)
class ExportReport:
    """The files written; ``config_file`` is None where one stood there already."""

    checkpoint: Path
    config_file: Path | None
    num_tensors: int


def export_checkpoint(
    bundle: str | Path, kind: Format, path: Path, *, workspace: Workspace, settings: ExportConfig | None = None
) -> ExportReport:
    """Write a bundle's weights as a checkpoint, and beside it an ``all_config.yaml`` with the section ``arch``.

    The initial states are stored in ``forward_dtype``, the weights as they are.

    Raises:
        BundleError: no such bundle, damaged, of another kind, or a network that the format cannot express; it says
            why. ConfigError: ``path`` exists. StorageError: cannot write.
    """
    path = workspace.resolve(path)
    if path.exists():
        raise ConfigError(f"{path} exists: choose another path")
    loaded = load_bundle(bundle, PuzzleBundle, device="cpu", workspace=workspace)
    if problems := inexpressible(loaded.config, kind):
        raise BundleError(f"{loaded.path} cannot be written as --format {kind}: {'; '.join(problems)}")
    origin = loaded.metadata.get("imported")
    origin = origin if isinstance(origin, dict) else {}
    settings = settings or ExportConfig(format=kind)
    dtype = settings.forward_dtype or origin.get("forward_dtype") or "bfloat16"
    compiled = origin.get("is_compiled", True) if settings.compiled is None else settings.compiled
    has_unused = (loaded.path / f"{UNUSED_STEM}.safetensors").is_file()
    unused = load_tensors(loaded.path, UNUSED_STEM) if has_unused else {}
    tensors = theirs_of(loaded.model.state_dict(), loaded.config, kind, unused)
    for state in ("H_init", "L_init"):
        tensors[state] = tensors[state].to(getattr(torch, dtype))
    write_checkpoint(path, tensors, (COMPILED if compiled else "") + "model.inner.")
    config_file = path.with_name(CONFIG_FILE)
    if config_file.exists():
        return ExportReport(path, None, len(tensors))
    write_arch(config_file, arch_of(loaded.config, kind, dtype), kind)
    return ExportReport(path, config_file, len(tensors))


def inexpressible(config: CoreConfig, kind: Format) -> list[str]:
    """Why a network is not one of the format's: one clause for each setting that differs."""
    is_trm = kind == "trm"
    expected: dict[str, tuple[Any, ...]] = {
        **{name: (ARCHITECTURES["hrm"][name],) for name in ("norm", "exit_norm", "attention_gate", "inject_input")},
        "shared_modules": (is_trm,),
        "mixer": ("attention", "sequence_mlp") if is_trm else ("attention",),
        "activation": ("swiglu",),
        "initial_z_h": ("random", "zero"),
        "initial_z_l": ("random", "zero"),
        "pos_encodings": ("rope", "learned", "none") if is_trm else ("rope", "learned"),
        "halting": ("q_halt", "q_halt_continue") if is_trm else ("q_halt_continue",),
        "num_latents": (1,),
        "damping": (1.0,),
        "causal": (False,),
        "window_size": (None,),
        "head_width": (None,),
    }
    if config.mixer == "sequence_mlp":
        expected["mixer_norm"] = ("sequence",)
    problems = differences(config, expected)
    if expansion_of(config) is None:
        problems.append("its inner widths are no rounded multiples of 256 of one expansion")
    if not math.isclose(config.embedding_scale, config.hidden_size**0.5):
        problems.append(f"embedding_scale is {config.embedding_scale}, there it is the root of the width")
    needed = -(-(config.identifier_width or config.prefix_width) // config.hidden_size)
    if not is_trm and needed != config.prefix_tokens:
        problems.append(f"its puzzle embedding has {config.prefix_tokens} positions for the width of {needed}")
    return problems


def arch_of(config: CoreConfig, kind: Format, forward_dtype: str) -> dict[str, Any]:
    """The settings of a network under their names."""
    arch: dict[str, Any] = {
        "H_cycles": config.h_cycles,
        "L_cycles": config.l_cycles,
        "H_layers": config.h_layers if kind == "sapient-hrm" else 0,
        "L_layers": config.l_layers if kind == "sapient-hrm" else config.h_layers,
        "hidden_size": config.hidden_size,
        "num_heads": config.num_heads,
        "expansion": expansion_of(config),
        "puzzle_emb_ndim": config.identifier_width or config.prefix_width,
        "pos_encodings": config.pos_encodings,
        "rms_norm_eps": config.norm_eps,
        "rope_theta": config.rope_theta,
        "halt_max_steps": config.halt_max_steps,
        "forward_dtype": forward_dtype,
    }
    if kind == "trm":
        arch |= {
            "mlp_t": config.mixer == "sequence_mlp",
            "puzzle_emb_len": config.prefix_tokens,
            "no_ACT_continue": config.halting == "q_halt",
        }
    return arch
