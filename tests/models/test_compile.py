"""Compiled modules compute what eager ones do."""

from __future__ import annotations

import shutil

import pytest
import torch
from torch import Tensor

from hrm_engine.config import CoreConfig, NetworkConfig, resolve_core
from hrm_engine.models.act import TextBatch, accumulate_gradients
from hrm_engine.models.core import RecurrentCore

LENGTH = 12


# The compiler's own code warns about its own calls.
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on a CPU, g++ is missing")
def test_compiled_gradients_equal_eager_ones() -> None:
    network = NetworkConfig(hidden_size=16, num_heads=2, h_layers=1, l_layers=1, l_cycles=1, halt_max_steps=2)
    core = resolve_core(network, vocab_size=30, max_seq_len=LENGTH)
    eager, compiled = _gradients(core, compile_it=False), _gradients(core, compile_it=True)
    assert eager.keys() == compiled.keys()
    for name, gradient in eager.items():
        torch.testing.assert_close(compiled[name], gradient, atol=1e-6, rtol=1e-5)


def _gradients(core: CoreConfig, *, compile_it: bool) -> dict[str, Tensor]:
    model = RecurrentCore(core)
    model.initialise(0)
    if compile_it:
        model.compile()
    generator = torch.Generator().manual_seed(1)
    for _ in range(2):  # the second batch runs what the first one compiled
        tokens = torch.randint(0, 30, (2, LENGTH), generator=generator)
        documents = torch.randint(0, 2, (2, LENGTH), generator=generator).sort(1).values
        batch = TextBatch(tokens, tokens, torch.arange(LENGTH).expand(2, LENGTH), documents)
        accumulate_gradients(model, batch, num_segments=2, normaliser=2 * LENGTH, backward=lambda loss: loss.backward())
    return {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}
