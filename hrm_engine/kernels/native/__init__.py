"""Kernels in C++ for processors with bf16 products, compiled on the machine that runs them.

The first process that needs one compiles it (some seconds) into the folder where torch keeps its extensions; a file's
name says what it was made of and for which processor, so nothing stale or foreign is ever loaded. Where there is no
compiler, or the processor lacks what the code needs, the forms in Python are used: the same mathematics, slower.
"""

from __future__ import annotations

import functools
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from torch import Tensor

from hrm_engine.kernels.device import has_bf16

_SOURCES = sorted(Path(__file__).parent.glob("*.cpp"))
_FLAGS = ("-std=c++20", "-O3", "-fPIC", "-shared", "-fopenmp")
_TARGET = "-mcpu=native" if platform.machine() in ("aarch64", "arm64") else "-march=native"
_LIMIT_S = 300


@functools.cache
def load() -> str | None:
    """Compile the kernels if needed and load them; None if they can be used, else the reason in words."""
    if sys.platform != "linux":
        return f"there are none for {sys.platform}"
    if not has_bf16(torch.device("cpu")):
        return "this processor has no bf16 arithmetic"
    compiler = next(filter(None, map(shutil.which, (os.environ.get("CXX", ""), "g++", "clang++"))), None)
    if compiler is None:
        return "they need a C++ compiler (on Debian and Ubuntu: apt install g++)"
    try:
        _load_library(compiler)
        _differentiate()
        _try_out()
    except (OSError, RuntimeError, subprocess.SubprocessError) as error:
        return f"they cannot be made here: {str(error).strip().splitlines()[0]}"
    return None


def _load_library(compiler: str) -> None:
    library = _built(compiler)
    try:
        torch.ops.load_library(library)
    except OSError:  # damaged, by a full disk perhaps: once more
        library.unlink()
        torch.ops.load_library(_built(compiler))


def _built(compiler: str) -> Path:
    parts = (
        *(path.read_bytes() for path in _SOURCES),
        torch.__version__,
        torch.__file__,
        compiler,
        _TARGET,
        *_FLAGS,
        _processor(),
    )
    key = hashlib.sha256(b"\0".join(part if isinstance(part, bytes) else part.encode() for part in parts)).hexdigest()
    folder = Path(os.environ.get("TORCH_EXTENSIONS_DIR") or Path.home() / ".cache" / "torch_extensions") / "hrm_lab"
    target = folder / f"kernels-{key[:16]}.so"
    if target.is_file():
        return target
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / "build.lock"):
        if not target.is_file():
            with tempfile.TemporaryDirectory(dir=folder) as place:
                made = Path(place) / target.name
                _compile(compiler, made)
                made.replace(target)
    return target


def _compile(compiler: str, target: Path) -> None:
    home = Path(torch.__file__).parent
    abi = f"-D_GLIBCXX_USE_CXX11_ABI={int(torch.compiled_with_cxx11_abi())}"
    libraries = [f"-L{home / 'lib'}", f"-Wl,-rpath,{home / 'lib'}", "-ltorch_cpu", "-ltorch", "-lc10"]
    include = f"-I{home / 'include'}"
    command = [compiler, *_FLAGS, _TARGET, abi, include, "-x", "c++", "-", "-x", "none", "-o", str(target), *libraries]
    # All files as one: the headers of torch are what takes the time.
    text = "".join(f'#include "{path}"\n' for path in _SOURCES)
    done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=_LIMIT_S, check=False)
    if done.returncode:
        problem = next((line for line in done.stderr.splitlines() if "error" in line), done.stderr[:200])
        raise RuntimeError(f"{Path(compiler).name} failed: {problem}")


def _differentiate() -> None:
    """Tell the library the shapes and the gradients of the kernels, for autograd and for the compiler."""

    def shapes(q: Tensor, k: Tensor, v: Tensor, gate: Tensor | None, *rest: Tensor | None) -> tuple[Tensor, ...]:
        y = torch.empty(q.shape, dtype=q.dtype, device=q.device)
        before = q.new_empty(0) if gate is None else torch.empty_like(y)
        return y, before, q.new_empty((q.shape[0], q.shape[2], q.shape[1]), dtype=torch.float32)

    def shapes_back(
        grad: Tensor, q: Tensor, k: Tensor, v: Tensor, gate: Tensor | None, *rest: Any
    ) -> tuple[Tensor, ...]:
        whole = [torch.empty(q.shape, dtype=q.dtype, device=q.device) for _ in range(4)]
        return tuple(whole) if gate is not None else (*whole[:3], q.new_empty(0))

    def keep(ctx: Any, inputs: tuple[Tensor | None, ...], output: tuple[Tensor, ...]) -> None:
        y, before, log_sums = output
        ctx.save_for_backward(*inputs, y if inputs[3] is None else before, log_sums)
        ctx.mark_non_differentiable(before, log_sums)

    def back(ctx: Any, grad: Tensor, *rest: Tensor | None) -> tuple[Tensor | None, ...]:
        q, k, v, gate, cos, sin, spans, before, log_sums = ctx.saved_tensors
        dq, dk, dv, dgate = torch.ops.hrm_lab.attention_backward(
            grad.contiguous(), q, k, v, gate, cos, sin, spans, before, log_sums
        )
        return dq, dk, dv, None if gate is None else dgate, None, None, None

    torch.library.register_fake("hrm_lab::attention", shapes)
    torch.library.register_fake("hrm_lab::attention_backward", shapes_back)
    torch.library.register_autograd("hrm_lab::attention", back, setup_context=keep)


def _try_out() -> None:
    """Raise RuntimeError where the processor lacks the products that the kernels are made of."""
    x = torch.ones(1, 2, 1, 32, dtype=torch.bfloat16)
    spans = torch.tensor([[[0, 0]], [[1, 2]]], dtype=torch.int32)
    y, _, _ = torch.ops.hrm_lab.attention(x, x, x, None, None, None, spans)
    if not torch.equal(x, y):
        raise RuntimeError("a first product is wrong")


def _processor() -> str:
    """Name that differs between processors that need different code."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf8", errors="replace").splitlines()
    except OSError:
        return platform.machine()
    return next((line for line in lines if line.startswith(("flags", "Features"))), platform.machine())
