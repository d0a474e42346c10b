"""First weights, the carry, and that what is trained gets a gradient."""

from __future__ import annotations

import pytest
import torch

from hrm_engine.config import NetworkConfig, TextTrainConfig, build_config, resolve_core
from hrm_engine.config.base import presets_of
from hrm_engine.models.act import accumulate_gradients, run_segments
from hrm_engine.models.core import Carry, RecurrentCore
from tests.models.tiny import random_tokens, tiny_config, tiny_core, whole_rows


@pytest.mark.parametrize("arch", ["hrm", "hrm-text"])
def test_first_weights_have_the_published_size(arch: str) -> None:
    config = tiny_config(arch, hidden_size=128, intermediate_size=256, vocab_size=500, pos_encodings="learned")
    core = RecurrentCore(config.model_copy(update={"embedding_scale": 20.0}))
    core.initialise(0)
    for name, parameter in core.named_parameters():
        if name.startswith("halt_head"):
            assert not parameter.any()
            continue
        wanted = 1 / 20 if "embed" in name else parameter.shape[1] ** -0.5
        assert parameter.std().item() == pytest.approx(wanted, rel=0.03), name
        assert parameter.mean().item() == pytest.approx(0, abs=wanted / 20), name
        assert parameter.abs().max().item() <= 2 * wanted / 0.8796, name  # truncated at two standard deviations
    for name, value in core.named_buffers():
        if arch == "hrm":
            assert value.std().item() == pytest.approx(1, rel=0.2), name
        else:
            assert not value.any(), name


def test_first_weights_come_from_the_seed_alone() -> None:
    def drawn(seed: int) -> dict[str, torch.Tensor]:
        core = RecurrentCore(tiny_config("hrm"))
        torch.randn(seed + 3)  # another state of the global generator
        core.initialise(seed)
        return core.state_dict()

    before = torch.get_rng_state()
    first, again, other = drawn(1), drawn(1), drawn(2)
    torch.set_rng_state(before)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["lm_head.weight"], other["lm_head.weight"])
    assert not torch.equal(first["z_H_init"], first["z_L_init"])


def test_the_input_has_unit_variance() -> None:
    for encoding in ("rope", "learned"):
        core = RecurrentCore(tiny_config("hrm", hidden_size=128, pos_encodings=encoding, embedding_scale=7.0))
        core.initialise(0)
        x = core.embed(random_tokens(4, 16), torch.arange(16)[None])
        assert x.std().item() == pytest.approx(1, rel=0.05), encoding


def test_initial_states_are_fixed_and_not_trained() -> None:
    core = tiny_core("hrm", grad_calls=6)
    x = torch.zeros(2, 3, 32, dtype=torch.float64)
    carry = core.initial_carry(x)
    assert torch.equal(carry.z_h[1, 2], core.z_H_init)
    assert torch.equal(carry.z_l[0, 1], core.z_L_init)
    assert "z_H_init" in core.state_dict()
    assert "z_H_init" not in dict(core.named_parameters())
    text = tiny_core("hrm-text")
    assert text.initial_carry(x + 2).z_h.eq(2).all()
    assert not text.initial_carry(x + 2).z_l.any()


@pytest.mark.parametrize("grad_calls", [2, 6])
def test_the_carry_between_segments_has_no_graph(grad_calls: int) -> None:
    """Backward of the second segment alone: the first one's graph is not reached, so it needs not be there."""
    core = tiny_core("hrm", grad_calls=grad_calls)
    segments = run_segments(core, whole_rows(1, 5), num_segments=2)
    first = next(segments)
    assert first.z_h.requires_grad
    assert not first.detach().z_h.requires_grad
    assert not first.detach().z_l.requires_grad
    first.z_h.retain_grad()
    second = next(segments)
    second.z_h.sum().backward()
    assert first.z_h.grad is None


def test_gradient_free_calls_keep_no_graph() -> None:
    """With two calls of six the states before them are constants: the first cycle's modules leave no trace."""
    core = tiny_core("hrm")
    x = core.embed(random_tokens(1, 4), torch.arange(4)[None]).detach().requires_grad_()
    start = Carry(*(torch.zeros_like(x).requires_grad_() for _ in range(2)))
    carry = core.segment(start, x, core.context(torch.arange(4)[None]))
    carry.z_h.sum().backward()
    assert start.z_h.grad is None
    assert start.z_l.grad is None
    assert x.grad is not None


def untrained(network: NetworkConfig, num_segments: int) -> list[str]:
    """Weights that a training step gives no gradient."""
    small = {"hidden_size": 32, "num_heads": 2}
    core = RecurrentCore(resolve_core(network.model_copy(update=small), vocab_size=50, max_seq_len=8))
    core.initialise(0)
    core.double()
    accumulate_gradients(
        core, whole_rows(2, 8), num_segments=num_segments, normaliser=16, backward=lambda loss: loss.backward()
    )
    return [name for name, p in core.named_parameters() if p.grad is None or not p.grad.any()]


@pytest.mark.parametrize("arch", ["hrm", "hrm-text"])
@pytest.mark.parametrize("cycles", [(2, 2), (1, 1), (1, 3), (2, 3), (3, 1)], ids=str)
def test_the_defaults_train_every_weight(arch: str, cycles: tuple[int, int]) -> None:
    """``hrm-text`` does not inject x: only a gradient back to the first high-level call reaches the embeddings."""
    network = NetworkConfig.model_validate({"arch": arch, "h_cycles": cycles[0], "l_cycles": cycles[1]})
    assert untrained(network, network.halt_max_steps) == []


def test_a_transformer_trains_every_weight() -> None:
    assert untrained(NetworkConfig(arch="transformer"), 1) == []
    assert untrained(NetworkConfig(arch="transformer", halt_max_steps=2), 2) == []


@pytest.mark.parametrize("name", presets_of(TextTrainConfig))
def test_every_preset_trains_every_weight(name: str) -> None:
    network = build_config(TextTrainConfig, preset=name).network
    assert untrained(network, network.halt_max_steps) == []
