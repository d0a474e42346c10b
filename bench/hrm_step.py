"""A training step of the published HRM (27.3 M parameters, 81 cells, halting after 16 segments), through the trainer.

    python -m bench.hrm_step [--peer PATH] [--repeats N] [--dtype bf16|fp32]

PATH is a clone of the reference implementation (github.com/sapientinc/HRM), which then makes its step beside ours: in
one run, turn by turn, each in a process of its own. Without it the machine's limit is all there is to compare with:
the step's matrix products alone, at the rate measured beside every step. On a laptop: --repeats 3 --forms eager.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import torch

from bench.hrm_stepper import GROUPS, PRESET, SEQ_LEN, VOCABULARY, Report
from bench.machine import compute_dtype, describe, dtype_name, matmul_rate, table
from hrm_engine.config import CoreConfig, resolve_puzzle_core
from hrm_engine.config.puzzle import load_puzzle_config
from hrm_engine.data.puzzles.sudoku.build import build_sudokus
from hrm_engine.kernels.device import DTYPES, choose_device
from hrm_engine.models import flops

BATCH, GPU_BATCH, NUM_THREADS, EVAL_ROWS, WARMUP = 32, 768, 2, 4, 2
FORMS = {"compiled": (True,), "eager": (False,), "both": (True, False)}
DATASET = "training_data/puzzles/sudoku-9x9"


def step_flops(config: CoreConfig) -> float:
    """Matrix-product FLOPs of one row's step."""
    return flops.step_flops(config, rows=1).total


