"""Named tensors on disk: safetensors, in shards where they are large. Nothing that is read here can execute."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from hrm_engine.errors import BundleError, HRMError
from hrm_engine.kernels.device import returning_memory
from hrm_engine.reading import open_regular, refuse_pointer
from hrm_engine.store.files import read_json, write_bytes, write_json

MAX_SHARD_BYTES = 2_000_000_000
MAX_HEADER_BYTES = 10_000_000
"""Most bytes of the list of tensors in a file: some 100,000 of them."""
WEIGHT_TYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
"""Types of numbers that weights can have."""
Shape = tuple[int, ...]


def save_tensors(
    folder: Path, stem: str, tensors: Mapping[str, Tensor], *, max_shard_bytes: int = MAX_SHARD_BYTES
) -> list[str]:
    """Write ``stem.safetensors``, or ``stem-00001-of-0000N.safetensors`` with ``stem.safetensors.index.json``.

    Returns the names of the files written. Raises StorageError.
    """
    shards: list[dict[str, Tensor]] = [{}]
    storages: set[int] = set()
    size = 0
    for name, tensor in tensors.items():
        if shards[-1] and size + tensor.nbytes > max_shard_bytes:
            shards.append({})
            size = 0
        plain = tensor.detach().cpu().contiguous()
        # The format knows no shared memory; the tables of the 8-bit optimizer are one tensor under many names.
        shared = plain.untyped_storage().data_ptr() in storages
        storages.add(plain.untyped_storage().data_ptr())
        shards[-1][name] = plain.clone() if shared else plain
        size += tensor.nbytes
    if len(shards) == 1:
        names = [f"{stem}.safetensors"]
    else:
        names = [f"{stem}-{number:05d}-of-{len(shards):05d}.safetensors" for number in range(1, len(shards) + 1)]
    for file_name, shard in zip(names, shards, strict=True):
        with returning_memory():
            write_bytes(folder / file_name, safetensors.torch.save(shard, {"format": "pt"}))
    index = folder / f"{stem}.safetensors.index.json"
    if len(shards) > 1:
        where = {name: file_name for file_name, shard in zip(names, shards, strict=True) for name in shard}
        write_json(index, {"metadata": {"total_size": sum(t.nbytes for t in tensors.values())}, "weight_map": where})
        names.append(index.name)
    return names


def load_tensors(folder: Path, stem: str, *, error: type[HRMError] = BundleError) -> dict[str, Tensor]:
    """Read what :func:`save_tensors` wrote, on the CPU. Raises ``error``, naming the file."""
    tensors: dict[str, Tensor] = {}
    for path in _files(folder, stem, error):
        tensors |= load_file(path, error=error)
    return tensors


def load_file(
    path: Path, *, error: type[HRMError] = BundleError, only: Collection[str] | None = None
) -> dict[str, Tensor]:
    """Read one safetensors file. Raises ``error`` for another format, a damaged header or overlapping tensors.

    Args:
        only: names of the tensors that are needed, as far as they are there.
    """
    with _reading(path, error), safe_open(path, framework="pt") as reader:
        # Copied out of the mapped file: where its bytes happen to lie decides the last bits of some sums, and Windows
        # removes no file that is mapped.
        names = [name for name in reader.keys() if only is None or name in only]  # noqa: SIM118 - not a mapping
        return {name: reader.get_tensor(name).clone() for name in names}


def meta_tensors(folder: Path, stem: str, *, error: type[HRMError] = BundleError) -> dict[str, Tensor]:
    """Tensors without data, of which names, shapes and types are those in the files. Raises ``error``."""
    tensors: dict[str, Tensor] = {}
    for path in _files(folder, stem, error):
        with _reading(path, error), safe_open(path, framework="pt") as reader:
            # of a mapped file: their numbers are not read
            tensors |= {name: reader.get_tensor(name).to("meta") for name in reader.keys()}  # noqa: SIM118
    return tensors


def check_shapes(tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor | Shape], *, where: Path) -> list[str]:
    """One sentence for each name that is missing, too many, of another shape, or no floating-point numbers."""
    shapes, own = (
        {name: tuple(value.shape) if isinstance(value, Tensor) else value for name, value in side.items()}
        for side in (tensors, expected)
    )
    problems = [f"{where}: {name} is missing" for name in own if name not in shapes]
    problems += [f"{where}: {name} is not part of this model" for name in shapes if name not in own]
    problems += [
        f"{where}: {name} has shape {shapes[name]}, the model needs {shape}"
        for name, shape in own.items()
        if shapes.get(name, shape) != shape
    ]
    return problems + check_types({name: tensor for name, tensor in tensors.items() if name in own}, where=where)


def check_types(tensors: Mapping[str, Tensor], *, where: object) -> list[str]:
    """One sentence for each tensor whose numbers are no weights: whole, complex, or quantized ones."""
    return [
        f"{where}: {name} has numbers of type {str(tensor.dtype).removeprefix('torch.')}, and weights are "
        "floating-point numbers of 16 bits or more"
        for name, tensor in tensors.items()
        if tensor.dtype not in WEIGHT_TYPES
    ]


def check_finite(tensors: Mapping[str, Tensor], *, where: object, error: type[HRMError] = BundleError) -> None:
    """Raise ``error``, naming the first tensor that holds NaN or an infinite number."""
    for name, tensor in tensors.items():
        # the two ends alone take no memory, and a NaN is both of them
        if tensor.numel() and not torch.stack(tensor.aminmax()).isfinite().all():
            count = tensor.numel() - int(tensor.isfinite().sum())
            raise error(
                f"{where}: {count} of the {tensor.numel()} numbers of {name} are NaN or infinite; take a sound copy "
                "or an earlier checkpoint"
            )


def _files(folder: Path, stem: str, error: type[HRMError]) -> list[Path]:
    index = folder / f"{stem}.safetensors.index.json"
    if not index.is_file():
        return [folder / f"{stem}.safetensors"]
    where = read_json(index, error).get("weight_map")
    if not isinstance(where, dict) or not all(_is_plain_name(name) for name in where.values()):
        raise error(f"{index}: no usable weight_map")
    return [folder / name for name in sorted(set(where.values()))]


@contextmanager
def _reading(path: Path, error: type[HRMError]) -> Iterator[None]:
    """Raise ``error`` where a file is no whole safetensors file."""
    # A header claiming more than the file holds is refused before anything is allocated for it.
    try:
        with open_regular(path) as file:
            header = file.read(64)
            size = os.fstat(file.fileno()).st_size
    except (OSError, ValueError) as problem:
        raise error(f"{path} cannot be read: {problem}") from problem
    refuse_pointer(path, header, error)
    length = int.from_bytes(header[:8], "little")
    if len(header) < 9 or header[8:9] != b"{" or length > size - 8:
        raise error(f"{path} is not a safetensors file (its header is damaged or of another format); it was not opened")
    if length > MAX_HEADER_BYTES:
        raise error(f"{path} is not a safetensors file of a model: its list of tensors has {length:,} bytes")
    try:
        yield
    except (SafetensorError, OSError, json.JSONDecodeError) as problem:
        raise error(f"{path} is not a safetensors file that can be read: {problem}") from problem


def _is_plain_name(name: object) -> bool:
    return isinstance(name, str) and name.endswith(".safetensors") and Path(name).name == name


def expert_shapes(width: int, inner: int) -> dict[str, tuple[int, ...]]:
    """Shapes of the tensors of an expert."""
    return {"gate_proj": (inner, width), "up_proj": (inner, width), "down_proj": (width, inner), "router": (width,)}
