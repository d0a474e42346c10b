"""A training step beside `HrmTextForCausalLM` of transformers: equal architecture, rows, and gradient calls.

Vocabulary 8192, hidden 256, intermediate 768, 4 layers a stack, H 2 / L 3 cycles, gated attention, one segment, no
halting loss, 8 x 256 tokens, AdamW with clipping. Theirs runs under bf16 autocast where the machine has bf16, in fp32
where not; both compute in the same type. Ours is the whole step of the trainer, data and metrics included; theirs is
given rows that are ready and one document each, which needs no mask but the causal one.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import torch

from bench.machine import compute_dtype, dtype_name, matmul_rate, peak_memory_bytes, restart_peak, table, wait
from bench.text_step import NETWORK
from hrm_engine.bundles import create_implant
from hrm_engine.config.text import load_config
from hrm_engine.kernels.device import choose_device, keep_freed_memory
from hrm_engine.models.flops import step_flops
from hrm_engine.store.paths import Workspace
from hrm_engine.training import Trainer

ROWS, LENGTH, VOCABULARY, GRAD_CALLS = 8, 256, 8192, 5
TURNS, WARMUP = 12, 3

Step = Callable[[], None]


def report(device: torch.device) -> str:
    """Markdown: tokens/s, share of the matmul rate, and the ratio of steps taken in turn; memory of each alone."""
    times: dict[str, list[float]] = {"theirs": [], "ours": []}
    rates = []
    with their_step(device) as (theirs, _), our_step(device) as (ours, flops):
        for _ in range(TURNS + WARMUP):
            rates.append(matmul_rate(device, runs=3))
            for name, step in (("theirs", theirs), ("ours", ours)):
                wait(device)
                start = time.perf_counter()
                step()
                wait(device)
                times[name].append(time.perf_counter() - start)
    memory = {name: _peak_alone(name, device) for name in times}
    rows = []
    for name, measured in times.items():
        kept = measured[WARMUP:]
        share = statistics.median(flops / s / rate for s, rate in zip(kept, rates[WARMUP:], strict=True))
        ratio = statistics.median(peer / mine for peer, mine in zip(times["theirs"][WARMUP:], kept, strict=True))
        step = statistics.median(kept)
        rows.append(
            [
                {"theirs": "HrmTextForCausalLM", "ours": "lab train actv1"}[name],
                f"{ROWS * LENGTH / step:,.0f}",
                f"{step * 1e3:,.0f} ms",
                f"{share:.1%}",
                f"{memory[name] / 2**20:,.0f} MiB",
                f"{ratio:.2f} x",
            ]
        )
    header = ["text step", "tokens/s", "step", "of the matmul rate", "peak memory, alone", "speed to theirs"]
    limit, dtype = statistics.median(rates), dtype_name(compute_dtype(device))
    return (
        f"## Text training step beside transformers, {dtype}, {GRAD_CALLS} gradient calls\n\n"
        + table(header, rows)
        + f"\n{flops / 1e9:,.0f} GFLOP a step: {flops / limit * 1e3:,.0f} ms and {ROWS * LENGTH * limit / flops:,.0f} "
        f"tokens/s at the matmul rate of {limit / 1e9:,.0f} GFLOP/s\n"
    )


@contextlib.contextmanager
def our_step(device: torch.device) -> Iterator[tuple[Step, float]]:
    """A step of the trainer, and the FLOPs of its matrix products."""
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        workspace = Workspace(Path(folder))
        create_implant(workspace=workspace, hidden_size=NETWORK["hidden_size"])
        config = load_config(
            "text-small",
            **NETWORK,
            grad_calls=GRAD_CALLS,
            halt_max_steps=1,
            max_seq_len=LENGTH,
            batch_size=ROWS,
            steps=10_000,
            eval_batches=0,
            save_every=10_000,
            device=str(device),
            gradient_checkpointing=False,
        )
        with Trainer(config, workspace=workspace) as trainer:
            core = trainer.core
            assert core.vocab_size == VOCABULARY

            def step() -> None:
                trainer.step()

            yield step, step_flops(core, rows=ROWS).total


@contextlib.contextmanager
def their_step(device: torch.device) -> Iterator[tuple[Step, None]]:
    """The same step as the library's users write it."""
    from transformers import HrmTextConfig, HrmTextForCausalLM

    config = HrmTextConfig(
        vocab_size=VOCABULARY,
        hidden_size=NETWORK["hidden_size"],
        intermediate_size=768,
        num_hidden_layers=NETWORK["h_layers"],
        num_attention_heads=NETWORK["num_heads"],
        head_dim=NETWORK["hidden_size"] // NETWORK["num_heads"],
        max_position_embeddings=LENGTH,
        H_cycles=NETWORK["h_cycles"],
        L_cycles=NETWORK["l_cycles"],
        # the first high-level call and the whole second cycle: the calls that ours has gradient in
        L_bp_cycles=[0, NETWORK["l_cycles"]],
        initializer_range=NETWORK["hidden_size"] ** -0.5,
        prefix_lm=False,
    )
    model = HrmTextForCausalLM(config).to(device).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
    generator = torch.Generator().manual_seed(0)
    dtype = compute_dtype(device)

    def step() -> None:
        tokens = torch.randint(0, VOCABULARY, (ROWS, LENGTH), generator=generator).to(device)
        with torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32):
            loss = model(input_ids=tokens, labels=tokens, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    yield step, None


def _peak_alone(name: str, device: torch.device) -> int:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as alone:
        return alone.submit(_peak, name, str(device)).result()


def _peak(name: str, device_name: str) -> int:
    keep_freed_memory()
    device = torch.device(device_name)
    with (our_step if name == "ours" else their_step)(device) as (step, _):
        for _ in range(3):
            step()
        restart_peak(device)
        for _ in range(3):
            step()
        return peak_memory_bytes(device)


def main() -> None:
    """``python -m bench.text_peer [--device cpu|cuda]``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="auto")
    keep_freed_memory()
    print(report(choose_device(parser.parse_args().device, strict=False)[0]))


if __name__ == "__main__":
    main()