class Process:
    """A stepper that waits until it is told to step."""

    def __init__(self, options: dict[str, Any]) -> None:
        self.options = options
        environment = {**os.environ, "OMP_NUM_THREADS": str(options["num_threads"])}
        command = [sys.executable, "-m", "bench.hrm_stepper", json.dumps(options)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def __enter__(self) -> Process:
        if (said := self._read()) != "ready":
            raise SystemExit(f"{self.options['kind']} gave no step: {said or 'its process has ended, see above'}")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.__exit__(kind, error, trace)  # closes its pipes and waits for it

    def step(self) -> Report:
        """Seconds of one step."""
        assert self._process.stdin is not None
        print("step", file=self._process.stdin, flush=True)
        return dict(json.loads(self._read()))

    def end(self) -> Report:
        """What it has measured beside the steps; it is over then."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        return dict(json.loads(self._read()))

    def _read(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()


@dataclass
class Measured:
    """All steps of one form, in turn with the others."""

    label: str
    flops: float
    steps: list[Report] = field(default_factory=list)
    rest: Report = field(default_factory=dict)

    def median(self, number: Callable[[Report], float]) -> float:
        """Of a number of each step."""
        return statistics.median(number(step) for step in self.steps)


def report(
    device: torch.device,
    *,
    peer: Path | None = None,
    repeats: int = 7,
    dtype: torch.dtype | None = None,
    compiled: tuple[bool, ...] = (True, False),
    batch_size: int | None = None,
    num_threads: int = NUM_THREADS,
    network: Mapping[str, int] | None = None,
    side: int | None = None,
) -> str:
    """Markdown: rows/s, ratios to the reference, share of the limit, memory, share of time outside of the update.

    Args:
        network: settings that differ from the published network's, by their flags.
    """
    dtype = compute_dtype(device) if dtype is None else dtype
    rows = batch_size or (BATCH if device.type == "cpu" else GPU_BATCH)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        build_sudokus(output_dir=Path(folder) / DATASET, size=9, count=GROUPS, test_count=EVAL_ROWS, seed=0)
        common = {
            "workspace": folder,
            "data_path": DATASET,
            "device": str(device),
            "dtype": dtype_name(dtype),
            "batch_size": rows,
            "eval_rows": EVAL_ROWS,
            "num_threads": num_threads,
            "warmup": WARMUP,
            "network": dict(network or {}),
        }
        forms: list[tuple[Measured, Process]] = []

        def add(label: str, *, q_continue: bool, **options: Any) -> None:
            measured = Measured(label, rows * step_flops(_core(q_continue, network or {})))
            options["q_continue"] = q_continue
            forms.append((measured, stack.enter_context(Process({**common, **options}))))

        if peer is not None:
            add("reference, eager", q_continue=True, kind="reference", peer=str(peer.resolve()))
        for is_compiled in compiled:
            for q_continue in (True, False):
                label = f"ours, {'compiled' if is_compiled else 'eager'}, Q-continue {'on' if q_continue else 'off'}"
                add(label, q_continue=q_continue, kind="ours", compile=is_compiled)
        before = torch.get_num_threads()
        torch.set_num_threads(num_threads)
        rates = []
        for _ in range(repeats):
            # beside every turn, because a shared machine's speed drifts while it is measured
            rates.append(matmul_rate(device, dtype, runs=3, side=side))
            for measured, process in forms:
                measured.steps.append(process.step())
        torch.set_num_threads(before)
        for measured, process in forms:
            measured.rest = process.end()
    title = f"## Training step of HRM, {rows} x {SEQ_LEN} cells, {dtype_name(dtype)}, {num_threads} threads\n\n"
    load = f"load average {os.getloadavg()[0]:.1f}, " if hasattr(os, "getloadavg") else ""
    conditions = f"{load}matrix products {statistics.median(rates) / 1e9:,.0f} GFLOP/s, {repeats} turns\n\n"
    against = forms[0][0] if peer is not None else None
    return title + conditions + _table([measured for measured, _ in forms], against, rates, rows)


def _core(q_continue: bool, settings: Mapping[str, int]) -> CoreConfig:
    network = load_puzzle_config(PRESET, q_continue=q_continue, **settings).network
    return resolve_puzzle_core(network, vocab_size=VOCABULARY, seq_len=SEQ_LEN, num_identifiers=1)


def _table(forms: list[Measured], against: Measured | None, rates: list[float], rows: int) -> str:
    header = ["step", "rows/s", "GFLOP a step", "of the limit", "peak memory"]
    header += [] if against is None else ["rows/s to the reference", "CPU time to the reference"]
    header += ["outside forward, backward, update", "feeding, at most", "evaluation"]
    lines = []
    for measured in forms:
        wall = measured.median(lambda step: step["wall_s"])
        limits = [measured.flops / rate / step["wall_s"] for rate, step in zip(rates, measured.steps, strict=True)]
        line = [measured.label, f"{rows / wall:,.1f}", f"{measured.flops / 1e9:,.0f}"]
        line += [f"{statistics.median(limits):.1%}", f"{measured.rest['peak_bytes'] / 2**20:,.0f} MiB"]
        if against is not None:
            line += [f"{_ratio(against, measured, clock):.2f} x" for clock in ("wall_s", "cpu_s")]
        if "feeding_s" in measured.rest:
            line.append(f"{measured.median(lambda step: 1 - step['inside_s'] / step['wall_s']):.2%}")
            line += [f"{measured.rest[name] / wall:.2%}" for name in ("feeding_s", "evaluation_s")]
        else:
            line += ["", "", ""]
        lines.append(line)
    return table(header, lines)


def _ratio(theirs: Measured, ours: Measured, clock: str) -> float:
    """Median of the ratios of steps that stood beside each other."""
    return statistics.median(a[clock] / b[clock] for a, b in zip(theirs.steps, ours.steps, strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m bench.hrm_step", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--peer", type=Path, help="a clone of the reference implementation")
    parser.add_argument("--repeats", type=int, default=7, help="steps of each form (default: 7)")
    parser.add_argument("--dtype", choices=["bf16", "fp32"], help="default: bf16 where the hardware has it")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--batch-size", type=int, help=f"default: {BATCH}, on a GPU {GPU_BATCH}")
    parser.add_argument("--threads", type=int, default=NUM_THREADS, help=f"of the CPU (default: {NUM_THREADS})")
    parser.add_argument("--forms", choices=FORMS, default="both", help="compiling takes minutes (default: both)")
    options = parser.parse_args()
    device, _ = choose_device(options.device, strict=options.device != "auto")
    best = compute_dtype(device)
    dtype = best if options.dtype is None else DTYPES[options.dtype]
    if dtype == torch.bfloat16 and best != dtype:
        parser.error("--dtype bf16: the hardware has no bf16 arithmetic, a step would take minutes")
    if options.dtype is None:
        print(f"computing in {dtype_name(dtype)}: the hardware has {'' if best == torch.bfloat16 else 'no '}bf16\n")
    if options.peer is not None and not (options.peer / "models" / "hrm" / "hrm_act_v1.py").is_file():
        parser.error(f"--peer {options.peer}: no models/hrm/hrm_act_v1.py there; give the root of a clone")
    print(f"{describe(device)}, torch {torch.__version__}\n")
    print(
        report(
            device,
            peer=options.peer,
            repeats=options.repeats,
            dtype=dtype,
            compiled=FORMS[options.forms],
            batch_size=options.batch_size,
            num_threads=options.threads,
        )
    )


if __name__ == "__main__":
    main()
