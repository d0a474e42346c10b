"""Timing, and what this machine can do at all."""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from hrm_engine.kernels.device import DTYPES, choose_precision
from hrm_engine.starting.implant import create_implant
from hrm_engine.store.paths import Workspace


def describe(device: torch.device) -> str:
    """The processor or GPU in words."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    info = Path("/proc/cpuinfo")
    names = [line.split(":")[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
    return f"{names[0] if names else 'CPU'}, {torch.get_num_threads()} of {os.cpu_count()} cores"


def wait(device: torch.device) -> None:
    """Until the device has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def median_s(work: Callable[[], object], device: torch.device, *, runs: int = 9, warmup: int = 2) -> float:
    """Median wall time of ``work`` in seconds."""
    for _ in range(warmup):
        work()
    times = []
    for _ in range(runs):
        wait(device)
        start = time.perf_counter()
        work()
        wait(device)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def compute_dtype(device: torch.device) -> torch.dtype:
    """What trainings compute in by default: bf16 where the hardware has it (where not, one product takes seconds)."""
    return choose_precision(device, amp=True, model_dtype="fp32")[0].compute


def dtype_name(dtype: torch.dtype) -> str:
    """The name of a type as flags have it."""
    return next(name for name, named in DTYPES.items() if named == dtype)


def matmul_rate(
    device: torch.device, dtype: torch.dtype | None = None, *, runs: int = 15, side: int | None = None
) -> float:
    """Rate of square matrix products in FLOP/s, on random data (zeros run faster than anything real).

    Args:
        side: rows and columns; 2048 on a CPU and 4096 on a GPU by default, which is where the rate levels off.
    """
    size = side or (2048 if device.type == "cpu" else 4096)
    dtype = compute_dtype(device) if dtype is None else dtype
    left, right = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    return 2 * size**3 / median_s(lambda: left @ right, device, runs=runs, warmup=1)


def restart_peak(device: torch.device) -> None:
    """Let :func:`peak_memory_bytes` begin anew (on Linux and on a GPU; elsewhere it is the process's own peak)."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif (control := Path("/proc/self/clear_refs")).exists():
        control.write_text("5")


def peak_memory_bytes(device: torch.device) -> int:
    """Largest memory since :func:`restart_peak`: allocated on the GPU where there is one, else resident."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@functools.cache
def text_base(hidden_size: int) -> Path:
    """A workspace with the default corpus and a base model of that width, made once for all measurements."""
    folder = Path(tempfile.mkdtemp(prefix="bench-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    create_implant(workspace=Workspace(folder), hidden_size=hidden_size)
    return folder


@contextlib.contextmanager
def text_workspace(base: Path) -> Iterator[Workspace]:
    """A copy of what :func:`text_base` made, as the current folder."""
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        yield Workspace(Path(shutil.copytree(base, folder, dirs_exist_ok=True)))


def table(header: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)]) + "\n"
