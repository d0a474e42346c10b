"""Choice of device and of the types to compute in."""

from __future__ import annotations

import ctypes
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from threading import Event

import torch

from hrm_engine.errors import ConfigError

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

# glibc hands blocks above its mmap threshold back to the system when they are freed, and every new one costs a page
# fault per 4 KiB: a (2048, 8192) bf16 product took 57 ms that way and 9 ms with the threshold raised (bench/LOG.md).
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
_KEPT_BYTES, _RETURNED_BYTES = 1 << 30, 1 << 26
"""Blocks from these sizes on go back to the system: while a training computes, and where it makes files."""
_keeping = Event()


@dataclass(frozen=True)
class Precision:
    """Types of weights that are kept and of computing, and whether the loss needs scaling."""

    master: torch.dtype
    compute: torch.dtype
    stored: torch.dtype
    loss_scaling: bool


def choose_device(name: str, *, strict: bool = False) -> tuple[torch.device, str | None]:
    """The device for a ``--device`` value, and a message where it is another one.

    Raises:
        ConfigError: the device is missing and ``strict`` is set.
    """
    if name == "auto":
        for kind in ("cuda", "mps", "xpu"):
            if _available(kind):
                return torch.device(kind), None
        return torch.device("cpu"), None
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"--device {name}: use auto, cpu, cuda, cuda:N, mps or xpu") from error
    if _available(device.type) and (device.type != "cuda" or (device.index or 0) < torch.cuda.device_count()):
        return device, None
    if strict:
        raise ConfigError(
            f"--device {name} is not available here; use --device auto or cpu. Trainings fall back to the CPU by "
            "themselves, unless --strict is given"
        )
    return torch.device("cpu"), f"device {name} is not available here: running on the CPU (--strict forbids this)"


def choose_precision(device: torch.device, *, amp: bool, model_dtype: str) -> tuple[Precision, str | None]:
    """Types of a run from ``--amp`` and ``--model-dtype``, and a message where the hardware decided otherwise."""
    stored, note = DTYPES[model_dtype], None
    compute = stored
    if amp and stored == torch.float32:
        if has_bf16(device):
            compute = torch.bfloat16
        elif device.type == "cuda":
            compute, note = torch.float16, "no bf16 on this GPU: fp16 with loss scaling"
        else:
            note = "no bf16 arithmetic on this processor: computing in fp32"
    master = torch.bfloat16 if model_dtype == "bf16" else torch.float32
    return Precision(master, compute, stored, loss_scaling=compute == torch.float16), note


def can_compile(device: torch.device) -> bool:
    """Whether ``torch.compile`` can work on a device: it needs a C compiler, and Triton on a GPU."""
    has_compiler = any(shutil.which(name) for name in ("cc", "gcc", "clang", "cl"))
    return has_compiler and (device.type == "cpu" or find_spec("triton") is not None)


def keep_freed_memory() -> None:
    """Let glibc keep freed blocks for reuse instead of returning them to the system, where that is the library."""
    _keeping.set()
    _mallopt(M_MMAP_THRESHOLD, _KEPT_BYTES)
    _mallopt(M_TRIM_THRESHOLD, (1 << 31) - 1)


@contextmanager
def returning_memory() -> Iterator[None]:
    """Large blocks that are taken inside go back to the system when they are freed: a file's content is needed once."""
    if _keeping.is_set():
        _mallopt(M_MMAP_THRESHOLD, _RETURNED_BYTES)
    try:
        yield
    finally:
        if _keeping.is_set():
            _mallopt(M_MMAP_THRESHOLD, _KEPT_BYTES)


def _mallopt(name: int, value: int) -> None:
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):
            ctypes.CDLL("libc.so.6").mallopt(name, value)


def allocated_bytes(device: torch.device) -> int | None:
    """Bytes that torch holds on a GPU now; None on a CPU, where the process's resident memory tells."""
    return torch.cuda.memory_allocated(device) if device.type == "cuda" else None


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception means that memory ran out (the CPU allocator raises a plain RuntimeError)."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    # what the CPU allocator says on Windows and elsewhere, and what the libraries of CUDA and oneDNN say
    words = (
        *("not enough memory", "can't allocate memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUDA error: out of memory"),
        *("could not create a primitive", "could not create a memory"),
    )
    return isinstance(error, RuntimeError) and any(word in str(error) for word in words)


def release_memory(device: torch.device) -> None:
    """Give cached blocks back to the device, so that a smaller attempt can succeed."""
    if device.type == "cuda":
        torch.cuda.empty_cache()


def _available(kind: str) -> bool:
    backends = {"cuda": torch.cuda, "mps": torch.backends.mps, "xpu": torch.xpu}
    return kind == "cpu" or backends.get(kind, torch.xpu).is_available()


def has_bf16(device: torch.device) -> bool:
    """Whether a device has bf16 products of its own."""
    if device.type == "cuda":
        # torch's own question counts emulation, which is slower than fp16
        return bool(torch.version.hip) or torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type == "cpu":
        return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported() or _arm_bf16()
    return device.type == "xpu"


def _arm_bf16() -> bool:
    try:
        return " bf16" in Path("/proc/cpuinfo").read_text(encoding="ascii", errors="ignore")
    except OSError:
        return False
