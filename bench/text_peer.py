"""A training step beside `HrmTextForCausalLM` of transformers: equal architecture, rows, and gradient calls.

Vocabulary 8192, H 2 / L 3 cycles, gated attention, one segment, no halting loss, AdamW with clipping; hidden 256,
intermediate 768, 4 layers a stack and 8 x 256 tokens, or another :class:`Size`. Theirs runs under bf16 autocast where
the machine has bf16, in fp32 where not; both compute in the same type. Ours is the whole step of the trainer, data and
metrics included; theirs is given rows that are ready and one document each, which needs no mask but the causal one.
Both run as they are and compiled: theirs as one ``torch.compile`` of the whole model, ours as ``--compile`` does it.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from bench.machine import (
    compute_dtype,
    dtype_name,
    matmul_rate,
    peak_memory_bytes,
    restart_peak,
    table,
    text_base,
    text_workspace,
    wait,
)
from hrm_engine.config.core import inner_width
from hrm_engine.config.text import load_config
from hrm_engine.kernels.device import choose_device, keep_freed_memory
from hrm_engine.models.flops import step_flops
from hrm_engine.training import Trainer

VOCABULARY, GRAD_CALLS, H_CYCLES, L_CYCLES, EXPANSION = 8192, 5, 2, 3, 4.0
TURNS, WARMUP = 12, 3
FORMS = ("theirs", "ours", "theirs, compiled", "ours, compiled")

Step = Callable[[], None]


@dataclass(frozen=True)
class Size:
    """What the two are measured at; ``layers`` of each of the two stacks."""

    rows: int = 8
    length: int = 256
    hidden: int = 256
    heads: int = 4
    layers: int = 4

    @property
    def network(self) -> dict[str, Any]:
        """The network in the words of our flags."""
        cycles = {"h_cycles": H_CYCLES, "l_cycles": L_CYCLES, "h_layers": self.layers, "l_layers": self.layers}
        return {"hidden_size": self.hidden, "num_heads": self.heads, "expansion": EXPANSION, **cycles}


def report(
    device: torch.device,
    size: Size | None = None,
    *,
    turns: int = TURNS,
    warmup: int = WARMUP,
    side: int | None = None,
    forms: Sequence[str] = FORMS,
) -> str:
    """Markdown: tokens/s, share of the matmul rate, and the ratio of steps taken in turn; memory of each alone."""
    size = size or Size()
    base = text_base(size.hidden)
    times: dict[str, list[float]] = {form: [] for form in forms}
    rates = []
    with contextlib.ExitStack() as stack:
        steps: dict[str, Callable[[], object]] = {}
        flops = 0.0
        for form in forms:
            steps[form], of_step = stack.enter_context(_step(form, device, size, base))
            flops = max(flops, of_step)
        for _ in range(turns + warmup):
            rates.append(matmul_rate(device, runs=3, side=side))
            for name, step in steps.items():
                wait(device)
                start = time.perf_counter()
                step()
                wait(device)
                times[name].append(time.perf_counter() - start)
    memory = {name: _peak_alone(name, device, size, base) for name in times}
    rows = []
    for name, measured in times.items():
        kept = measured[warmup:]
        share = statistics.median(flops / s / rate for s, rate in zip(kept, rates[warmup:], strict=True))
        peers = times["theirs, compiled" if "compiled" in name else "theirs"][warmup:]
        ratio = statistics.median(peer / mine for peer, mine in zip(peers, kept, strict=True))
        step = statistics.median(kept)
        rows.append(
            [
                name.replace("theirs", "HrmTextForCausalLM").replace("ours", "lab train actv1"),
                f"{size.rows * size.length / step:,.0f}",
                f"{step * 1e3:,.0f} ms",
                f"{share:.1%}",
                f"{memory[name] / 2**20:,.0f} MiB",
                f"{ratio:.2f} x",
            ]
        )
    header = ["text step", "tokens/s", "step", "of the matmul rate", "peak memory, alone", "speed to theirs likewise"]
    limit, dtype = statistics.median(rates), dtype_name(compute_dtype(device))
    return (
        f"## Text training step beside transformers, {dtype}, {GRAD_CALLS} gradient calls\n\n"
        + table(header, rows)
        + f"\n{flops / 1e9:,.0f} GFLOP a step: {flops / limit * 1e3:,.0f} ms and "
        f"{size.rows * size.length * limit / flops:,.0f} tokens/s at the matmul rate of {limit / 1e9:,.0f} GFLOP/s\n"
    )


@contextlib.contextmanager
def _step(form: str, device: torch.device, size: Size, base: Path) -> Iterator[tuple[Callable[[], object], float]]:
    """A step of one of the :data:`FORMS`, and its FLOPs, which are those of ours for all."""
    compiled = "compiled" in form
    if form.startswith("ours"):
        with our_trainer(device, size, base=base, compiled=compiled) as trainer:
            yield trainer.step, step_flops(trainer.task.core, rows=size.rows).total
    else:
        with their_step(device, size, compiled=compiled) as (step, _):
            yield step, 0.0


@contextlib.contextmanager
def our_trainer(
    device: torch.device, size: Size, *, base: Path | None = None, compiled: bool | None = None
) -> Iterator[Trainer]:
    """The trainer of ours, with a run of its own in a workspace of its own.

    Args:
        base: corpus and base model of that width, by default made here.
    """
    with text_workspace(base or text_base(size.hidden)) as workspace:
        config = load_config(
            "text-small",
            **size.network,
            grad_calls=GRAD_CALLS,
            halt_max_steps=1,
            max_seq_len=size.length,
            batch_size=size.rows,
            steps=10_000,
            eval_batches=0,
            save_every=10_000,
            device=str(device),
            compile=compiled,
            gradient_checkpointing=False,
        )
        with Trainer(config, workspace=workspace) as trainer:
            assert trainer.task.core.vocab_size == VOCABULARY
            yield trainer


@contextlib.contextmanager
def their_step(device: torch.device, size: Size, *, compiled: bool = False) -> Iterator[tuple[Step, int]]:
    """The same step as the library's users write it, and the model's parameters."""
    from transformers import HrmTextConfig, HrmTextForCausalLM

    config = HrmTextConfig(
        vocab_size=VOCABULARY,
        hidden_size=size.hidden,
        intermediate_size=inner_width(size.hidden, EXPANSION),
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        head_dim=size.hidden // size.heads,
        max_position_embeddings=size.length,
        H_cycles=H_CYCLES,
        L_cycles=L_CYCLES,
        # the first high-level call and the whole second cycle: the calls that ours has gradient in
        L_bp_cycles=[0, L_CYCLES],
        initializer_range=size.hidden**-0.5,
        prefix_lm=False,
    )
    model = HrmTextForCausalLM(config).to(device).train()
    if compiled:
        model.compile(dynamic=False)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
    generator = torch.Generator().manual_seed(0)
    dtype = compute_dtype(device)

    def step() -> None:
        tokens = torch.randint(0, VOCABULARY, (size.rows, size.length), generator=generator).to(device)
        with torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32):
            loss = model(input_ids=tokens, labels=tokens, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    yield step, sum(parameter.numel() for parameter in model.parameters())


def _peak_alone(name: str, device: torch.device, size: Size, base: Path) -> int:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as alone:
        return alone.submit(_peak, name, str(device), size, base).result()


def _peak(name: str, device_name: str, size: Size, base: Path) -> int:
    keep_freed_memory()
    device = torch.device(device_name)
    with contextlib.ExitStack() as stack:
        step, _ = stack.enter_context(_step(name, device, size, base))
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
