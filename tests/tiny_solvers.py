"""Solvers of a few thousand parameters, untrained or with weights set by hand, in memory and as bundles on disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from hrm_engine.bundles.bundle import PuzzleBundle
from hrm_engine.bundles.puzzle_card import PuzzleCard
from hrm_engine.bundles.save import seal_bundle, write_model
from hrm_engine.config import PuzzleNetworkConfig, resolve_puzzle_core
from hrm_engine.data.puzzles.rated import Puzzles
from hrm_engine.data.puzzles.sudoku.generate import generate
from hrm_engine.models.core import RecurrentCore
from hrm_engine.models.slots import Rows

VOCAB = {"sudoku": 11, "maze": 6, "arc": 12, "other": 7}


def tiny_card(kind: str = "sudoku", side: int = 4, **changes: Any) -> PuzzleCard:
    """The board of a solver."""
    vocab = side + 2 if kind == "sudoku" else VOCAB[kind]
    settings = {"puzzle": kind, "height": side, "width": side, "vocab_size": vocab, "pad_id": 0, **changes}
    return PuzzleCard.model_validate(settings)


def tiny_solver(
    card: PuzzleCard | None = None,
    *,
    arch: str = "trm",
    seed: int = 1,
    num_identifiers: int = 1,
    dtype: torch.dtype = torch.float64,
    **changes: Any,
) -> PuzzleBundle:
    """An untrained solver whose halting head says different things about different boards and depths."""
    card = tiny_card() if card is None else card
    small = {"hidden_size": 32, "intermediate_size": 32, "num_heads": 2, "h_layers": 1, "l_layers": 1}
    small |= {"h_cycles": 1, "l_cycles": 2, "puzzle_tokens": 1, "halt_max_steps": 8}
    network = PuzzleNetworkConfig.model_validate({"arch": arch, **small, **changes})
    config = resolve_puzzle_core(
        network, vocab_size=card.vocab_size, seq_len=card.height * card.width, num_identifiers=num_identifiers
    )
    core = RecurrentCore(config)
    core.initialise(seed)
    generator = torch.Generator().manual_seed(seed + 1)
    with torch.no_grad():
        assert core.q_head is not None
        core.q_head.weight.normal_(0, 1.0, generator=generator)
        core.q_head.bias.zero_()
        if core.puzzle_embedding is not None:
            core.puzzle_embedding.weight.normal_(0, 0.2, generator=generator)
        for name, parameter in core.named_parameters():
            if "q_proj" in name or "k_proj" in name:
                parameter.mul_(2)
    return PuzzleBundle(path=Path("tiny"), config=config, model=core.to(dtype).eval(), metadata={}, card=card)


def copying_solver(*, halt_value: float = 1.0) -> PuzzleBundle:
    """A 4x4 solver that repeats given digits and guesses at blanks by what its first states happen to be.

    Its layers add nothing, so a state is the sum of the first state and the token's direction; a blank has none.
    """
    bundle = tiny_solver(tiny_card(), puzzle_tokens=0, num_identifiers=0)
    core = bundle.model
    with torch.no_grad():
        for name, parameter in core.named_parameters():
            if "o_proj" in name or "down_proj" in name or name.startswith(("embed", "lm_head", "q_head.weight")):
                parameter.zero_()
        for token in range(2, 6):
            core.embed_tokens.weight[token, token] = 10
            core.lm_head.weight[token, token] = 10
        assert core.q_head is not None
        core.q_head.bias.fill_(halt_value)
    return bundle


def save_solver(bundle: PuzzleBundle, folder: Path, *, dataset: str | None = None) -> Path:
    """Write it as the bundle that a training leaves."""
    folder.mkdir(parents=True)
    names = write_model(folder, "puzzle", bundle.config, bundle.model.state_dict(), bundle.card)
    seal_bundle(folder, "puzzle", names, {"step": 0, "dataset_history": [{"dataset": dataset}] if dataset else []})
    return folder


def sudokus(count: int, *, blanks: int = 6, seed: int = 1) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """4x4 puzzles and their solutions, (count, 16) tokens."""
    made = Puzzles.joined(list(generate(4, count, blanks=blanks, seed=seed)))
    return made.inputs, made.labels


def as_rows(inputs: npt.NDArray[Any], labels: npt.NDArray[Any]) -> Rows:
    """The same for an evaluation."""
    identifiers = torch.zeros(len(inputs), dtype=torch.int32)
    return Rows(torch.from_numpy(inputs.astype(np.uint8)), torch.from_numpy(labels.astype(np.uint8)), identifiers)
