"""Checkpoints of the reference implementations on disk: a dictionary of tensors written by ``torch.save``.

Nothing in such a file is executed: it is read with ``weights_only=True``, and what that refuses is refused.
"""

from __future__ import annotations

import io
import pickle
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from hrm_engine.bundles.exchange.names import EMBEDDING, Format, prefix_of
from hrm_engine.errors import BundleError
from hrm_engine.reading import load_yaml, open_regular, refuse_pointer
from hrm_engine.store.files import write_bytes, write_text

_LARGEST_SHARE = 2
"""Most bytes of tensors for a byte of the file; above 1 some are stored once under several names."""
CONFIG_FILE = "all_config.yaml"
"""Beside a checkpoint: the configuration that both reference implementations save there."""

# Names of the networks in the configurations that the formats stand for: file and class.
_NAMES: dict[Format, str] = {
    "sapient-hrm": "hrm.hrm_act_v1@HierarchicalReasoningModel_ACTV1",
    "trm": "recursive_reasoning.trm@TinyRecursiveReasoningModel_ACTV1",
}


def read_checkpoint(path: Path) -> tuple[dict[str, Tensor], str]:
    """Tensors by name without prefix, on the CPU, and the prefix.

    Raises:
        BundleError: no file there; not a checkpoint; one that holds more than tensors; without the weight by which a
            checkpoint is recognised, or with names that do not share its prefix.
    """
    if not path.is_file():
        inside = sorted(file.name for file in path.iterdir()) if path.is_dir() else []
        hint = f"it is a folder; name the file in it: {', '.join(inside[:8])}" if inside else "there is no such file"
        raise BundleError(f"{path} cannot be imported: {hint}")
    content = _load(path)
    if not isinstance(content, Mapping) or not all(isinstance(name, str) for name in content):
        raise BundleError(f"{path} holds a {type(content).__name__}, and a dictionary of weights by name is needed")
    for name, value in content.items():
        if not (isinstance(value, Tensor) and value.is_floating_point() and value.layout == torch.strided):
            raise BundleError(
                f"{path}: {name!r} is not a plain tensor of floating-point numbers; export the network's state dict"
            )
    size = path.stat().st_size
    if (needed := sum(value.nbytes for value in content.values())) > _LARGEST_SHARE * size:
        raise BundleError(
            f"{path} has {size:,} bytes, and its tensors would need {needed:,}: it names the same numbers many times"
        )
    prefix = prefix_of(content)
    if prefix is None:
        raise BundleError(
            f"{path}: {EMBEDDING} is missing: this is no checkpoint of the reference implementations. Its first names "
            f"are {', '.join(list(content)[:5]) or 'none'}"
        )
    strange = [name for name in content if not name.startswith(prefix)]
    if strange:
        raise BundleError(f"{path}: {strange[0]} does not begin with {prefix!r} as the embedding's name does")
    return {name.removeprefix(prefix): tensor for name, tensor in content.items()}, prefix


def write_checkpoint(path: Path, tensors: Mapping[str, Tensor], prefix: str) -> None:
    """Write what :func:`read_checkpoint` reads. Raises StorageError."""
    buffer = io.BytesIO()
    torch.save({prefix + name: tensor.contiguous() for name, tensor in tensors.items()}, buffer)
    write_bytes(path, buffer.getvalue())


def read_arch(path: Path, kind: Format) -> dict[str, Any]:
    """The ``arch`` section of an ``all_config.yaml``.

    Raises:
        BundleError: not plain YAML, no such section, or the configuration of another network; it says which.
    """
    content = load_yaml(path, BundleError)
    arch = content.get("arch") if isinstance(content, dict) else None
    if not isinstance(arch, dict):
        raise BundleError(f"{path} has no section 'arch': it is not the configuration of a reference implementation")
    module, _, network = str(arch.get("name")).rpartition("@")
    # Variants of TRM have the class in files of other names.
    if network != _NAMES[kind].rpartition("@")[2] or (kind == "trm" and module.rpartition(".")[2] != "trm"):
        raise BundleError(f"{path} is of the network {arch.get('name')}; --format {kind} reads {_NAMES[kind]}")
    return arch


def write_arch(path: Path, arch: Mapping[str, Any], kind: Format) -> None:
    """Write an ``all_config.yaml`` with nothing but the section ``arch``. Raises StorageError."""
    write_text(path, yaml.safe_dump({"arch": {"name": _NAMES[kind], **arch}}, sort_keys=False))


def _load(path: Path) -> object:
    try:
        with open_regular(path) as file:
            refuse_pointer(path, file.read(64), BundleError)
        if zipfile.is_zipfile(path):  # torch compresses nothing
            with zipfile.ZipFile(path) as archive:
                if sum(part.file_size for part in archive.infolist()) > path.stat().st_size:
                    raise BundleError(f"{path} is packed tighter than torch.save packs: unpack it first")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about archives that are refused anyway
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as problem:
        reason = next((line for line in str(problem).splitlines() if "nsupported" in line), "it is not a whole pickle")
        raise BundleError(
            f"{path} holds more than weights, or is damaged ({reason.strip()}); it was not opened, because such a file "
            "can run programs. Save the network's state dict alone"
        ) from problem
    except (OSError, EOFError, RuntimeError, ValueError, KeyError, IndexError, TypeError, AttributeError) as problem:
        first_line = next(iter(str(problem).splitlines()), type(problem).__name__)
        raise BundleError(f"{path} is not a checkpoint that torch.load can read: {first_line}") from problem
    except zipfile.BadZipFile as problem:
        raise BundleError(f"{path} is a damaged checkpoint: {problem}") from problem
