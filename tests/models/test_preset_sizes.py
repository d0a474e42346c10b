"""What the comments of the presets say of sizes is what their networks have."""

from __future__ import annotations

import re

import pytest
import torch

from hrm_engine.config import PuzzleTrainConfig, TextTrainConfig
from hrm_engine.config.base import PRESETS, presets_of
from hrm_engine.config.network import resolve_core
from hrm_engine.config.puzzle_network import resolve_puzzle_core
from hrm_engine.data.puzzles.arc.grids import NUM_CELLS, VOCAB_SIZE
from hrm_engine.models.core import RecurrentCore

BOARDS = {"arc": (VOCAB_SIZE, NUM_CELLS), "maze": (6, 900), "sudoku-4x4": (6, 16), "sudoku": (11, 81)}


def stated(name: str) -> str | None:
    comment = " ".join(re.findall("(?m)^# (.*)$", (PRESETS / f"{name}.yaml").read_text(encoding="utf8")))
    match = re.search(r"([\d.]+) M parameters", comment)
    return match and match[1]


@pytest.mark.parametrize("name", [name for name in presets_of(PuzzleTrainConfig) if stated(name)])
def test_a_puzzle_network_has_as_many_parameters_as_its_comment_says(name: str) -> None:
    config = PuzzleTrainConfig.load(name)
    vocab_size, seq_len = next(board for start, board in BOARDS.items() if name.startswith(start))
    core = resolve_puzzle_core(config.network, vocab_size=vocab_size, seq_len=seq_len, num_identifiers=1)
    with torch.device("meta"):
        millions = sum(parameter.numel() for parameter in RecurrentCore(core).parameters()) / 1e6
    number = stated(name) or ""
    assert f"{millions:.{len(number.partition('.')[2])}f}" == number


def test_the_text_model_has_as_many_parameters_as_its_comment_says() -> None:
    config = TextTrainConfig.load("text-small", dataset_file="none.txt")
    core = resolve_core(config.network, vocab_size=8192, max_seq_len=config.data.max_seq_len, moe=config.moe)
    with torch.device("meta"):
        assert round(sum(parameter.numel() for parameter in RecurrentCore(core).parameters()) / 1e6) == 7
    assert stated("text-small") == "7"
