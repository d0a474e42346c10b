"""``lab eval``: measure a trained brain on text."""

from __future__ import annotations

import math
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from hrm_engine.store.paths import Workspace
from lab.cli.console import console, show_json, show_table
from lab.cli.places import relative

app = App(name="eval", help="Measure a trained brain.")

_THRESHOLDS = (0.25, 0.5, 0.75)


@app.command
def text(
    *,
    bundle: Annotated[str, Parameter(help="Name of a brain, or the path of a run, best or checkpoint folder.")],
    dataset_file: Annotated[
        Path | None,
        Parameter(help="Text to measure on: .txt, .csv, .json, .jsonl. Default: what its training held out."),
    ] = None,
    segments: Annotated[
        int | None, Parameter(help="ACT segments at most. Default: as many as the brain was trained for.")
    ] = None,
    halt_threshold: Annotated[
        list[float] | None,
        Parameter(
            negative="",
            help="Also measure where each token halts by itself: it goes on while the probability that another segment "
            "pays is above this. May be repeated. Default: 0.25, 0.5 and 0.75 where the brain has a halting head.",
        ),
    ] = None,
    max_rows: Annotated[int, Parameter(help="Rows of the model's context, at most.")] = 200,
    batch_size: Annotated[int, Parameter(help="Rows at a time.")] = 8,
    device: Annotated[str, Parameter(help="auto, cpu, cuda, cuda:N, mps or xpu.")] = "auto",
    json: Annotated[bool, Parameter(negative="", show_default=False, help="Write JSON instead.")] = False,
) -> int:
    """Loss and accuracy of a text brain after every segment, and where it halts by itself, with the mean depth."""
    from hrm_engine.bundles import load_bundle
    from hrm_engine.errors import ConfigError
    from hrm_engine.inference.text.evaluate import evaluate, evaluate_adaptive
    from hrm_engine.inference.text.generate import MAX_SEGMENTS
    from hrm_engine.inference.text.reading import held_out_documents, text_batches
    from hrm_engine.models.act import check_threshold

    for flag, value in (("--max-rows", max_rows), ("--batch-size", batch_size)):
        if value < 1:
            raise ConfigError(f"{flag} {value}: at least 1")
    workspace = Workspace.find()
    loaded = load_bundle(bundle, device=device, workspace=workspace)
    by_itself = () if loaded.model.halt_head is None else _THRESHOLDS
    thresholds = by_itself if halt_threshold is None else halt_threshold
    for threshold in thresholds:
        check_threshold(loaded.model, threshold)
    documents, source = held_out_documents(loaded, dataset_file, workspace)
    batches = text_batches(loaded, documents, batch_size=batch_size, max_rows=max_rows)
    most = loaded.config.halt_max_steps if segments is None else segments
    if not 1 <= most <= MAX_SEGMENTS:
        raise ConfigError(
            f"--segments {most}: use 1 to {MAX_SEGMENTS}; the model was trained for {loaded.config.halt_max_steps}"
        )
    fixed = evaluate(loaded.model, batches, num_segments=most)
    adaptive = [
        evaluate_adaptive(loaded.model, batches, num_segments=most, halt_threshold=threshold)
        for threshold in thresholds
    ]
    if json:
        show_json(
            {"bundle": str(loaded.path), "text": source, **asdict(fixed), "adaptive": [asdict(one) for one in adaptive]}
        )
        return 0
    console().print(f"{relative(loaded.path, workspace)} on {source}: {fixed.num_tokens:,} tokens")
    rows: list[tuple[str, str, str, str, str]] = [
        (f"all of {depth}", f"{depth:.2f}", f"{loss:.4f}", f"{math.exp(min(loss, 700)):,.1f}", f"{accuracy:.1%}")
        for depth, (loss, accuracy) in enumerate(
            zip(fixed.loss_by_segment, fixed.token_accuracy_by_segment, strict=True), start=1
        )
    ]
    rows += [
        (
            f"halts by itself, threshold {one.halt_threshold:g}",
            f"{one.mean_depth:.2f}",
            f"{one.loss:.4f}",
            f"{math.exp(min(one.loss, 700)):,.1f}",
            f"{one.token_accuracy:.1%}",
        )
        for one in adaptive
    ]
    columns = ("depth", "segments a token", "loss", "perplexity", "token accuracy")
    show_table(columns, rows, right=columns[1:])
    return 0
