"""The end of a run: ``best/`` and the top-level files that make the run folder a bundle."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hrm_engine.bundles.save import Companions, seal_bundle, write_model
from hrm_engine.bundles.weights import load_tensors
from hrm_engine.config import Config, TrainConfig
from hrm_engine.store.clock import now_iso
from hrm_engine.store.files import new_folder, read_json, write_json
from hrm_engine.store.manifest import check_manifest, write_manifest
from hrm_engine.store.paths import BEST_FOLDER
from hrm_engine.store.processes import library_version
from hrm_engine.training.run_folder import write_args
from hrm_engine.training.state import TrainState

EVALUATION_FILE = "evaluation.json"
LIBRARIES = ("torch", "numpy", "transformers", "tokenizers", "safetensors", "bitsandbytes")


def write_best(
    run_dir: Path, kind: str, core: Config, weights: dict[str, Tensor], companions: Companions, state: TrainState
) -> None:
    """Replace ``best/`` by the weights of this moment. Raises StorageError."""
    with new_folder(run_dir / BEST_FOLDER, replace=True) as folder:
        write_model(folder, kind, core, weights, companions)
        write_json(folder / EVALUATION_FILE, state.last_eval or {})
        write_manifest(folder)


def finish_run(
    run_dir: Path,
    *,
    core: Config,
    config: TrainConfig,
    command_line: list[str] | None,
    weights: dict[str, Tensor],
    which: dict[str, Any],
    companions: Companions,
    state: TrainState,
    run_id: str,
    device: torch.device,
    facts: Mapping[str, Any],
) -> None:
    """Write the bundle, ``metadata.json`` last.

    Args:
        which: says there what the weights are.
        facts: what else the task wants there.
    """
    files = write_model(run_dir, config.kind, core, weights, companions, weights_name=config.weights_name)
    write_args(run_dir, config, command_line)
    seal_bundle(
        run_dir,
        config.kind,
        files,
        {
            "run_id": run_id,
            "created": state.created,
            "updated": now_iso(),
            "step": state.step,
            "weights": which,
            "parent": state.parent,
            "code_version": library_version("hrm-lab"),
            "device": torch.cuda.get_device_name(device) if device.type == "cuda" else str(device),
            "library_versions": {
                "python": platform.python_version(),
                **{name: found for name in LIBRARIES if (found := library_version(name)) is not None},
            },
            "dataset_history": state.datasets,
            "last_metrics": state.last_eval,
            "first_metrics": state.first_eval,
            "full_evaluation": state.full_eval,
            "trained_s": round(state.trained_s, 3),
            **facts,
        },
    )


def best_weights(run_dir: Path, state: TrainState) -> dict[str, Tensor] | None:
    """Weights of the best evaluation of this run, None where there is none."""
    folder = run_dir / BEST_FOLDER
    if state.best_step is None or check_manifest(folder):
        return None
    # After a kill, best/ can be ahead of the checkpoint that the run was continued from; then it is another run's best.
    if read_json(folder / EVALUATION_FILE).get("step") != state.best_step:
        return None
    return load_tensors(folder, "model")
