"""Configurations: built from presets, files and flags; every problem named by its flag."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from pydantic_core import PydanticUndefined

from hrm_engine.config import (
    ExpertTrainConfig,
    NetworkConfig,
    PuzzleTrainConfig,
    TextTrainConfig,
    build_config,
    flat,
    leaves,
    load_preset,
)
from hrm_engine.config.base import PRESETS, Alias, Config, given_leaves, presets_of
from hrm_engine.config.text import load_config
from hrm_engine.errors import ConfigError

PRESET_NAMES = sorted(path.stem for path in PRESETS.glob("*.yaml"))
LEAVES = leaves(TextTrainConfig)


def built(preset: Any = None, **overrides: Any) -> TextTrainConfig:
    return build_config(TextTrainConfig, preset=preset, overrides={"dataset_file": "x.txt", **overrides})


def test_there_are_presets() -> None:
    assert "text-small" in PRESET_NAMES


@pytest.mark.parametrize("name", PRESET_NAMES)
def test_every_preset_parses(name: str) -> None:
    config = build_config(PuzzleTrainConfig if name in presets_of(PuzzleTrainConfig) else TextTrainConfig, preset=name)
    content = load_preset(name)
    assert content.pop("kind") == config.kind
    for group, values in content.items():
        for leaf, value in values.items():
            assert flat(config)[leaf] == value, f"{group}.{leaf}"
    again = build_config(type(config), preset=name, overrides={"steps": 7})
    assert again.run.steps == 7
    assert again.network == config.network


def test_every_preset_is_for_one_training() -> None:
    assert sorted([*presets_of(TextTrainConfig), *presets_of(PuzzleTrainConfig)]) == sorted(PRESET_NAMES)
    assert load_config("text-small", steps=7).run.steps == 7


def test_leaf_names_are_unique_and_complete() -> None:
    """As many leaves as fields in the groups; each is a flag and says what it does."""
    fields = [name for group in TextTrainConfig.model_fields.values() for name in group.annotation.model_fields]
    assert sorted(LEAVES) == sorted(fields)
    assert len({leaf.flag for leaf in LEAVES.values()}) == len(fields)
    for name, leaf in LEAVES.items():
        assert leaf.description, name
        assert leaf.flag == "--" + name.replace("_", "-")
    assert [name for name, leaf in LEAVES.items() if leaf.default is PydanticUndefined] == ["dataset_file"]


def test_a_name_declared_twice_is_a_mistake() -> None:
    class One(Config):
        steps: int = 1

    class Both(Config):
        first: One = One()
        steps: int = 2

    with pytest.raises(ValueError, match="'steps' twice"):
        leaves(Both)


def test_what_may_change_on_resume() -> None:
    """The list in the contracts."""
    assert {name for name, leaf in LEAVES.items() if leaf.may_change_on_resume} == {
        "steps",
        "save_every",
        "keep_last",
        "eval_every",
        "log_file",
        "stop_file",
        "max_minutes",
        "dataset_file",
        "eval_file",
        "samples",
        "allow_other_base",
    }


@pytest.mark.parametrize(
    ("given_name", "near"),
    [
        ("batch_sise", "batch_size"),
        ("h_layer", "h_layers"),
        ("learning_rte_min_ratio", "lr_min_ratio"),
        ("step", "steps"),
    ],
)
def test_an_unknown_flag_names_its_neighbour(given_name: str, near: str) -> None:
    with pytest.raises(ConfigError, match=f"unknown setting '{given_name}'.*{near}"):
        built(**{given_name: 1})


def test_a_name_far_from_all_others_gets_no_advice() -> None:
    with pytest.raises(ConfigError) as caught:
        built(zzzzqqqq=1)
    assert "Did you mean" not in str(caught.value)


@pytest.mark.parametrize("content", [{"network": {"hidden_sise": 3}}, {"netwrok": {}}, {"stepz": 3}], ids=str)
def test_an_unknown_key_in_a_file_is_refused(content: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"hidden_sise|netwrok|stepz"):
        built(content)


@pytest.mark.parametrize(
    ("overrides", "flags"),
    [
        ({"lr": -1}, ["--lr"]),
        ({"lr": math.nan}, ["--lr"]),
        ({"lr": math.inf}, ["--lr"]),
        ({"lr": "fast"}, ["--lr"]),
        ({"steps": 0}, ["--steps"]),
        ({"steps": 1.5}, ["--steps"]),
        ({"seed": -1}, ["--seed"]),
        ({"seed": 2**64}, ["--seed"]),
        ({"batch_size": None}, ["--batch-size"]),
        ({"arch": "hrmm"}, ["--arch"]),
        ({"device": "tpu"}, ["--device"]),
        ({"device": "cuda:x"}, ["--device"]),
        ({"grad_calls": 0}, ["--grad-calls"]),
        ({"grad_calls": 7}, ["--grad-calls"]),
        ({"grad_calls": "some"}, ["--grad-calls"]),
        ({"hidden_size": 100}, ["--hidden-size", "--num-heads"]),
        ({"hidden_size": 24, "num_heads": 8}, ["--num-heads"]),
        ({"window_size": 0}, ["--window-size"]),
        ({"max_minutes": 0}, ["--max-minutes"]),
        ({"lr_min_ratio": 1.5}, ["--lr-min-ratio"]),
        ({"model_dtype": "fp16", "amp": False}, ["--model-dtype", "--amp"]),
        ({"model_dtype": "fp16", "use_8bit_optimizer": True}, ["--use-8bit-optimizer", "--model-dtype"]),
        ({"ema_start_step": 5}, ["--ema-start-step 5", "--ema-decay"]),
        ({"lr": -1, "steps": 0, "arch": "x"}, ["--lr", "--steps", "--arch"]),
    ],
    ids=str,
)
def test_bad_values_name_their_flags(overrides: dict[str, Any], flags: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        built(**overrides)
    for flag in flags:
        assert flag in str(caught.value)


def test_what_is_required_is_named() -> None:
    with pytest.raises(ConfigError, match="--dataset-file"):
        build_config(TextTrainConfig)


def test_the_advice_about_heads_is_good_advice() -> None:
    with pytest.raises(ConfigError, match=r"--num-heads (\d+)$") as caught:
        built(hidden_size=100)
    built(hidden_size=100, num_heads=int(str(caught.value).rsplit(" ", 1)[1]))


@pytest.mark.parametrize("group", [None, 3, "text", [1, 2]], ids=str)
@pytest.mark.parametrize("overrides", [{}, {"h_layers": 1}], ids=str)
def test_a_group_that_is_no_group_is_refused(group: Any, overrides: dict[str, Any]) -> None:
    """Also where a flag is to be put into it."""
    with pytest.raises(ConfigError, match="network"):
        built({"network": group}, **overrides)


def test_flags_go_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("run: {steps: 5, seed: 3}\nnetwork: {arch: hrm}\n", encoding="utf8")
    config = built(file, steps=9)
    assert (config.run.steps, config.run.seed, config.network.arch) == (9, 3, "hrm")


def test_the_callers_mapping_is_left_alone() -> None:
    preset = {"run": {"steps": 5}}
    built(preset, steps=9)
    assert preset == {"run": {"steps": 5}}


@pytest.mark.parametrize(
    "content",
    [
        "!!python/object/apply:os.system ['true']",
        "run: !!python/object/new:subprocess.Popen [['true']]",
        "network: !custom {}",
        "{unfinished: [",
        "\tindented: by tab",
        "- a\n- list",
        "just text",
        "",
    ],
    ids=repr,
)
def test_files_that_are_no_plain_mapping_are_refused(tmp_path: Path, content: str) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text(content, encoding="utf8")
    with pytest.raises(ConfigError, match=r"bad\.yaml"):
        load_preset(file)


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "bad.yaml"
    file.write_bytes(b"run: {steps: 5} # \xff\xfe")
    with pytest.raises(ConfigError, match=r"bad\.yaml"):
        load_preset(file)


def test_an_unknown_preset_names_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="text-small"):
        load_preset("text-smal")


def test_configurations_are_frozen() -> None:
    config = built()
    with pytest.raises(ValidationError):
        config.run = None
    with pytest.raises(ValidationError):
        config.run.steps = 3


VALUES: dict[str, st.SearchStrategy[Any]] = {
    "arch": st.sampled_from(["hrm", "hrm-text"]),
    "h_layers": st.integers(1, 64),
    "lr": st.floats(1e-9, 10, allow_nan=False),
    "grad_calls": st.sampled_from(["one_step", "full", 1, 2, 4]),
    "window_size": st.none() | st.integers(1, 4096),
    "attention_gate": st.none() | st.booleans(),
    "warmup_steps": st.none() | st.integers(0, 1000),
    "dataset_file": st.sampled_from(["a.txt", "folder/b.jsonl", "c d.csv"]),
    "eval_file": st.none() | st.just("held out.txt"),
    "seed": st.integers(0, 2**63 - 1),
    "device": st.sampled_from(["auto", "cpu", "cuda", "cuda:3", "mps"]),
    "max_minutes": st.none() | st.floats(0.001, 1e6),
    "compile": st.none() | st.booleans(),
}


@settings(max_examples=60, deadline=None)
@given(st.fixed_dictionaries({}, optional=VALUES))
def test_flat_values_build_the_same_configuration(overrides: dict[str, Any]) -> None:
    config = built(**overrides)
    again = build_config(TextTrainConfig, overrides=flat(config))
    assert again == config
    assert flat(again) == flat(config)
    for name, value in overrides.items():
        assert flat(config)[name] == value
    assert TextTrainConfig.model_validate_json(config.model_dump_json()) == config


@settings(max_examples=60, deadline=None)
@given(
    steps=st.integers(1, 100_000),
    warmup=st.none() | st.integers(0, 500),
    every=st.none() | st.integers(1, 500),
)
def test_resolved_writes_the_defaults_out(steps: int, warmup: int | None, every: int | None) -> None:
    config = built(steps=steps, warmup_steps=warmup, eval_every=every, save_every=every)
    resolved = config.resolved()
    assert resolved.optim.warmup_steps == (min(200, math.floor(steps * 0.05 + 1e-9)) if warmup is None else warmup)
    for found in (resolved.evaluation.eval_every, resolved.run.save_every):
        if every is not None:
            assert found == every
        else:
            assert found >= 1
            assert abs(found - steps / 10) <= max(0.5, 1 - steps / 10)
    assert resolved.resolved() == resolved
    same = {"warmup_steps", "eval_every", "save_every"}
    assert {k: v for k, v in flat(config).items() if k not in same} == {
        k: v for k, v in flat(resolved).items() if k not in same
    }


def test_network_defaults_are_valid_for_every_architecture() -> None:
    for arch in ("hrm", "hrm-text", "transformer"):
        assert NetworkConfig.model_validate({"arch": arch}).arch == arch


def test_configuration_needs_no_torch() -> None:
    code = "import sys, hrm_engine.config; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_flat_names_of_flags_work_in_a_file(tmp_path: Path) -> None:
    """Groups, leaves by name, and leaves as the command line writes them, side by side."""
    file = tmp_path / "flat.yaml"
    file.write_text("batch-size: 3\nsteps: 7\n--hidden-size: 64\nnetwork: {h-layers: 1}\ndata: {dataset_file: t.txt}\n")
    config = build_config(TextTrainConfig, preset=file, overrides={"steps": 9})
    assert (config.run.batch_size, config.run.steps, config.network.hidden_size) == (3, 9, 64)
    assert (config.network.h_layers, config.data.dataset_file) == (1, Path("t.txt"))
    assert given_leaves(TextTrainConfig, load_preset(file)) == {
        "batch_size": 3,
        "steps": 7,
        "hidden_size": 64,
        "h_layers": 1,
        "dataset_file": "t.txt",
    }
    with pytest.raises(ConfigError, match="--steps"):
        built({"steps": 0})


def test_a_name_that_is_an_alias_elsewhere_is_a_mistake() -> None:
    class Both(Config):
        num_rows: Annotated[int, Alias("rows")] = 1
        rows: int = 2

    with pytest.raises(ValueError, match="'rows' twice"):
        leaves(Both)


@pytest.mark.parametrize(
    ("model", "overrides", "told"),
    [
        (PuzzleTrainConfig, {"num_experts": 4}, "--num-experts goes with --use-moe"),
        (TextTrainConfig, {"use_moe": False, "balance": "bias"}, "--balance goes with --use-moe"),
        (TextTrainConfig, {"balance_rate": 0.1}, "--balance-rate goes with --balance bias"),
        (TextTrainConfig, {"balance": "none", "load_balance_coef": 0.5}, "goes with --balance loss"),
        (PuzzleTrainConfig, {"lr_min_ratio": 0.2}, "--lr-min-ratio cannot be used with --lr-scheduler constant"),
        (
            PuzzleTrainConfig,
            {"puzzle_lr": 0.1, "puzzle_tokens": 0},
            "--puzzle-lr cannot be used with --puzzle-tokens 0",
        ),
        (ExpertTrainConfig, {"expert_id": "poems", "compile": True}, "--compile cannot be used with --expert-id"),
        (TextTrainConfig, {"goal_bias_strength": 2.0}, "--goal-bias-strength goes with --goal"),
        (
            PuzzleTrainConfig,
            {"num_experts": 4, "router_noise": 0.1, "lr_min_ratio": 0.2},
            "--num-experts and --router-noise goes with --use-moe; --lr-min-ratio cannot be used",
        ),
    ],
    ids=str,
)
def test_a_setting_that_would_do_nothing_is_refused(model: type[Config], overrides: dict[str, Any], told: str) -> None:
    source = {"data_path": "d"} if model is PuzzleTrainConfig else {"dataset_file": "t.txt"}
    with pytest.raises(ConfigError) as caught:
        build_config(model, overrides={**source, **overrides})
    assert told in str(caught.value)


def test_a_need_that_is_met_or_waived() -> None:
    """A preset says what holds where it applies; of a bundle to start from nobody knows the experts yet."""
    puzzles = {"preset": {"moe": {"num_experts": 4}}, "overrides": {"data_path": "d"}}
    assert build_config(PuzzleTrainConfig, **puzzles).moe.num_experts == 4
    dense = {"use_moe": False, "router_noise": 0.1}
    assert built(**dense, student_init="x").moe.router_noise == 0.1
    assert built(lr_min_ratio=0.2, balance="bias", balance_rate=0.1).moe.balance_rate == 0.1


def test_the_evaluation_file_of_a_preset_is_for_its_own_text() -> None:
    def built(**given: Any) -> tuple[str, str | None]:
        config = build_config(TextTrainConfig, preset="text-small", overrides=given)
        return str(config.data.dataset_file), config.evaluation.eval_file and str(config.evaluation.eval_file)

    corpus = "training_data/curated_datasets/python_docs"
    assert built() == (f"{corpus}/train.jsonl", f"{corpus}/validation.jsonl")
    assert built(batch_size=2)[1] == f"{corpus}/validation.jsonl"
    assert built(dataset_file="mine.txt") == ("mine.txt", None)
    assert built(dataset_file="mine.txt", eval_file="other.txt") == ("mine.txt", "other.txt")


def test_steps_of_a_flag_take_the_place_of_the_epochs_of_a_preset() -> None:
    def length(**overrides: Any) -> tuple[int, float | None]:
        run = build_config(PuzzleTrainConfig, preset="arc-full", overrides=overrides, typed=True).run
        return run.steps, run.epochs

    assert length() == (2000, 20000)
    assert length(steps=5) == (5, None)
    assert length(steps=2000) == (2000, None)
    assert length(epochs=3) == (2000, 3)
    with pytest.raises(ConfigError, match="--steps cannot be used with --epochs: leave out one or the other"):
        length(steps=5, epochs=3)
