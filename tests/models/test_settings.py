"""Rows of the architecture table that have no name of their own yet are settings of the same core."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from hrm_engine.bundles.core_config import read_core_config, write_core_config
from hrm_engine.bundles.load import build_model
from hrm_engine.config import CoreConfig, NetworkConfig, resolve_core
from hrm_engine.config.kinds import TEXT
from hrm_engine.errors import CheckpointError, ConfigError
from hrm_engine.inference.text.decoding import Decoder
from hrm_engine.models.act import TextBatch, run_segments
from hrm_engine.models.core import RecurrentCore

LENGTH = 9
POSITIONS = torch.arange(LENGTH)[None]


def core_of(**changed: object) -> RecurrentCore:
    network = NetworkConfig(arch="hrm", hidden_size=16, num_heads=2, h_layers=2, l_layers=2, halt_max_steps=2)
    settings = resolve_core(network, vocab_size=20, max_seq_len=LENGTH).model_dump()
    core = RecurrentCore(CoreConfig.model_validate({**settings, **changed}))
    core.initialise(3)
    return core.double()


def last_state(core: RecurrentCore, tokens: Tensor, segments: int) -> Tensor:
    batch = TextBatch(tokens, tokens, POSITIONS.expand(len(tokens), LENGTH), None)
    *_, carry = run_segments(core, batch, num_segments=segments)
    return carry.z_h


def tokens(rows: int = 2) -> Tensor:
    return torch.randint(0, 20, (rows, LENGTH), generator=torch.Generator().manual_seed(5))


def test_trm_is_one_module_for_both_levels() -> None:
    shared, two = core_of(shared_modules=True, grad_calls=3), core_of(grad_calls=3)
    assert shared.L_module is None
    # Two modules with the same weights are the slow way to say it.
    two.load_state_dict({name: shared.state_dict()[name.replace("L_module", "H_module")] for name in two.state_dict()})
    torch.testing.assert_close(last_state(shared, tokens(), 2), last_state(two, tokens(), 2), atol=0, rtol=0)
    last_state(shared, tokens(), 1).sum().backward()
    last_state(two, tokens(), 1).sum().backward()
    for name, parameter in shared.H_module.named_parameters():
        summed = two.H_module.get_parameter(name).grad + two.L_module.get_parameter(name).grad
        torch.testing.assert_close(parameter.grad, summed, atol=1e-12, rtol=1e-10)


def test_transformer_is_one_pass_of_one_stack() -> None:
    plain = core_of(
        l_cycles=0,
        h_cycles=1,
        grad_calls=1,
        norm="pre",
        initial_z_h="embedding",
        initial_z_l="zero",
        inject_input=False,
    )
    assert plain.L_module is None
    state = x = plain.embed(tokens(), POSITIONS)
    context = plain.context(POSITIONS)
    for layer in plain.H_module.layers:
        state, routing = layer(state, context)
        assert routing is None
    torch.testing.assert_close(last_state(plain, tokens(), 1), state, atol=0, rtol=0)
    assert not torch.equal(state, x)


def test_sequence_mlp_mixes_positions_of_full_rows() -> None:
    """TRM's other mixer: a SwiGLU along the row, the same for every channel."""
    core = core_of(mixer="sequence_mlp", causal=False, pos_encodings="none", shared_modules=True, grad_calls=3)
    layer = core.H_module.layers[0]
    x = torch.randn(2, LENGTH, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    mixed = layer.self_attn(x, core.context(POSITIONS))
    mlp = layer.self_attn.mlp
    for channel in range(16):
        row = x[:, :, channel]
        gate, value = row @ mlp.gate_proj.weight.T, row @ mlp.up_proj.weight.T
        expected = (gate / (1 + torch.exp(-gate)) * value) @ mlp.down_proj.weight.T
        torch.testing.assert_close(mixed[:, :, channel], expected, atol=1e-12, rtol=1e-10)
    last_state(core, tokens(), 2).sum().backward()
    assert mlp.gate_proj.weight.grad is not None
    with pytest.raises(ConfigError, match="whole rows of 9 positions"):
        layer.self_attn(x[:, :4], core.context(POSITIONS[:, :4]))


def test_gated_norm_is_its_equation() -> None:
    core = core_of(activation="gated_norm")
    mlp = core.H_module.layers[0].mlp
    x = torch.randn(3, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    gate, value = x @ mlp.gate_proj.weight.T, x @ mlp.up_proj.weight.T
    product = gate * value
    normed = product / (product.square().mean(-1, keepdim=True) + core.config.norm_eps).sqrt()
    expected = (normed / (1 + torch.exp(-gate))) @ mlp.down_proj.weight.T
    torch.testing.assert_close(mlp(x), expected, atol=1e-12, rtol=1e-10)
    last_state(core, tokens(), 1).sum().backward()
    assert mlp.up_proj.weight.grad is not None


@pytest.mark.parametrize("changed", [{"shared_modules": True}, {"l_cycles": 0, "grad_calls": 1}])
def test_they_generate_save_and_load(tmp_path: Path, changed: dict[str, object]) -> None:
    core = core_of(**changed)
    write_core_config(tmp_path, core.config, TEXT.name)
    again = build_model(read_core_config(tmp_path), core.state_dict(), where=tmp_path)
    decoder = Decoder(again, num_segments=2, batch=2)
    decoder.feed(tokens()[:, :4])
    with torch.no_grad():
        full = core.logits(last_state(core, tokens(), 2))
    for place in range(4, LENGTH):
        found = decoder.feed(tokens()[:, place : place + 1])
        torch.testing.assert_close(found, full[:, place], atol=1e-12, rtol=1e-10)


@pytest.mark.parametrize(
    "changed",
    [
        {"h_layers": 10**9},
        {"hidden_size": 10**18},
        {"num_heads": 3},
        {"grad_calls": 99},
        {"l_cycles": -1},
        {"mixer": "sequence_mlp"},
    ],
)
def test_a_hostile_description_is_refused_before_anything_is_built(tmp_path: Path, changed: dict[str, object]) -> None:
    core = core_of()
    settings = {**core.config.model_dump(), **changed}
    with pytest.raises(ValidationError):
        CoreConfig.model_validate(settings)
    write_core_config(tmp_path, core.config.model_copy(update=changed), TEXT.name)
    with pytest.raises(CheckpointError, match=r"config\.json does not describe a model"):
        read_core_config(tmp_path)
