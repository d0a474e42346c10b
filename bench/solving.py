"""How accuracy grows with thought: depth, several starts, and the ways of choosing among them.

    python -m bench.solving --bundle NAME --data DATASET [--rows 500] [--device cpu|cuda] [--figure FILE.html]

Prints Markdown and writes a figure of exact accuracy against FLOPs for each puzzle. On a laptop: --rows 100 --starts 4.
Rows of the test split are an evenly spaced subset. A row counts as solved if it equals its label (mazes: if the path is
valid, which is counted apart). Restarts with the verifier stand in a table of their own.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
import plotly.graph_objects as go
import torch

from bench.machine import describe, table
from hrm_engine.bundles.bundle import PuzzleBundle
from hrm_engine.bundles.load import load_bundle
from hrm_engine.config.solving import Choose
from hrm_engine.data.puzzles.format import PuzzleDataset, open_dataset
from hrm_engine.inference import Solutions, solve
from hrm_engine.kernels.device import keep_freed_memory
from hrm_engine.store.paths import Workspace

DEPTHS = (1, 2, 4, 8, 16, 32, 64)
STARTS = (2, 4, 8)
HALT_CONFIDENCE = (0.0, 0.7, 0.9)
RESTARTS = 7


@dataclass(frozen=True)
class Point:
    """One way of solving: what it reached and what it cost."""

    family: str
    name: str
    exact: float
    valid: float | None
    segments: float
    """Mean over puzzles, of all starts together."""
    flops: float
    """Mean over puzzles."""


def points(bundle: PuzzleBundle, rows: Any, *, depths: tuple[int, ...], starts: tuple[int, ...]) -> Iterator[Point]:
    """Fixed depth; halting by itself at different bars; several starts, chosen in four ways."""
    inputs, labels, identifiers = rows
    most = bundle.config.halt_max_steps

    def measured(family: str, name: str, **how: Any) -> Point:
        solutions = solve(bundle, inputs, identifiers=identifiers, **how)
        return _point(family, name, solutions, labels)

    for depth in depths:
        yield measured("all segments", f"{depth} segments", segments=depth, halting=False)
    for bar in HALT_CONFIDENCE:
        for depth in (depth for depth in depths if depth >= most):
            name = f"up to {depth} segments, halting at {bar:g}"
            yield measured(f"halting at {bar:g}", name, segments=depth, halt_confidence=bar)
    for starts_from in _ways(bundle):
        for choose in get_args(Choose):
            for count in starts:
                name = f"{count} starts, up to {most} segments"
                how = {"starts": count, "starts_from": starts_from, "choose": choose}
                yield measured(f"{choose}, {starts_from}", name, **how)


def restarts(bundle: PuzzleBundle, rows: Any) -> str:
    """Markdown: how many more a verifier finds."""
    inputs, _, identifiers = rows
    lines = []
    for starts_from in _ways(bundle):
        solutions = solve(bundle, inputs, identifiers=identifiers, starts_from=starts_from, until_valid=RESTARTS)
        assert solutions.is_valid is not None
        alone = solutions.is_valid & ~solutions.solved_by_verifier
        spent = (solutions.segments + solutions.restart_segments).mean()
        lines.append([starts_from, _percent(alone.mean()), _percent(solutions.is_valid.mean()), f"{spent:.1f}"])
    return f"Valid answers with up to {RESTARTS} restarts\n\n" + table(
        ["restarts from", "before", "with the verifier", "segments"], lines
    )


def figure(measured: list[Point], title: str) -> go.Figure:
    """Exact accuracy against FLOPs for each puzzle, a line for each family."""
    drawn = go.Figure()
    for family in dict.fromkeys(point.family for point in measured):
        line = [point for point in measured if point.family == family]
        drawn.add_scatter(
            x=[point.flops for point in line],
            y=[100 * point.exact for point in line],
            text=[point.name for point in line],
            name=family,
            mode="lines+markers",
        )
    drawn.update_xaxes(type="log", title="FLOP for each puzzle")
    drawn.update_yaxes(title="solved exactly, %")
    drawn.update_layout(title=title, template="plotly_white")
    return drawn


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.solving", description=__doc__)
    parser.add_argument("--bundle", required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=500)
    parser.add_argument("--depths", type=int, nargs="+", default=list(DEPTHS))
    parser.add_argument("--starts", type=int, nargs="+", default=list(STARTS))
    parser.add_argument("--device", default="auto")
    parser.add_argument("--figure", type=Path)
    options = parser.parse_args()
    keep_freed_memory()
    workspace = Workspace.find()
    bundle = load_bundle(options.bundle, PuzzleBundle, device=options.device, workspace=workspace)
    dataset = open_dataset(workspace.resolve(options.data), "test")
    rows = _rows(bundle, dataset, options.rows)
    title = f"{bundle.path.name}, {len(rows[0])} rows of {dataset.folder.name}"
    print(f"# {title}\n\n{describe(bundle.model.lm_head.weight.device)}, torch {torch.__version__}\n", flush=True)
    measured = []
    for point in points(bundle, rows, depths=tuple(options.depths), starts=tuple(options.starts)):
        measured.append(point)
        print(f"<!-- {point.family}: {point.name}: {_percent(point.exact)} -->", flush=True)
    lines = [
        [
            point.family,
            point.name,
            _percent(point.exact),
            "" if point.valid is None else _percent(point.valid),
            f"{point.segments:.1f}",
            f"{point.flops / 1e9:.3g}",
        ]
        for point in measured
    ]
    print(table(["family", "effort", "exact", "valid", "segments", "GFLOP a puzzle"], lines))
    if bundle.card.board.has_rules:
        print(restarts(bundle, rows))
    if options.figure is not None:
        figure(measured, title).write_html(options.figure, include_plotlyjs="cdn")
        print(f"figure: {options.figure}")


def _ways(bundle: PuzzleBundle) -> tuple[str, ...]:
    return ("symmetries", "noise") if bundle.card.board.has_rules else ("noise",)


def _rows(bundle: PuzzleBundle, dataset: PuzzleDataset, count: int) -> tuple[Any, Any, Any]:
    chosen = np.unique(np.linspace(0, dataset.num_rows - 1, min(count, dataset.num_rows)).astype(np.int64))
    inputs, labels, identifiers = [], [], []
    for index in chosen:
        part, row = dataset.row(int(index))
        inputs.append(part.inputs[row])
        labels.append(part.labels[row])
        identifiers.append(part.puzzle_identifiers[np.searchsorted(part.puzzle_indices, row, side="right") - 1])
    return np.stack(inputs), np.stack(labels), np.array(identifiers)


def _point(family: str, name: str, solutions: Solutions, labels: Any) -> Point:
    exact = float((solutions.answers == labels).all(1).mean())
    valid = None if solutions.is_valid is None else float(solutions.is_valid.mean())
    return Point(family, name, exact, valid, float(solutions.segments.mean()), solutions.flops / len(labels))


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


if __name__ == "__main__":
    main()
