"""Named tensors on disk: one file or shards, byte for byte what was given."""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path

import pytest
import torch

from hrm_engine.bundles.weights import (
    WEIGHT_TYPES,
    check_finite,
    check_shapes,
    load_file,
    load_tensors,
    meta_tensors,
    save_tensors,
)
from hrm_engine.errors import BundleError, CheckpointError


def some_tensors() -> dict[str, torch.Tensor]:
    """Tensors of many types, a scalar and an empty one among them."""
    generator = torch.Generator().manual_seed(0)
    floats = torch.randn(7, 5, generator=generator)
    return {
        "fp32": floats,
        "bf16": floats.bfloat16(),
        "fp16": floats.half(),
        "uint8": torch.arange(256, dtype=torch.uint8),
        "int64": torch.tensor(2**40),
        "empty": torch.zeros(0, 3),
        "not contiguous": floats.T,
        "nan": torch.tensor([float("nan"), float("inf")]),
    }


@pytest.mark.parametrize("max_shard_bytes", [10**9, 300, 1])
def test_what_is_read_is_what_was_written(tmp_path: Path, max_shard_bytes: int) -> None:
    tensors = some_tensors()
    names = save_tensors(tmp_path, "model", tensors, max_shard_bytes=max_shard_bytes)
    assert sorted(names) == sorted(path.name for path in tmp_path.iterdir())
    found = load_tensors(tmp_path, "model")
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert (found[name].dtype, found[name].shape) == (tensor.dtype, tensor.shape)
        assert torch.equal(found[name].nan_to_num(), tensor.nan_to_num()), name
    outlines = meta_tensors(tmp_path, "model")
    assert {name: (t.shape, t.dtype, t.is_meta) for name, t in outlines.items()} == {
        name: (tensor.shape, tensor.dtype, True) for name, tensor in tensors.items()
    }
    assert load_file(tmp_path / names[0], only=("fp32",)).keys() <= {"fp32"}


def test_shards_follow_the_names_of_hugging_face(tmp_path: Path) -> None:
    tensors = {name: torch.ones(100) for name in "abcde"}
    names = save_tensors(tmp_path, "model", tensors, max_shard_bytes=800)
    shards = [f"model-0000{number}-of-00003.safetensors" for number in (1, 2, 3)]
    assert names == [*shards, "model.safetensors.index.json"]
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    assert index == {
        "metadata": {"total_size": 2000},
        "weight_map": {"a": shards[0], "b": shards[0], "c": shards[1], "d": shards[1], "e": shards[2]},
    }
    (tmp_path / shards[1]).unlink()
    with pytest.raises(CheckpointError, match=shards[1]):
        load_tensors(tmp_path, "model", error=CheckpointError)


def test_tensors_that_share_memory_are_written_each_for_itself(tmp_path: Path) -> None:
    table = torch.arange(6.0)
    tensors = {"whole": table, "again": table, "part": table[2:4]}
    save_tensors(tmp_path, "model", tensors)
    found = load_tensors(tmp_path, "model")
    assert all(torch.equal(found[name], tensor) for name, tensor in tensors.items())
    found["whole"].zero_()
    assert torch.equal(found["again"], table)


def test_what_was_read_does_not_hang_on_the_file(tmp_path: Path) -> None:
    """Not mapped: aligned as fresh memory is, on which the last bits of sums depend; and the file can go."""
    save_tensors(tmp_path, "model", {"odd": torch.ones(3, dtype=torch.uint8), "weights": torch.ones(1000)})
    found = load_file(tmp_path / "model.safetensors")
    assert found["weights"].data_ptr() % 64 == 0
    (tmp_path / "model.safetensors").write_bytes(b"")
    assert found["weights"].sum() == 1000


def test_shapes_that_differ_are_each_named() -> None:
    tensors = {"a": torch.zeros(1, 2), "b": torch.zeros(3), "extra": torch.zeros(())}
    problems = check_shapes(tensors, {"a": (1, 2), "b": (4,), "c": (5,)}, where=Path("m"))
    assert problems == [
        "m: c is missing",
        "m: extra is not part of this model",
        "m: b has shape (3,), the model needs (4,)",
    ]


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"model\.safetensors cannot be read"):
        load_tensors(tmp_path, "model")
    (tmp_path / "model.safetensors").mkdir()
    with pytest.raises(BundleError, match=r"model\.safetensors cannot be read"):
        meta_tensors(tmp_path, "model")


@pytest.mark.parametrize(
    "dtype", [torch.int8, torch.int64, torch.bool, torch.complex64, torch.float8_e4m3fn, torch.float8_e5m2]
)
def test_numbers_that_are_no_weights(tmp_path: Path, dtype: torch.dtype) -> None:
    save_tensors(tmp_path, "model", {"weight": torch.zeros(2).to(dtype)})
    [problem] = check_shapes(meta_tensors(tmp_path, "model"), {"weight": (2,)}, where=tmp_path)
    assert f"weight has numbers of type {str(dtype).removeprefix('torch.')}" in problem
    assert all(not check_shapes({"w": torch.zeros(2, dtype=kind)}, {"w": (2,)}, where=Path()) for kind in WEIGHT_TYPES)


@pytest.mark.parametrize("dtype", WEIGHT_TYPES)
@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
def test_one_number_that_is_not_finite_is_found(dtype: torch.dtype, number: float) -> None:
    tensors = {"sound": torch.full((3,), torch.finfo(dtype).max, dtype=dtype), "none": torch.zeros(0, dtype=dtype)}
    check_finite(tensors, where="m")
    torn = torch.ones(5, 5, dtype=dtype)
    torn[4, 3] = number
    with pytest.raises(CheckpointError, match=r"^m: 1 of the 25 numbers of torn are NaN or infinite"):
        check_finite({**tensors, "torn": torn}, where="m", error=CheckpointError)


def test_files_that_are_not_opened(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    file.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n")
    with pytest.raises(BundleError, match=r"model\.safetensors is a pointer of Git LFS.* 'git lfs pull'"):
        load_file(file)
    header = json.dumps({f"a{n}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for n in range(200_000)})
    file.write_bytes(struct.pack("<Q", len(header)) + header.encode())
    with pytest.raises(BundleError, match=r"its list of tensors has 1\d,\d{3},\d{3} bytes"):
        load_file(file)
    file.unlink()
    os.mkfifo(file)
    with pytest.raises(BundleError, match=r"cannot be read: .*no regular file"):
        load_file(file)
    file.unlink()
    file.symlink_to("/dev/zero")
    with pytest.raises(BundleError, match=r"cannot be read: .*no regular file"):
        load_file(file)
