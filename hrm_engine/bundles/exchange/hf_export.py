"""Text bundles become folders that plain transformers loads: model type ``hrm_text``, no code of ours."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hrm_engine.bundles.bundle import Bundle
from hrm_engine.bundles.exchange.hf_config import gradient_calls, hf_problems, their_settings
from hrm_engine.bundles.hub import quiet_transformers, save_tokenizer
from hrm_engine.bundles.load import load_bundle
from hrm_engine.config import CoreConfig
from hrm_engine.config.core import MAX_SEGMENTS
from hrm_engine.errors import BundleError, ConfigError
from hrm_engine.store.files import new_folder
from hrm_engine.store.paths import Workspace

_BODY = "model."


@dataclass(frozen=True)
class FolderReport:
    """The folder written, and what of the bundle it does not hold (``lost``) or holds in other words (``changed``)."""

    folder: Path
    num_parameters: int
    lost: str
    changed: str


def export_folder(
    bundle: str | Path, folder: Path, *, workspace: Workspace, segments: int | None = None
) -> FolderReport:
    """Write a text bundle as a folder in Hugging Face format, with its tokenizer.

    Args:
        segments: the depth at which its text is read; needed where the bundle has more than one, because the format
            has no halting head and one depth.

    Raises:
        BundleError: no such bundle, damaged, of another kind, or a network that the format cannot express; it says
            why. ConfigError: ``folder`` exists; no depth was chosen, or one out of range. StorageError: cannot write.
    """
    folder = workspace.resolve(folder)
    if folder.exists():
        raise ConfigError(f"{folder} exists: choose another folder")
    loaded = load_bundle(bundle, Bundle, device="cpu", workspace=workspace)
    if problems := hf_problems(loaded.config):
        raise BundleError(f"{loaded.path} cannot be written as --format hf: {'; '.join(problems)}")
    trained = loaded.config.halt_max_steps
    if segments is None and trained > 1:
        raise ConfigError(
            f"{loaded.path} was trained for {trained} segments, with a halting head that hrm_text does not have; "
            f"choose the depth at which it is read: --segments {trained}, the deepest, or fewer. The halting head "
            "and the other depths are left out"
        )
    depth = 1 if segments is None else segments
    if not 1 <= depth <= MAX_SEGMENTS:
        raise ConfigError(f"--segments {depth}: use 1 to {MAX_SEGMENTS}; the model was trained for {trained}")
    tensors = their_tensors(loaded.model.state_dict(), loaded.config)
    with new_folder(folder) as target:
        _write_model(target, loaded, tensors, depth)
        _write_tokenizer(target, loaded)
    return FolderReport(
        folder=folder,
        num_parameters=sum(tensor.numel() for name, tensor in tensors.items() if not name.endswith("_init")),
        lost="nothing" if trained == 1 else f"the halting head, and every depth but {depth} of {trained} segments",
        changed="nothing" if loaded.config.attention_gate else "without a gate: gates of 1/2 and o_proj twice as large",
    )


def their_tensors(tensors: dict[str, Tensor], config: CoreConfig) -> dict[str, Tensor]:
    """Our weights under their names.

    Theirs always have a gate. One of zeros is a factor of exactly 1/2, which twice the output projection undoes without
    rounding.
    """
    theirs: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if name.startswith("halt_head.") or name == "z_H_init":
            continue
        if not config.attention_gate and name.endswith("self_attn.o_proj.weight"):
            tensor = 2 * tensor
            theirs[_BODY + name.replace("o_proj", "gate_proj")] = torch.zeros_like(tensor.T).contiguous()
        theirs[name if name.startswith("lm_head.") else _BODY + name] = tensor
    return theirs


def _write_model(target: Path, loaded: Bundle, tensors: dict[str, Tensor], depth: int) -> None:
    """Configuration and weights as the library itself lays them down: it fuses matrices, and cuts large files."""
    from transformers import GenerationConfig
    from transformers.models.hrm_text.configuration_hrm_text import HrmTextConfig
    from transformers.models.hrm_text.modeling_hrm_text import HrmTextForCausalLM

    tokenizer, origin = loaded.tokenizer, loaded.imported_from_transformers
    ends = sorted(tokenizer.end_ids)
    settings: dict[str, Any] = {
        "L_bp_cycles": gradient_calls(loaded.config, segments=depth),
        "bos_token_id": tokenizer.bos_id,
        "eos_token_id": ends[0] if len(ends) == 1 else ends,
        "pad_token_id": tokenizer.pad_id,
        **origin.get("config", {}),
        **their_settings(loaded.config, segments=depth),
        "dtype": str(loaded.model.lm_head.weight.dtype).removeprefix("torch."),
    }
    names = ("bos_token_id", "eos_token_id", "pad_token_id")
    with quiet_transformers():
        with torch.device("meta"):
            model = HrmTextForCausalLM(HrmTextConfig.from_dict(settings))
        model.load_state_dict(tensors, assign=True)
        model.generation_config = GenerationConfig.from_dict(
            origin.get("generation") or {name: settings[name] for name in names}
        )
        model.save_pretrained(target)


def _write_tokenizer(target: Path, loaded: Bundle) -> None:
    """The tokenizer; one of ours puts the begin token before a text, as its training and ``lab generate`` do."""
    tokenizer, origin = loaded.tokenizer, loaded.imported_from_transformers
    own = {
        "bos_token": tokenizer.name_of(tokenizer.bos_id),
        "eos_token": tokenizer.name_of(tokenizer.eos_id),
        "pad_token": tokenizer.name_of(tokenizer.pad_id),
        "add_bos_token": True,
        # text is only ever text here, also where it spells a special token
        "split_special_tokens": True,
        "padding_side": "left",
        "model_max_length": loaded.config.max_seq_len,
    }
    save_tokenizer(tokenizer, target, **(origin.get("tokenizer") or own))
