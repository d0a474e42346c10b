"""A text model of 100 M parameters at 1,024 tokens on a GPU, beside `hrm_text`, and a trace of its steady step."""

from __future__ import annotations

from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

from bench import text_peer
from bench.text_peer import Size, our_trainer
from hrm_engine.training import Trainer

SIZE = Size(rows=16, length=1024, hidden=768, heads=12, layers=6)
TRACE = Path("artifacts/bench/text_step.json")
STEADY_STEPS, WARMUP = 8, 3
# Reading a number of the device ends in the first of these. Not aten::item and the like, which stand for numbers of the
# host as well; nor cudaDeviceSynchronize, which the profiler calls itself when it ends, and a step nowhere.
WAITS = ("cudaStreamSynchronize", "cudaEventSynchronize")


def report(
    device: torch.device,
    size: Size = SIZE,
    *,
    turns: int = text_peer.TURNS,
    warmup: int = text_peer.WARMUP,
    side: int | None = None,
) -> str:
    """Markdown: the comparison of :mod:`bench.text_peer` at this size, and by what the host waits in a steady step."""
    if device.type != "cuda":
        return "## Text training step of 100 M parameters\n\nnot measured: there is no CUDA device here\n"
    trace = TRACE.absolute()
    with our_trainer(device, size) as trainer:
        waits = waits_of(trainer, trace)
        count = sum(parameter.numel() for parameter in trainer.setup.model.parameters())
    calls = ", ".join(f"{number} x {name}" for name, number in waits.items()) or "none"
    return (
        text_peer.report(device, size, turns=turns, warmup=warmup, side=side)
        + f"\n{count / 1e6:,.1f} M parameters, {size.rows} x {size.length} tokens. Calls by which the host waits for "
        f"the device in {STEADY_STEPS} steady steps: {calls} (trace: {TRACE})\n"
    )


def waits_of(trainer: Trainer, trace: Path, calls: tuple[str, ...] = WAITS) -> dict[str, int]:
    """How often the host waited, and by which calls, in the steps between two readings of the metrics.

    Args:
        trace: where to write the trace, for chrome://tracing or Perfetto.
        calls: what counts as waiting.
    """
    for _ in range(WARMUP):
        trainer.step()
    trainer.journal.read()
    activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if trainer.setup.device.type == "cuda" else [])
    with profile(activities=activities) as recorded:
        for _ in range(STEADY_STEPS):
            trainer.step()
    trace.parent.mkdir(parents=True, exist_ok=True)
    recorded.export_chrome_trace(str(trace))
    return {event.key: event.count for event in recorded.key_averages() if event.key in calls}
