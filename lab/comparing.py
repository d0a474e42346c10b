"""Comparisons of trainings: each made once, differences judged seed by seed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from hrm_engine.config import TrainConfig
from hrm_engine.store.files import readable_json
from hrm_engine.store.paths import METADATA_FILE, Workspace
from hrm_engine.training import train


def train_once(config: TrainConfig, *, data: str = "", workspace: Workspace | None = None) -> Path:
    """Run folder of a training with these settings, which is made if there is none and goes on if it has only begun.

    Args:
        config: names no run folder: the name is made from the settings.
        data: what stands for the data where a path does not, such as the fingerprint of a tokenizer.

    Raises:
        HRMError: as :func:`hrm_engine.train`.
    """
    workspace = workspace or Workspace.find()
    words = json.dumps([config.kind, config.model_dump(mode="json"), data], sort_keys=True)
    name = "comparison-" + hashlib.sha256(words.encode()).hexdigest()[:12]
    folder = workspace.resolve(config.run.bundle_dir) / name
    if readable_json(folder / METADATA_FILE).get("step") != config.run.steps:
        run = config.run.model_copy(update={config.run.name_leaf: name})
        train(config.model_copy(update={"run": run}), resume=folder.exists(), workspace=workspace)
    return folder


def paired(values: Sequence[float], others: Sequence[float], *, unit: str = "", more_is_better: bool = False) -> str:
    """Sentence about the differences between two networks, seed by seed: a seed is the same rows in the same order.

    It is called a difference where all seeds agree on its sign and it is more than twice its spread, the standard
    deviation over the seeds.
    """
    gaps = np.asarray(values) - np.asarray(others)
    spread = float(gaps.std(ddof=1)) if len(gaps) > 1 else float("nan")
    wins = int((gaps > 0 if more_is_better else gaps < 0).sum())
    verdict = "no difference that these seeds can tell"
    if wins in (0, len(gaps)) and abs(gaps.mean()) > 2 * spread:
        verdict = "better" if wins else "worse"
    sign = "higher" if more_is_better else "lower"
    return f"{gaps.mean():+.4f}{unit} (spread {spread:.4f}, {sign} in {wins} of {len(gaps)} seeds): {verdict}"
