"""Run folders as a trainer leaves them: the same files, made with the store's own writers."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from hrm_engine.store.files import write_json
from hrm_engine.store.manifest import write_manifest
from hrm_engine.store.metrics import MetricsWriter, encode_row
from hrm_engine.store.status import RunStatus, State, write_status

BRAINS = "artifacts/brains/actv1"
TOKENS_PER_STEP = 1024
SECONDS_PER_STEP = 0.5
UNIGRAM_LOSS = 6.4
NUM_SEGMENTS = 3


def train_fields(step: int, noise: random.Random) -> dict[str, Any]:
    """The fields of a training row after ``step`` optimizer steps: a loss that falls, with noise on it."""
    loss = 3.1 + 5.4 * math.exp(-step / 120) + noise.gauss(0, 0.12)
    return {
        "loss": loss,
        "ce": loss - 0.05,
        "halt_loss": 0.05,
        "lr": 2e-4 * min(1.0, step / 50) * (0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * min(step, 1000) / 1000))),
        "grad_norm": 0.6 + 1.5 * math.exp(-step / 80) + abs(noise.gauss(0, 0.1)),
        "tokens": step * TOKENS_PER_STEP,
        "rows": step * 8,
        "tokens_per_s": 2048 + noise.gauss(0, 60),
        "token_segments_per_s": 2048 * NUM_SEGMENTS + noise.gauss(0, 150),
        "step_time_s": SECONDS_PER_STEP + abs(noise.gauss(0, 0.02)),
        "act_steps_mean": 3 - 0.8 * (1 - math.exp(-step / 300)),
        "effective_batch_size": 8,
        "dataset_position": step * 8,
        "memory_rss_bytes": 1_450_000_000,
    }


def eval_fields(step: int) -> dict[str, Any]:
    """The fields of an evaluation after ``step`` optimizer steps; deeper segments are better."""
    losses = [3.4 + 5.2 * math.exp(-step / 130) + 0.12 * (NUM_SEGMENTS - depth) for depth in range(1, NUM_SEGMENTS + 1)]
    accuracies = [max(0.0, 0.52 - 0.06 * loss) for loss in losses]
    return {
        "loss": losses[-1],
        "perplexity": math.exp(losses[-1]),
        "token_accuracy": accuracies[-1],
        "loss_by_segment": losses,
        "token_accuracy_by_segment": accuracies,
        "adaptive_loss": losses[-1] + 0.004,
        "adaptive_token_accuracy": accuracies[-1],
        "act_steps_mean": 2.1,
        "halt_threshold": 0.5,
        "num_tokens": 20_000,
        "unigram_loss": UNIGRAM_LOSS,
        "eval_time_s": 1.5,
    }


def system_fields(noise: random.Random) -> dict[str, Any]:
    """The fields of a row about the machine."""
    return {
        "cpu_percent": min(100.0, 88 + noise.gauss(0, 5)),
        "memory_rss_bytes": int(1_400_000_000 + abs(noise.gauss(0, 3e7))),
        "memory_percent": 31 + noise.gauss(0, 1),
        "disk_free_bytes": 412_000_000_000,
    }


def events(first: int, last: int, *, every: int = 1, eval_every: int = 50) -> Iterable[tuple[str, int, dict[str, Any]]]:
    """What a trainer writes from step ``first`` to step ``last``: (event, step, fields)."""
    noise = random.Random(first)
    if first <= 1:
        yield "start", 0, {"command": "lab train actv1", "device": "cpu", "parameters": 4_200_000}
        yield "eval", 0, eval_fields(0)
    for step in range(max(first, 1), last + 1):
        if step % every == 0:
            yield "train", step, train_fields(step, noise)
        if step % 20 == 0:
            yield "system", step, system_fields(noise)
        if step % eval_every == 0:
            yield "eval", step, eval_fields(step)
            yield (
                "sample",
                step,
                {"prompt": "The function", "text": f"returns the value of the *{step}*th <b>item</b>."},
            )


def usage_fields(
    step: int, layers: Mapping[str, int], *, per_token: int = 2, num_tokens: int = 1024
) -> Iterator[dict[str, Any]]:
    """The ``expert_usage`` fields of a step, for each of ``layers`` (name to experts): uneven first, then even."""
    for at, (layer, number) in enumerate(layers.items()):
        weights = [1 + (1.5 + at) * math.exp(-step / 150) * ((expert * 7 + at) % number) for expert in range(number)]
        counts = [round(per_token * num_tokens * weight / sum(weights)) for weight in weights]
        yield {
            "layer": layer,
            "avg_routing_prob": [weight / sum(weights) for weight in weights],
            "token_counts": counts,
            "dropped_tokens": round(0.3 * sum(counts) * math.exp(-step / 100)),
            "total_tokens": num_tokens,
        }


def write_moe_run(
    root: Path, name: str, *, layers: Mapping[str, int] | None = None, last: int = 400, bias_rate: float | None = None
) -> Path:
    """A finished run of a model with experts; ``expert_usage`` every 20 steps."""
    layers = layers if layers is not None else {"H.0": 8, "H.1": 8, "L.0": 8, "L.1": 4}
    run = write_run(root, name, last=0)
    arguments = training_args(name, last)
    arguments["parameters"]["moe"] = {"use_moe": True, "num_experts": 8, "num_experts_per_tok": 2}
    write_json(run / "training_args.json", arguments)
    noise = random.Random(last)
    rows: list[tuple[str, int, dict[str, Any]]] = []
    for step in range(1, last + 1):
        balance = {"lb_loss": 1 + math.exp(-step / 120), "z_loss": 2.0 + math.exp(-step / 80), "moe_layers": 4}
        rows.append(("train", step, {**train_fields(step, noise), **balance}))
        if step % 20 == 0:
            more = {} if bias_rate is None else {"bias_rate": bias_rate}
            rows += [("expert_usage", step, {**fields, **more}) for fields in usage_fields(step, layers)]
    append_timed(run / "metrics.jsonl", rows, datetime.now(UTC) - timedelta(hours=1), run_id=name)
    return run


def append_events(path: Path, rows: Iterable[tuple[str, int, dict[str, Any]]], run_id: str = "run") -> None:
    """Append rows with the trainer's own writer, stamped with the present time."""
    with MetricsWriter(path, run_id) as writer:
        for event, step, fields in rows:
            writer.write(event, step, **fields)


