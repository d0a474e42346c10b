"""``lab doctor``: what this machine and installation can do, and how to mend what they cannot."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

import psutil
from rich.text import Text

from hrm_engine.errors import HRMError, install_command
from hrm_engine.store.files import ensure_writable
from hrm_engine.store.paths import Workspace
from lab.cli.console import human_bytes, say, show_json, show_table
from lab.cli.parameters import Json

LITTLE_DISK_BYTES = 2e9
PACKAGES = ("torch", "transformers", "tokenizers", "safetensors", "pydantic", "cyclopts", "duckdb", "pandas", "plotly",
            "streamlit", "papermill", "nbconvert", "jupyterlab")  # fmt: skip
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "microsoft-edge",
            "msedge")  # fmt: skip

State = Literal["ok", "note", "problem"]
_STYLES: dict[State, str] = {"ok": "green", "note": "yellow", "problem": "bold red"}


@dataclass(frozen=True)
class Check:
    """One thing of the installation. A ``note`` limits something; a ``problem`` keeps the lab from working."""

    name: str
    state: State
    found: str
    advice: str = ""


def doctor(*, json: Json = False) -> int:
    """Check this machine and installation; exit code 2 if something keeps the lab from working."""
    checks = list(examine())
    ok = not any(check.state == "problem" for check in checks)
    if json:
        show_json({"ok": ok, "checks": [asdict(check) for check in checks]})
        return 0 if ok else 2
    rows: list[tuple[object, str, str]] = []
    for check in checks:
        rows.append((Text(check.state, style=_STYLES[check.state]), check.name, check.found))
        if check.advice:
            rows.append(("", "", check.advice))
    show_table(("state", "part", "what was found, and what to do"), rows)
    say("\nEverything the lab needs is here." if ok else "\nThe problems above keep the lab from working.")
    return 0 if ok else 2


def examine() -> Iterator[Check]:
    """All checks, in the order in which one depends on the other."""
    yield Check("python", "ok", f"{platform.python_version()} at {sys.executable}")
    yield from _packages()
    if importlib.util.find_spec("torch"):
        yield from _device()
    yield from _extras()
    yield from _workspace()


def _packages() -> Iterator[Check]:
    for name in PACKAGES:
        try:
            yield Check(name, "ok", metadata.version(name))
        except metadata.PackageNotFoundError:
            yield Check(name, "problem", "not installed", install_command(name))


def _device() -> Iterator[Check]:
    try:
        import torch
    except (ImportError, OSError) as error:  # OSError: one of its native libraries does not load
        yield Check("device", "problem", f"torch does not load: {error}", "install torch again, see README.md")
        return
    from hrm_engine.kernels import native
    from hrm_engine.kernels.device import choose_device, choose_precision

    device, _ = choose_device("auto")
    if device.type == "cuda":
        memory = torch.cuda.get_device_properties(device).total_memory
        yield Check("device", "ok", f"{torch.cuda.get_device_name(device)}, {human_bytes(memory)}")
    elif device.type == "cpu" and shutil.which("nvidia-smi") and torch.version.cuda is None:
        yield Check(
            "device", "note", "cpu, although there is an NVIDIA driver",
            "this torch is the CPU build: install the CUDA build from pytorch.org to use the GPU",
        )  # fmt: skip
    else:
        processor = platform.processor() or platform.machine() or "unknown processor"
        yield Check("device", "ok", f"{device.type}: {processor}" if device.type == "cpu" else device.type)
    precision, message = choose_precision(device, amp=True, model_dtype="fp32")
    yield Check("arithmetic", "note" if message else "ok", str(precision.compute).removeprefix("torch."), message or "")
    if device.type == "cpu":
        missing = native.load()
        yield Check("kernels in C++", "note" if missing else "ok", "none" if missing else "compiled", missing or "")
    cores, threads = os.cpu_count() or 1, torch.get_num_threads()
    advice = thread_advice(threads, cores, busy=psutil.cpu_percent(interval=0.3) / 100 * cores)
    yield Check("threads", "note" if advice else "ok", f"{threads} on {cores} cores", advice)


def thread_advice(threads: int, cores: int, *, busy: float) -> str:
    """What to do about the number of threads where ``busy`` of the cores have other work; empty where it fits."""
    if threads > cores:
        return f"more threads than cores are slower: set OMP_NUM_THREADS={cores}"
    free = max(1, round(cores - busy))
    if threads <= free:
        return ""
    return (
        f"other work keeps {busy:.1f} cores busy: OMP_NUM_THREADS={free} is many times faster beside it, for threads "
        "that must share a core wait for each other"
    )


def _extras() -> Iterator[Check]:
    try:
        yield Check("bitsandbytes", "ok", f"{metadata.version('bitsandbytes')}, for --use-8bit-optimizer")
    except metadata.PackageNotFoundError:
        advice = f"only for --use-8bit-optimizer: {install_command('bitsandbytes')}"
        yield Check("bitsandbytes", "note", "not installed", advice)
    named = os.environ.get("CHROMIUM")
    chromium = named if named and Path(named).is_file() else next(filter(None, map(shutil.which, BROWSERS)), None)
    advice = "only for the browser tests of 'make test'; it installs one on Debian, or name one in CHROMIUM"
    yield Check("chromium", "ok", chromium) if chromium else Check("chromium", "note", "not found", advice)


def _workspace() -> Iterator[Check]:
    try:
        workspace = Workspace.find()
    except HRMError as error:
        yield Check("workspace", "problem", "not usable", str(error))
        return
    chosen = "HRM_LAB_ROOT" if os.environ.get("HRM_LAB_ROOT") else "found from the current folder"
    yield Check("workspace", "ok", f"{workspace.root} ({chosen})")
    for folder in (workspace.artifacts, workspace.training_data):
        name = f"{folder.name}/"
        try:
            ensure_writable(folder)
        except HRMError as error:
            yield Check(name, "problem", "cannot be written", str(error))
            continue
        free = shutil.disk_usage(folder).free
        advice = "a checkpoint of a 100 M parameter model takes about 1.2 GB" if free < LITTLE_DISK_BYTES else ""
        yield Check(name, "note" if advice else "ok", f"writable, {human_bytes(free)} free", advice)
