"""Named tensors on disk: safetensors, in shards where they are large. Nothing that is read here can execute."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import safetensors.torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from hrm_engine.errors import BundleError, HRMError
from hrm_engine.store.files import read_json, write_bytes, write_json

MAX_SHARD_BYTES = 2_000_000_000
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


def load_file(path: Path, *, error: type[HRMError] = BundleError) -> dict[str, Tensor]:
    """Read one safetensors file. Raises ``error`` for another format, a damaged header or overlapping tensors."""
    with _reading(path, error):
        # Copied out of the mapped file: where its bytes happen to lie decides the last bits of some sums, and Windows
        # removes no file that is mapped.
        return {name: tensor.clone() for name, tensor in safetensors.torch.load_file(path).items()}


def tensor_shapes(folder: Path, stem: str, *, error: type[HRMError] = BundleError) -> dict[str, Shape]:
    """Names and shapes alone, without reading the data. Raises ``error``."""
    shapes: dict[str, Shape] = {}
    for path in _files(folder, stem, error):
        with _reading(path, error), safe_open(path, framework="pt") as reader:
            for key in reader.keys():  # noqa: SIM118 - not a mapping
                shapes[key] = tuple(reader.get_slice(key).get_shape())
    return shapes


def check_shapes(
    tensors: Mapping[str, Tensor | Shape], expected: Mapping[str, Tensor | Shape], *, where: Path
) -> list[str]:
    """One sentence for each name that is missing, too many, or of another shape."""
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
    return problems


def check_finite(tensors: Mapping[str, Tensor], *, where: str) -> None:
    """Raise BundleError, naming the first tensor that holds NaN or an infinite number."""
    for name, tensor in tensors.items():
        if not (is_finite := tensor.isfinite()).all():
            count = tensor.numel() - int(is_finite.sum())
            raise BundleError(
                f"{where} cannot be imported: {count} of the {tensor.numel()} numbers of {name} are NaN or infinite; "
                "take a sound copy or an earlier checkpoint"
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
        with path.open("rb") as file:
            header = file.read(9)
            size = path.stat().st_size
    except OSError as problem:
        raise error(f"{path} cannot be read: {problem}") from problem
    length = int.from_bytes(header[:8], "little")
    if len(header) < 9 or header[8:] != b"{" or length > size - 8:
        raise error(f"{path} is not a safetensors file (its header is damaged or of another format); it was not opened")
    try:
        yield
    except (SafetensorError, OSError, json.JSONDecodeError) as problem:
        raise error(f"{path} is not a safetensors file that can be read: {problem}") from problem


def _is_plain_name(name: object) -> bool:
    return isinstance(name, str) and name.endswith(".safetensors") and Path(name).name == name


def expert_shapes(width: int, inner: int) -> dict[str, tuple[int, ...]]:
    """Shapes of the tensors of an expert."""
    return {"gate_proj": (inner, width), "up_proj": (inner, width), "down_proj": (width, inner), "router": (width,)}