def append_timed(
    path: Path, rows: Iterable[tuple[str, int, dict[str, Any]]], started: datetime, run_id: str = "run"
) -> None:
    """Append rows as if each step had taken half a second since ``started``: whole hours without waiting for them."""
    lines = []
    for event, step, fields in rows:
        row = json.loads(encode_row(run_id, event, step, fields))
        row["ts"] = (started + timedelta(seconds=step * SECONDS_PER_STEP)).isoformat(timespec="milliseconds")
        lines.append(json.dumps(row, separators=(",", ":")) + "\n")
    with path.open("a", encoding="utf-8") as file:
        file.writelines(lines)


def write_run(
    root: Path,
    name: str,
    *,
    folder: str = BRAINS,
    kind: str = "actv1",
    last: int = 200,
    planned: int = 1000,
    every: int = 1,
    state: State | None = "finished",
    message: str = "",
    pid: int | None = None,
    ago: timedelta = timedelta(hours=2),
) -> Path:
    """A run folder with ``last`` steps done, ``ago`` in the past; ``state`` None leaves out status.json."""
    run = root / folder / name
    run.mkdir(parents=True)
    write_json(run / "training_args.json", training_args(name, planned))
    append_timed(run / "metrics.jsonl", events(1, last, every=every), datetime.now(UTC) - ago, run_id=name)
    write_json(run / "metadata.json", {"schema_version": 1, "kind": kind, "files": {}})
    (run / "run.log").write_text(
        "".join(f"step {step}: loss {3 + 1 / step:.3f}\n" for step in range(1, last + 1)), encoding="utf-8"
    )
    if state is not None:
        status = RunStatus.of_this_process(state, last, message)
        if state != "running":
            ended = datetime.now(UTC) - ago + timedelta(seconds=last * SECONDS_PER_STEP)
            status = replace(status, heartbeat=ended.isoformat(timespec="milliseconds"))
        write_status(run, status if pid is None else replace(status, pid=pid))
    return run


def write_puzzle_rows(path: Path, number: int, *, ratings: int) -> Path:
    """``evaluation/rows.jsonl`` of a solver: difficulty ``i % ratings``, the harder the more seldom solved."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = []
    for row in range(number):
        rating = row % ratings if ratings else 0
        exact = not ratings or rating == 0 or (rating == 1 and row // ratings % 2 == 0)
        line: dict[str, Any] = {
            "row": row,
            "exact": exact,
            "cell_accuracy": 1.0 if exact else 0.75,
            "exact_when_halting": exact,
            "segments": 1 + rating % 3,
            "confidence": 0.9 if exact else 0.05 * (row % 10),
            "loss": 0.01 * row,
        }
        if ratings:
            line["rating"] = float(rating)
        lines.append(json.dumps(line) + "\n")
    path.write_text("".join(lines), encoding="utf-8")
    return path


def training_args(name: str, steps: int) -> dict[str, Any]:
    """Parameters as nested groups, and the command line."""
    return {
        "schema_version": 1,
        "command_line": ["lab", "train", "actv1", "--brain-name", name, "--steps", str(steps)],
        "parameters": {
            "network": {"arch": "hrm-text", "hidden_size": 256, "h_cycles": 2, "l_cycles": 3, "halt_max_steps": 3},
            "optim": {"lr": 2e-4, "warmup_steps": 50, "lr_scheduler": "cosine", "grad_clip": 1.0},
            "data": {"dataset_file": "training_data/curated_datasets/python_docs/train.jsonl", "max_seq_len": 128},
            "run": {"steps": steps, "batch_size": 8, "seed": 0, "brain_name": name, "max_minutes": None},
        },
    }


def write_checkpoint(run: Path, step: int, num_bytes: int = 4096) -> Path:
    """A valid checkpoint folder."""
    folder = run / "checkpoints" / f"step_{step:08d}"
    folder.mkdir(parents=True)
    (folder / "state.safetensors").write_bytes(bytes(step % 251 for _ in range(num_bytes)))
    write_json(folder / "config.json", {"architecture": "hrm-text"})
    write_manifest(folder)
    return folder
