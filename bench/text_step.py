"""A training step of the text model, through the real trainer.

Vocabulary 8192, hidden 256, intermediate 768, 4 layers a stack, H 2 / L 3 cycles, 8 x 256 tokens, bf16, one segment.
"""

from __future__ import annotations

import statistics
import time
from typing import Any

import torch

from bench.machine import matmul_rate, peak_memory_bytes, restart_peak, table, text_base, text_workspace, wait
from bench.text_peer import Size
from hrm_engine.config.text import TextTrainConfig, load_config
from hrm_engine.models.flops import step_flops
from hrm_engine.store.paths import Workspace
from hrm_engine.training import Trainer

STEPS, WARMUP = 14, 4


def report(
    device: torch.device, size: Size | None = None, *, steps: int = STEPS, warmup: int = WARMUP, side: int | None = None
) -> str:
    """Markdown: label tokens/s, memory, FLOPs, share of the machine's rate, time outside of the update."""
    size = size or Size()
    rows = []
    with text_workspace(text_base(size.hidden)) as workspace:
        settings = [("default: the gradient reaches the embeddings", 5, None), ("one_step", 2, None)]
        if device.type == "cuda":
            settings += [("default, not compiled", 5, False)]
        for label, grad_calls, compiled in settings:
            config = _config(size, grad_calls, compiled, steps=steps, device=device)
            rows.append([label, str(grad_calls), *_measure(config, workspace, device, warmup=warmup, side=side)])
    header = ["text step", "grad calls", "tokens/s", "step", "peak memory", "GFLOP a step", "of the matmul rate"]
    return "## Text training step\n\n" + table([*header, "outside forward, backward, update"], rows)


def _config(size: Size, grad_calls: int, compiled: bool | None, *, steps: int, device: torch.device) -> TextTrainConfig:
    return load_config(
        "text-small",
        **size.network,
        grad_calls=grad_calls,
        halt_max_steps=1,
        max_seq_len=size.length,
        batch_size=size.rows,
        steps=steps,
        eval_batches=0,
        save_every=steps + 1,
        brain_name=f"bench-{grad_calls}-{compiled}",
        device=str(device),
        compile=compiled,
        gradient_checkpointing=False,
    )


def _measure(
    config: TextTrainConfig, workspace: Workspace, device: torch.device, *, warmup: int, side: int | None
) -> list[str]:
    restart_peak(device)
    inside: list[float] = []
    with Trainer(config, workspace=workspace) as trainer:
        update = trainer.setup.updater.update

        def timed(*args: Any, **kwargs: Any) -> Any:
            start = time.perf_counter()
            result = update(*args, **kwargs)
            wait(device)
            inside.append(time.perf_counter() - start)
            return result

        trainer.setup.updater.update = timed  # type: ignore[method-assign]
        whole, tokens, rates = [], [], []
        for _ in range(config.run.steps):
            # beside every step, because a shared machine's speed drifts while it is measured
            rates.append(matmul_rate(device, runs=3, side=side))
            start = time.perf_counter()
            tokens.append(trainer.step().update.value.counts["num_tokens"])
            wait(device)
            whole.append(time.perf_counter() - start)
        core = trainer.task.core
    step = statistics.median(whole[warmup:])
    outside = statistics.median(1 - i / w for i, w in zip(inside[warmup:], whole[warmup:], strict=True))
    flops = step_flops(core, rows=config.run.batch_size).total
    share = statistics.median(flops / w / rate for w, rate in zip(whole[warmup:], rates[warmup:], strict=True))
    return [
        f"{statistics.median(tokens[warmup:]) / step:,.0f}",
        f"{step * 1e3:,.1f} ms",
        f"{peak_memory_bytes(device) / 2**20:,.0f} MiB",
        f"{flops / 1e9:,.0f}",
        f"{share:.1%}",
        f"{outside:.2%}",
    ]
