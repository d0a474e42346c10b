"""What adaptive depth saves: segments and loss on held-out text beside full depth, for a brain trained here."""

from __future__ import annotations

import torch

from bench.machine import table, text_base, text_workspace
from hrm_engine.bundles.load import load_bundle
from hrm_engine.config.text import load_config
from hrm_engine.inference.text.evaluate import evaluate, evaluate_adaptive
from hrm_engine.inference.text.reading import held_out_documents, text_batches
from hrm_engine.training import train

SEGMENTS, WIDTH, STEPS, EVAL_ROWS = 4, 128, 300, 64
THRESHOLDS = (0.2, 0.4, 0.5, 0.6, 0.8)


def report(device: torch.device, *, steps: int = STEPS, width: int = WIDTH, eval_rows: int = EVAL_ROWS) -> str:
    """Markdown: loss at every depth, and loss and mean depth at some thresholds."""
    with text_workspace(text_base(width)) as workspace:
        config = load_config(
            "text-small",
            hidden_size=width,
            num_heads=max(1, width // 64),
            halt_max_steps=SEGMENTS,
            steps=steps,
            eval_batches=0,
            save_every=steps,
            device=str(device),
        )
        bundle = load_bundle(train(config, workspace=workspace).run_dir, device=str(device), workspace=workspace)
        documents, *_ = held_out_documents(bundle, None, workspace)
        batches = text_batches(bundle, documents, max_rows=eval_rows)
        full = evaluate(bundle.model, batches, num_segments=SEGMENTS)
        rows = [[f"all of {n}", f"{loss:.4f}", f"{n}", ""] for n, loss in enumerate(full.loss_by_segment, start=1)]
        for threshold in THRESHOLDS:
            adaptive = evaluate_adaptive(bundle.model, batches, num_segments=SEGMENTS, halt_threshold=threshold)
            saved = 1 - adaptive.mean_depth / SEGMENTS
            cells = [
                f"{adaptive.loss:.4f}",
                f"{adaptive.mean_depth:.2f}",
                f"{saved:.0%} fewer, {adaptive.loss - full.loss:+.4f}",
            ]
            rows.append([f"by itself, threshold {threshold}", *cells])
    title = f"## Adaptive depth: width {width}, {SEGMENTS} segments, {steps} steps\n\n"
    return title + table(["depth", "loss, nats/token", "segments a token", "against full depth"], rows)
