"""Compiled modules compute what eager ones do."""

from __future__ import annotations

import shutil
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._dynamo.testing import CompileCounter

from hrm_engine.config import NetworkConfig, resolve_core
from hrm_engine.models.act import TextBatch, accumulate_gradients, depth_statistics
from hrm_engine.models.core import RecurrentCore

LENGTH = 12

# The compiler's own code warns about its own calls.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on a CPU, g++ is missing")
def test_compiled_gradients_equal_eager_ones() -> None:
    eager, compiled = gradients(None, [(2, True), (2, True)]), gradients("inductor", [(2, True), (2, True)])
    assert eager.keys() == compiled.keys()
    for name, gradient in eager.items():
        torch.testing.assert_close(compiled[name], gradient, atol=1e-6, rtol=1e-5)


def test_every_shape_of_batch_is_compiled_once() -> None:
    # Whole, partial and halved micro-batches, with and without boundaries: more than the library's limit of shapes.
    shapes = [(size, packed) for size in (8, 7, 4, 2, 1) for packed in (True, False)]
    torch._dynamo.reset()
    counted = CompileCounter()
    frame_counts = []
    for checkpointing in (False, True):  # which goes around what is compiled
        eager = gradients(None, shapes, checkpointing=checkpointing)
        compiled = gradients(counted, shapes, checkpointing=checkpointing)
        frame_counts.append(counted.frame_count)
        for name, gradient in eager.items():
            torch.testing.assert_close(compiled[name], gradient, atol=1e-6, rtol=1e-5)
    assert frame_counts[0] == frame_counts[1] >= len(shapes)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_stopped_positions_compiled(checkpointing: bool) -> None:
    eager = gradients(None, [(2, True), (3, False)], checkpointing=checkpointing, stopping=True)
    compiled = gradients("aot_eager", [(2, True), (3, False)], checkpointing=checkpointing, stopping=True)
    for name, gradient in eager.items():
        torch.testing.assert_close(compiled[name], gradient, atol=1e-6, rtol=1e-5)
    plain = gradients(None, [(2, True), (3, False)])
    assert any(not torch.allclose(plain[name], gradient, atol=1e-4) for name, gradient in eager.items())


def gradients(
    backend: Any, shapes: list[tuple[int, bool]], *, checkpointing: bool = False, stopping: bool = False
) -> dict[str, Tensor]:
    """Gradients summed over a batch of each shape (rows, packed), with an evaluation of each in between."""
    network = NetworkConfig(hidden_size=16, num_heads=2, h_layers=1, l_layers=1, l_cycles=1, halt_max_steps=2)
    model = RecurrentCore(resolve_core(network, vocab_size=30, max_seq_len=LENGTH))
    model.initialise(0)
    if backend is not None:
        model.compile(backend=backend)
    generator = torch.Generator().manual_seed(1)
    for rows, packed in shapes:
        tokens = torch.randint(0, 30, (rows, LENGTH), generator=generator)
        documents = torch.randint(0, 2, (rows, LENGTH), generator=generator).sort(1).values if packed else None
        batch = TextBatch(tokens, tokens, torch.arange(LENGTH).expand(rows, LENGTH), documents)
        depth_statistics(model, batch, num_segments=2)
        if stopping:
            batch = replace(batch, depths=torch.randint(1, 3, tokens.shape, generator=generator))
        accumulate_gradients(
            model,
            batch,
            num_segments=2,
            normaliser=2 * LENGTH,
            backward=lambda loss: loss.backward(),
            checkpointing=checkpointing,
        )
    return {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}
