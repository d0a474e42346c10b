"""Small ARC tasks for tests, as JSON and as files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np


def grid(rng: np.random.Generator, height: int, width: int) -> list[list[int]]:
    """A grid of all ten colours (if it has cells enough), so that no two transforms of it are equal."""
    cells = rng.permutation(np.arange(height * width) % 10)
    return [[int(cell) for cell in row] for row in cells.reshape(height, width)]


def task_json(seed: int, *, num_demonstrations: int = 3, num_tests: int = 1) -> dict[str, Any]:
    """A task of random grids with different sizes of input and output."""
    rng = np.random.default_rng(seed)

    def pairs(num: int) -> list[dict[str, Any]]:
        return [
            {"input": grid(rng, *rng.integers(4, 8, size=2)), "output": grid(rng, *rng.integers(4, 8, size=2))}
            for _ in range(num)
        ]

    return {"train": pairs(num_demonstrations), "test": pairs(num_tests)}


def write_tasks(folder: Path, *, num_training: int = 2, num_evaluation: int = 2) -> Path:
    """A folder in ARC's form: ``training/*.json`` and ``evaluation/*.json``; evaluation tasks have 1, 2, ... tests."""
    for part, num in (("training", num_training), ("evaluation", num_evaluation)):
        for number in range(num):
            place = folder / part / f"{part[:5]}{number}.json"
            place.parent.mkdir(parents=True, exist_ok=True)
            seed = number + (100 if part == "evaluation" else 0)
            tests = number + 1 if part == "evaluation" else 1
            place.write_text(json.dumps(task_json(seed, num_tests=tests)))
    return folder
