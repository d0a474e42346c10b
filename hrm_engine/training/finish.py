"""The end of a run: ``best/`` and the top-level files that make the run folder a bundle."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch
from torch import Tensor

from hrm_engine.bundles.save import seal_bundle, write_model
from hrm_engine.bundles.weights import load_tensors
from hrm_engine.config import CoreConfig, TextTrainConfig
from hrm_engine.data.text.tokenizer import Tokenizer
from hrm_engine.store.clock import now_iso
from hrm_engine.store.files import new_folder, read_json, write_json
from hrm_engine.store.manifest import check_manifest, write_manifest
from hrm_engine.training.run_folder import write_args
from hrm_engine.training.state import TrainState

BEST_FOLDER = "best"
EVALUATION_FILE = "evaluation.json"
LIBRARIES = ("torch", "numpy", "transformers", "tokenizers", "safetensors", "bitsandbytes")


def write_best(
    run_dir: Path, core: CoreConfig, weights: dict[str, Tensor], tokenizer: Tokenizer, state: TrainState
) -> None:
    """Replace ``best/`` by the weights of this moment. Raises StorageError."""
    with new_folder(run_dir / BEST_FOLDER, replace=True) as folder:
        write_model(folder, core, weights, tokenizer)
        write_json(folder / EVALUATION_FILE, state.last_eval or {})
        write_manifest(folder)


def finish_run(
    run_dir: Path,
    *,
    core: CoreConfig,
    config: TextTrainConfig,
    command_line: list[str] | None,
    weights: dict[str, Tensor],
    tokenizer: Tokenizer,
    state: TrainState,
    run_id: str,
    device: torch.device,
) -> None:
    """Write the bundle: weights of the best evaluation if there is one, else the last; ``metadata.json`` last."""
    which = {"which": "last", "step": state.step}
    best = _best_weights(run_dir, state)
    if best is not None:
        weights, which = best, {"which": "best", "step": state.best_step}
    weight_files = write_model(run_dir, core, weights, tokenizer)
    write_args(run_dir, config, command_line)
    seal_bundle(
        run_dir,
        weight_files,
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
            "trained_s": round(state.trained_s, 3),
        },
    )


def library_version(name: str) -> str | None:
    """Version of an installed distribution, None where it is not installed."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _best_weights(run_dir: Path, state: TrainState) -> dict[str, Tensor] | None:
    folder = run_dir / BEST_FOLDER
    if state.best_step is None or check_manifest(folder):
        return None
    # After a kill, best/ can be ahead of the checkpoint that the run was continued from; then it is another run's best.
    if read_json(folder / EVALUATION_FILE).get("step") != state.best_step:
        return None
    return load_tensors(folder, "model")
