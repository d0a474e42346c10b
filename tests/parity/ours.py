"""Our model as the reference takes it: its shape, its weights, its rows."""

from __future__ import annotations

import torch
from torch import Tensor

from hrm_engine.models.act import TextBatch
from hrm_engine.models.core import RecurrentCore
from tests.parity.reference_model import Row, Shape


def shape_of(core: RecurrentCore, grad_calls: int | str | None = None) -> Shape:
    """Sizes alone: what the architecture's name means, the re-implementation knows by itself."""
    config = core.config
    return Shape(
        arch=config.arch,
        heads=config.num_heads,
        h_layers=config.h_layers,
        l_layers=config.l_layers,
        h_cycles=config.h_cycles,
        l_cycles=config.l_cycles,
        grad_calls=config.grad_calls if grad_calls is None else grad_calls,
        scale=config.embedding_scale,
        positions=config.pos_encodings,
        window=config.window_size,
    )


def rows_of(batch: TextBatch) -> list[Row]:
    documents = torch.zeros_like(batch.inputs) if batch.documents is None else batch.documents
    parts = zip(batch.inputs.tolist(), batch.positions.tolist(), documents.tolist(), strict=True)
    return [Row(tokens, places, numbers) for tokens, places, numbers in parts]


def weights_of(core: RecurrentCore) -> dict[str, Tensor]:
    parameters = {name: p.detach().clone().requires_grad_() for name, p in core.named_parameters()}
    return parameters | {name: b.clone() for name, b in core.named_buffers()}
