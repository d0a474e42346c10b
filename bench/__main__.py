"""Run all measurements, or some: ``python -m bench [SUBJECT ...] [--device cpu|cuda]``.

Prints Markdown. These machines are shared and noisy: quote ratios and medians, never a single absolute time.
"""

from __future__ import annotations

import argparse
import platform

import torch

from bench import adaptive_depth, generation, hrm_step, kernels, moe_layer, text_gpu, text_peer, text_step
from bench.machine import compute_dtype, describe, dtype_name, matmul_rate
from hrm_engine.kernels.device import choose_device, keep_freed_memory

SUBJECTS = {
    "text_step": text_step.report,
    "text_peer": text_peer.report,
    "text_gpu": text_gpu.report,
    "adaptive_depth": adaptive_depth.report,
    "generation": generation.report,
    "kernels": kernels.report,
    "moe_layer": moe_layer.report,
    "hrm_step": hrm_step.report,
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("subjects", nargs="*", choices=[*SUBJECTS, []], help="default: all")
    parser.add_argument("--device", default="auto")
    asked = parser.parse_args()
    keep_freed_memory()
    device, _ = choose_device(asked.device, strict=asked.device != "auto")
    print(f"# Bench\n\n{describe(device)}, torch {torch.__version__}, Python {platform.python_version()}\n")
    rate, dtype = matmul_rate(device) / 1e9, dtype_name(compute_dtype(device))
    print(f"{dtype} matrix products, 4096 x 4096 x 4096 (CPU: 2048): {rate:,.0f} GFLOP/s\n")
    for name in asked.subjects or SUBJECTS:
        print(SUBJECTS[name](device), flush=True)


if __name__ == "__main__":
    main()
