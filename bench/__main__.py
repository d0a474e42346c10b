"""Run all measurements, or some: ``python -m bench [SUBJECT ...] [--device cpu|cuda] [--smallest]``.

Prints Markdown. These machines are shared and noisy: quote ratios and medians, never a single absolute time.
"""

from __future__ import annotations

import argparse
import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from bench import adaptive_depth, generation, hrm_step, kernels, moe_layer, text_gpu, text_peer, text_step
from bench.machine import compute_dtype, describe, dtype_name, matmul_rate
from hrm_engine.kernels.device import choose_device, keep_freed_memory

TINY = text_peer.Size(rows=2, length=16, hidden=64, heads=1, layers=1)
SIDE = 64


@dataclass(frozen=True)
class Subject:
    """One measurement: its report, and the arguments of its smallest size, which shows no more than that it runs."""

    report: Callable[..., str]
    smallest: Mapping[str, Any]


SUBJECTS = {
    "text_step": Subject(text_step.report, {"size": TINY, "steps": 2, "warmup": 1, "side": SIDE}),
    "text_peer": Subject(
        text_peer.report, {"size": TINY, "turns": 1, "warmup": 1, "side": SIDE, "forms": text_peer.FORMS[:2]}
    ),
    "text_gpu": Subject(text_gpu.report, {"size": TINY, "turns": 1, "warmup": 1, "side": SIDE}),
    "adaptive_depth": Subject(adaptive_depth.report, {"steps": 1, "width": 64, "eval_rows": 2}),
    "generation": Subject(
        generation.report,
        {"size": generation.Size(64, 1, 1, positions=(8,), batches=(2,), prompt=4, new=3, runs=1)},
    ),
    "kernels": Subject(
        kernels.report, {"size": kernels.Size(rows=64, width=64, vocabulary=256, batch=2, length=32), "side": SIDE}
    ),
    "moe_layer": Subject(
        moe_layer.report, {"tokens": 64, "width": 32, "inner": 32, "experts": (4,), "turns": 1, "side": SIDE}
    ),
    "hrm_step": Subject(
        hrm_step.report,
        {
            "repeats": 1,
            "compiled": (False,),
            "batch_size": 2,
            "num_threads": 1,
            "network": {"hidden_size": 64, "num_heads": 1, "h_layers": 1, "l_layers": 1, "halt_max_steps": 2},
            "side": SIDE,
        },
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("subjects", nargs="*", choices=[*SUBJECTS, []], help="default: all")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--smallest", action="store_true", help="sizes that say nothing: whether all of it runs")
    options = parser.parse_args()
    keep_freed_memory()
    device, _ = choose_device(options.device, strict=options.device != "auto")
    print(f"# Bench\n\n{describe(device)}, torch {torch.__version__}, Python {platform.python_version()}\n")
    rate, dtype = matmul_rate(device, side=SIDE if options.smallest else None) / 1e9, dtype_name(compute_dtype(device))
    print(f"{dtype} matrix products, 4096 x 4096 x 4096 (CPU: 2048): {rate:,.0f} GFLOP/s\n")
    for name in options.subjects or SUBJECTS:
        subject = SUBJECTS[name]
        print(subject.report(device, **(subject.smallest if options.smallest else {})), flush=True)


if __name__ == "__main__":
    main()
