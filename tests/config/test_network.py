"""From an architecture's name to the settings of the core."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from hrm_engine.config import CoreConfig, NetworkConfig, TextTrainConfig, build_config, resolve_core
from hrm_engine.config.network import inner_width
from hrm_engine.errors import ConfigError


def resolved(**values: object) -> CoreConfig:
    return resolve_core(NetworkConfig.model_validate(values), vocab_size=300, max_seq_len=64)


def test_hrm_is_the_papers() -> None:
    """Post-norm without a norm at the exit, no gate, fixed random states, x in every low-level call; eps 1e-5."""
    core = resolved(arch="hrm")
    assert (core.norm, core.exit_norm, core.attention_gate, core.inject_input) == ("post", False, False, True)
    assert (core.initial_z_h, core.initial_z_l, core.norm_eps) == ("random", "random", 1e-5)
    assert not core.shared_modules


def test_hrm_text_is_the_librarys() -> None:
    """Pre-norm with a norm at the exit, gate, z_H from the embedding, z_L zero, no x; eps as in transformers."""
    core = resolved(arch="hrm-text")
    assert (core.norm, core.exit_norm, core.attention_gate, core.inject_input) == ("pre", True, True, False)
    assert (core.initial_z_h, core.initial_z_l, core.norm_eps) == ("embedding", "zero", 1e-6)
    assert not core.shared_modules


def test_transformer_is_one_pass_of_one_stack() -> None:
    """Pre-norm with a norm at the exit, no gate; x goes in once; every layer carries gradient."""
    core = resolved(arch="transformer", h_layers=6)
    assert (core.norm, core.exit_norm, core.attention_gate, core.norm_eps) == ("pre", True, False, 1e-6)
    assert (core.initial_z_h, core.inject_input) == ("zero", True)
    assert (core.h_layers, core.num_calls, core.grad_calls, core.halt_max_steps) == (6, 1, 1, 1)
    assert core.layer_names == [f"H.{number}" for number in range(6)]


def test_sizes_that_are_not_given_follow_the_architecture() -> None:
    sizes = ("h_layers", "l_layers", "h_cycles", "l_cycles", "halt_max_steps")
    found = {arch: NetworkConfig.model_validate({"arch": arch}) for arch in ("hrm", "hrm-text", "transformer")}
    assert [getattr(found["hrm-text"], name) for name in sizes] == [2, 2, 2, 2, 2]
    assert [getattr(found["hrm"], name) for name in sizes] == [2, 2, 2, 2, 2]
    assert [getattr(found["transformer"], name) for name in sizes] == [4, 0, 1, 0, 1]
    for network in found.values():
        assert NetworkConfig.model_validate_json(network.model_dump_json()) == network


@pytest.mark.parametrize(
    ("given_sizes", "named"),
    [
        ({"l_layers": 2}, "--l-layers 2"),
        ({"h_cycles": 2}, "--h-cycles 2"),
        ({"l_cycles": 1}, "--l-cycles 1"),
        ({"grad_calls": 2}, "--grad-calls 2"),
        ({"l_layers": 3, "h_cycles": 5}, "--l-layers 3, --h-cycles 5"),
    ],
    ids=str,
)
def test_a_transformer_refuses_what_it_has_no_use_for(given_sizes: dict[str, int], named: str) -> None:
    with pytest.raises(ValidationError, match=named):
        NetworkConfig.model_validate({"arch": "transformer", **given_sizes})


@pytest.mark.parametrize("arch", ["hrm", "hrm-text"])
@pytest.mark.parametrize("size", ["l_layers", "l_cycles"])
def test_two_levels_are_needed_where_there_are_two(arch: str, size: str) -> None:
    with pytest.raises(ValidationError, match=f"--{size.replace('_', '-')} 0: {arch} has a low-level module"):
        NetworkConfig.model_validate({"arch": arch, size: 0})


def test_a_wrong_setting_is_named_alone() -> None:
    """Not with those whose defaults follow it."""
    with pytest.raises(ConfigError) as refused:
        build_config(TextTrainConfig, preset="text-small", overrides={"arch": "rnn"})
    assert str(refused.value).startswith("--arch rnn: ")
    assert ";" not in str(refused.value)


@pytest.mark.parametrize("arch", ["hrm", "hrm-text", "transformer"])
@pytest.mark.parametrize("gate", [True, False])
def test_the_gate_can_be_chosen(arch: str, gate: bool) -> None:
    assert resolved(arch=arch, attention_gate=gate).attention_gate is gate


@pytest.mark.parametrize(
    ("cycles", "given_calls", "wanted"),
    [
        ((2, 2), "one_step", 2),
        ((2, 2), "full", 6),
        ((2, 2), 5, 5),
        ((1, 1), "one_step", 2),
        ((1, 1), "full", 2),
        ((3, 4), "full", 15),
        ((3, 4), 15, 15),
    ],
    ids=str,
)
def test_gradient_calls(cycles: tuple[int, int], given_calls: int | str, wanted: int) -> None:
    core = resolved(h_cycles=cycles[0], l_cycles=cycles[1], grad_calls=given_calls)
    assert core.grad_calls == wanted
    assert core.num_calls == cycles[0] * (cycles[1] + 1)


def test_sizes_are_passed_on() -> None:
    core = resolved(
        h_layers=3,
        l_layers=1,
        h_cycles=4,
        l_cycles=5,
        hidden_size=96,
        num_heads=6,
        window_size=7,
        halt_max_steps=9,
        pos_encodings="learned",
        expansion=4.0,
    )
    assert (core.h_layers, core.l_layers, core.h_cycles, core.l_cycles) == (3, 1, 4, 5)
    assert (core.hidden_size, core.num_heads, core.head_size, core.window_size) == (96, 6, 16, 7)
    assert (core.halt_max_steps, core.pos_encodings, core.vocab_size, core.max_seq_len) == (9, "learned", 300, 64)
    assert core.intermediate_size == 256
    assert core.causal


def test_the_embedding_is_brought_to_unit_variance() -> None:
    assert resolved(hidden_size=64).embedding_scale == 8
    network = NetworkConfig(hidden_size=64)
    assert resolve_core(network, vocab_size=9, max_seq_len=9, embedding_scale=50.0).embedding_scale == 50


@pytest.mark.parametrize(
    ("hidden_size", "expansion", "wanted"),
    [(512, 4.0, 1536), (512, 2.0, 768), (384, 4.0, 1024), (96, 4.0, 256), (8, 0.1, 256), (1536, 4.0, 4096)],
)
def test_inner_width_of_the_papers(hidden_size: int, expansion: float, wanted: int) -> None:
    assert inner_width(hidden_size, expansion) == wanted


@settings(max_examples=60, deadline=None)
@given(st.integers(8, 16384), st.floats(0.1, 16))
def test_inner_width_is_the_next_multiple_of_256(hidden_size: int, expansion: float) -> None:
    found, asked = inner_width(hidden_size, expansion), expansion * hidden_size * 2 / 3
    assert found % 256 == 0
    assert found >= asked - 0.5
    assert found - 256 < asked + 0.5


@pytest.mark.parametrize("arch", ["hrm", "hrm-text", "transformer"])
def test_what_is_written_rebuilds_the_same(arch: str) -> None:
    core = resolved(arch=arch, window_size=5, grad_calls="full")
    assert CoreConfig.model_validate_json(core.model_dump_json()) == core
    with pytest.raises(ValidationError):
        CoreConfig.model_validate({**core.model_dump(), "dropout": 0.1})
    with pytest.raises(ValidationError):
        CoreConfig.model_validate({k: v for k, v in core.model_dump().items() if k != "inject_input"})


def test_rope_needs_pairs_and_the_others_do_not() -> None:
    with pytest.raises(ValidationError, match="even head width"):
        NetworkConfig(hidden_size=24, num_heads=8)
    assert NetworkConfig(hidden_size=24, num_heads=8, pos_encodings="learned").num_heads == 8
