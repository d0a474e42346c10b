"""Small models and batches with every difficulty in them, for the tests of the engine's arithmetic.

Shapes: B rows, S tokens.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from hrm_engine.config import ARCHITECTURES, CoreConfig
from hrm_engine.models.act import TextBatch
from hrm_engine.models.core import RecurrentCore

VOCAB = 50
IGNORE = -100


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Tensors this small are slower on two threads, and sums do not depend on how they were shared out."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


ONE_PASS: dict[str, Any] = {"h_cycles": 1, "l_cycles": 0, "grad_calls": 1}
"""What a transformer is, whatever number of calls a test asks for."""


def tiny_config(arch: str = "hrm-text", **changes: Any) -> CoreConfig:
    """The settings that an architecture's name stands for, at a size that explicit loops can follow."""
    settings: dict[str, Any] = {
        **ARCHITECTURES[arch],
        "arch": arch,
        "vocab_size": VOCAB,
        "max_seq_len": 16,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_heads": 2,
        "h_layers": 1,
        "l_layers": 1,
        "h_cycles": 2,
        "l_cycles": 2,
        "grad_calls": 2,
        "halt_max_steps": 2,
        "pos_encodings": "rope",
        "embedding_scale": 32**0.5,
        **changes,
        **(ONE_PASS if arch == "transformer" else {}),
    }
    return CoreConfig.model_validate(settings)


def tiny_core(
    arch: str = "hrm-text",
    *,
    dtype: torch.dtype = torch.float64,
    seed: int = 0,
    sharpness: float = 2.0,
    **changes: Any,
) -> RecurrentCore:
    """A model whose halting head is not zero and whose attention is sharp, so that a wrong mask shows.

    ``sharpness`` 1 leaves the attention as it is drawn: where rounding errors are measured nothing magnifies them.
    """
    core = RecurrentCore(tiny_config(arch, **changes))
    core.initialise(seed)
    generator = torch.Generator().manual_seed(seed + 1)
    with torch.no_grad():
        if core.halt_head is not None:
            core.halt_head.weight.normal_(0, 0.3, generator=generator)
            core.halt_head.bias.fill_(0.2)
        for name, parameter in core.named_parameters():
            if "q_proj" in name or "k_proj" in name:
                parameter.mul_(sharpness)
    return core.to(dtype)


def random_tokens(*shape: int, seed: int = 0, vocab: int = VOCAB) -> Tensor:
    """Token ids."""
    return torch.randint(vocab, shape, generator=torch.Generator().manual_seed(seed))


def whole_rows(batch: int, length: int, *, seed: int = 0) -> TextBatch:
    """Every row one document, every token with a label."""
    return TextBatch(
        inputs=random_tokens(batch, length, seed=seed),
        labels=random_tokens(batch, length, seed=seed + 1000),
        positions=torch.arange(length).expand(batch, length),
        documents=None,
    )


def packed_rows(lengths: list[list[int]], *, padding: int = 0, seed: int = 0) -> TextBatch:
    """Rows of documents with these lengths, then ``padding`` tokens; the last token of a document has no label."""
    size = sum(lengths[0]) + padding
    positions, documents, labels = [], [], random_tokens(len(lengths), size, seed=seed + 1000)
    for row, parts in enumerate(lengths):
        positions.append([place for part in parts for place in range(part)] + [0] * padding)
        documents.append([number for number, part in enumerate(parts) for _ in range(part)] + [-1] * padding)
        end = 0
        for part in parts:
            end += part
            labels[row, end - 1] = IGNORE
        labels[row, end:] = IGNORE
    return TextBatch(
        inputs=random_tokens(len(lengths), size, seed=seed),
        labels=labels,
        positions=torch.tensor(positions),
        documents=torch.tensor(documents, dtype=torch.int32),
    )


def gradients(core: RecurrentCore) -> dict[str, Tensor]:
    """Gradients by name; zeros where the backward pass did not come."""
    return {
        name: torch.zeros_like(parameter) if parameter.grad is None else parameter.grad.clone()
        for name, parameter in core.named_parameters()
    }
