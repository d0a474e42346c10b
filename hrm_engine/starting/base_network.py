"""The base of an expert: a frozen text bundle, or a causal model in Hugging Face format."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from hrm_engine.bundles.bundle import Bundle
from hrm_engine.bundles.listing import descends_from, parent_record
from hrm_engine.bundles.load import load_bundle
from hrm_engine.config import ExpertTrainConfig
from hrm_engine.config.core import inner_width
from hrm_engine.data.text.tokenizer import Tokenizer
from hrm_engine.starting.implant import load_network
from hrm_engine.store.files import sha256_file, storing
from hrm_engine.store.paths import CONFIG_FILE, Workspace
from hrm_engine.store.runs import find_run


@dataclass(frozen=True)
class BaseNetwork:
    """A base, and the facts about it that an expert needs."""

    network: nn.Module
    """A recurrent core, or a causal model of transformers; fp32, on the CPU."""
    tokenizer: Tokenizer
    place: str
    """Path in the workspace, or hub id."""
    digest: str | None
    """Hash over its files; None for a hub id."""
    folder: Path | None
    """Of the bundle, or of a model on this machine."""
    width: int
    inner: int
    layer: str | None
    """Layer of a core in which the expert takes part; None behind the last layer of any other model."""
    segments: int
    most_positions: int | None
    """Longest row it can take; None where nothing limits it."""

    def is_of(self, place: object, digest: object) -> bool:
        """Whether it is the base ``place`` with this hash, or a bundle that was made of it.

        A hub id has no hash: then the name alone counts.
        """
        if not isinstance(digest, str) or self.digest is None:
            return digest is None and self.digest is None and place == self.place
        if digest == self.digest or self.folder is None or self.layer is None:
            return digest == self.digest
        return descends_from(self.folder, digest)


def find_base(config: ExpertTrainConfig, workspace: Workspace) -> tuple[BaseNetwork, list[str]]:
    """The bundle of ``--student-init``, else of ``--brain-name``, else the network of ``--model``; and messages.

    Raises:
        BundleError: a bundle was named that is not there, is damaged or of another kind.
        ConfigError: the model is neither a folder nor a hub id that can be had from here.
    """
    named = config.start.student_init if config.start.student_init is not None else config.run.brain_name
    if named is not None:
        return _bundle(find_run(str(named), workspace), workspace)
    return _folder(config, workspace)


def _bundle(folder: Path, workspace: Workspace) -> tuple[BaseNetwork, list[str]]:
    bundle = load_bundle(folder, Bundle, device="cpu", dtype=torch.float32, workspace=workspace)
    core = bundle.config
    layer = f"H.{core.h_layers - 1}"
    base = BaseNetwork(
        network=bundle.model,
        tokenizer=bundle.tokenizer,
        place=_place(folder, workspace),
        digest=parent_record(folder)["sha256"],
        folder=folder,
        width=core.hidden_size,
        inner=core.intermediate_size,
        layer=layer,
        segments=core.halt_max_steps,
        most_positions=core.max_seq_len if core.pos_encodings == "learned" else None,
    )
    return base, [f"the base is {base.place}; the expert takes part in its layer {layer}"]


def _folder(config: ExpertTrainConfig, workspace: Workspace) -> tuple[BaseNetwork, list[str]]:
    network, tokenizer, folder, messages = load_network(config.start.model, workspace)
    settings: Any = network.config
    width = int(settings.hidden_size)
    base = BaseNetwork(
        network=network.float(),
        tokenizer=tokenizer,
        place=config.start.model if folder is None else _place(folder, workspace),
        digest=None if folder is None else _digest(folder),
        folder=folder,
        width=width,
        inner=inner_width(width, config.network.expansion),
        layer=None,
        segments=1,
        most_positions=getattr(settings, "max_position_embeddings", None),
    )
    return base, [*messages, f"the base is the network of {base.place}; the expert stands behind its last layer"]


def _digest(folder: Path) -> str:
    """Hash over what makes a model folder the base that it is: configuration, weights and tokenizer."""
    files = [folder / CONFIG_FILE, folder / "tokenizer.json", *folder.glob("*.safetensors"), *folder.glob("*.bin")]
    with storing(folder, doing="read"):
        hashes = {file.name: sha256_file(file) for file in files if file.is_file()}
    return hashlib.sha256(json.dumps(hashes, sort_keys=True).encode()).hexdigest()


def _place(folder: Path, workspace: Workspace) -> str:
    root = workspace.root.absolute()
    return folder.relative_to(root).as_posix() if folder.is_relative_to(root) else str(folder)
