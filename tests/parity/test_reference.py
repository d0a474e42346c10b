"""The recurrent core equals its equations, written out a second time: logits, gradients, losses."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from hrm_engine.config import NetworkConfig, resolve_core
from hrm_engine.models.act import TextBatch, accumulate_gradients, run_segments
from hrm_engine.models.core import RecurrentCore
from tests.models.tiny import gradients, packed_rows, tiny_core, whole_rows
from tests.parity.ours import rows_of, shape_of, weights_of
from tests.parity.reference_model import logits_by_segment, training_loss

ARCHITECTURES = ["hrm", "hrm-text"]
SIZES = [
    # h_layers, l_layers, h_cycles, l_cycles
    (1, 1, 1, 1),
    (1, 2, 2, 2),
    (2, 1, 2, 1),
    (1, 1, 1, 3),
    (1, 1, 3, 1),
]


def engine_logits(core: RecurrentCore, batch: TextBatch, num_segments: int) -> list[Tensor]:
    return [core.logits(carry.z_h) for carry in run_segments(core, batch, num_segments=num_segments)]


def assert_same_logits(core: RecurrentCore, batch: TextBatch, num_segments: int) -> None:
    weights = {name: w.detach() for name, w in weights_of(core).items()}
    ours = engine_logits(core, batch, num_segments)
    assert len(ours) == num_segments
    for number, row in enumerate(rows_of(batch)):
        wanted = logits_by_segment(weights, shape_of(core), row, num_segments)
        for segment in range(num_segments):
            torch.testing.assert_close(ours[segment][number], wanted[segment], rtol=0, atol=1e-10)


def assert_same_gradients(
    core: RecurrentCore, batch: TextBatch, num_segments: int, *, grad_calls: int | str | None = None
) -> None:
    count = int((batch.labels >= 0).sum())
    sums = accumulate_gradients(
        core, batch, num_segments=num_segments, normaliser=count, backward=lambda loss: loss.backward()
    )
    weights = weights_of(core)
    loss = training_loss(weights, shape_of(core, grad_calls), rows_of(batch), batch.labels.tolist(), num_segments)
    loss.backward()
    ours = float(sums.ce_by_segment.mean() + 0.05 * sums.halt) / count
    assert ours == pytest.approx(float(loss.detach()), abs=1e-10)
    for name, found in gradients(core).items():
        wanted = weights[name].grad
        wanted = torch.zeros_like(found) if wanted is None else wanted
        torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-11, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_logits_after_each_segment(arch: str, size: tuple[int, int, int, int]) -> None:
    h_layers, l_layers, h_cycles, l_cycles = size
    core = tiny_core(arch, h_layers=h_layers, l_layers=l_layers, h_cycles=h_cycles, l_cycles=l_cycles)
    with torch.no_grad():
        assert_same_logits(core, whole_rows(2, 8), 3)


@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize("positions", ["rope", "learned", "none"])
@pytest.mark.parametrize("window", [None, 1, 3, 40])
def test_logits_of_packed_documents(arch: str, positions: str, window: int | None) -> None:
    core = tiny_core(arch, pos_encodings=positions, window_size=window, h_cycles=1)
    batch = packed_rows([[3, 5], [7, 1]], padding=2)
    with torch.no_grad():
        assert_same_logits(core, batch, 2)


@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("positions", ["rope", "learned", "none"])
@pytest.mark.parametrize("window", [None, 3])
def test_logits_of_a_transformer(layers: int, positions: str, window: int | None) -> None:
    core = tiny_core("transformer", h_layers=layers, pos_encodings=positions, window_size=window)
    with torch.no_grad():
        assert_same_logits(core, packed_rows([[3, 5], [7, 1]], padding=2), 3)


@pytest.mark.parametrize("num_segments", [1, 2])
def test_gradients_of_a_transformer(num_segments: int) -> None:
    """All its layers, as a user asks for it; with more segments the stack runs again on its own result."""
    network = NetworkConfig(arch="transformer", hidden_size=32, num_heads=2, h_layers=2, halt_max_steps=num_segments)
    core = RecurrentCore(resolve_core(network, vocab_size=50, max_seq_len=8))
    core.initialise(5)
    assert_same_gradients(core.double(), packed_rows([[2, 3]], padding=1), num_segments, grad_calls="full")


def test_the_gate_can_be_switched_on_its_own() -> None:
    gated, plain = tiny_core("hrm-text"), tiny_core("hrm-text", attention_gate=False)
    with torch.no_grad():
        shared = {name: w for name, w in gated.state_dict().items() if ".self_attn.gate_proj" not in name}
        plain.load_state_dict(shared)
        batch = whole_rows(1, 6)
        # sigmoid(0) is a half: a gate of zeros halves what a doubled output projection doubles
        for name, parameter in gated.named_parameters():
            if "self_attn.gate_proj" in name:
                parameter.zero_()
            if "self_attn.o_proj" in name:
                parameter.mul_(2)
        torch.testing.assert_close(
            engine_logits(gated, batch, 2)[1], engine_logits(plain, batch, 2)[1], rtol=0, atol=1e-12
        )


@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize("grad_calls", [1, 2, 3, 4, 5, 6])
def test_gradients_of_the_last_calls(arch: str, grad_calls: int) -> None:
    """2 is ``one_step``, 6 is ``full`` here; two segments, packed documents, halting loss included."""
    core = tiny_core(arch, grad_calls=grad_calls)
    assert_same_gradients(core, packed_rows([[2, 3]], padding=1), 2)


@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize("grad_calls", ["one_step", 4, "full"])
def test_gradients_as_a_user_chooses_them(arch: str, grad_calls: int | str) -> None:
    """From the words of the flags to the gradient, with nothing set by hand in between."""
    network = NetworkConfig.model_validate(
        {"arch": arch, "hidden_size": 32, "num_heads": 2, "h_layers": 1, "l_layers": 1, "grad_calls": grad_calls}
    )
    core = RecurrentCore(resolve_core(network, vocab_size=50, max_seq_len=8))
    core.initialise(5)
    assert_same_gradients(core.double(), whole_rows(1, 4), 2, grad_calls=grad_calls)


@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize(
    ("sizes", "grad_calls"), [((1, 1, 1, 1), 2), ((2, 1, 1, 2), 2), ((1, 2, 1, 2), 3), ((1, 1, 2, 1), 3)], ids=str
)
def test_gradients_at_other_sizes(arch: str, sizes: tuple[int, int, int, int], grad_calls: int) -> None:
    h_layers, l_layers, h_cycles, l_cycles = sizes
    core = tiny_core(
        arch, h_layers=h_layers, l_layers=l_layers, h_cycles=h_cycles, l_cycles=l_cycles, grad_calls=grad_calls
    )
    assert_same_gradients(core, whole_rows(2, 4), 3)


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_gradients_with_learned_positions_and_a_window(arch: str) -> None:
    core = tiny_core(arch, pos_encodings="learned", window_size=2, grad_calls=5)
    assert_same_gradients(core, packed_rows([[4, 2]]), 1)
