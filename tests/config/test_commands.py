"""Settings of commands that are no trainings: keywords of functions and fields of forms follow from them."""

from __future__ import annotations

import inspect

import pytest

from hrm_engine.config import Config, TextTrainConfig, build_config, leaves
from hrm_engine.config.datasets import MazeConfig, SudokuConfig
from hrm_engine.config.exchange import ExportConfig
from hrm_engine.config.forms import form_field
from hrm_engine.config.keywords import takes
from hrm_engine.config.solving import EffortConfig
from hrm_engine.config.training import Beginning, TrialConfig
from hrm_engine.config.writing import GenerateConfig, WritingConfig
from hrm_engine.errors import ConfigError


@takes(WritingConfig)
def settled(first: int, *, other: str = "o", settings: WritingConfig) -> tuple[int, str, WritingConfig]:
    """A function with settings."""
    return first, other, settings


def test_leaves_are_keywords() -> None:
    assert settled(1) == (1, "o", WritingConfig())
    first, other, settings = settled(2, other="x", top_k=3, stop="END", max_new_tokens=5)
    assert (first, other, settings.max_new_tokens) == (2, "x", 5)
    assert (settings.sampling.top_k, settings.sampling.stop) == (3, ("END",))
    assert settled(1, settings=settings)[2] is settings
    changed = settled(1, settings=settings, top_k=9)[2]
    assert (changed.sampling.top_k, changed.max_new_tokens) == (9, 5)


def test_wrong_keywords_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"--top-p 2: must be at most 1"):
        settled(1, top_p=2)
    with pytest.raises(TypeError, match="tempreature"):
        settled(1, tempreature=1.0)


def test_the_signature_lists_the_leaves() -> None:
    parameters = inspect.signature(settled).parameters
    assert list(parameters) == ["first", "other", *leaves(WritingConfig)]
    assert parameters["temperature"].default == 0.8
    assert settled.__doc__ == "A function with settings."


@pytest.mark.parametrize(
    ("model", "name", "low", "high", "is_slider"),
    [
        (WritingConfig, "temperature", 0, 2, True),
        (WritingConfig, "segments", 1, 64, True),
        (WritingConfig, "top_k", 0, None, False),
        (WritingConfig, "max_new_tokens", 1, None, False),
        (EffortConfig, "starts", 1, 64, True),
    ],
)
def test_ends_of_a_form_follow_from_the_declaration(
    model: type[Config], name: str, low: float, high: float | None, is_slider: bool
) -> None:
    field = form_field(model, name)
    assert (field.low, field.high, field.is_slider) == (low, high, is_slider)
    assert field.value == leaves(model)[name].default
    assert field.help


def test_a_form_may_be_narrower_than_the_declaration() -> None:
    field = form_field(WritingConfig, "max_new_tokens", high=31, label="Tokens at most")
    assert (field.value, field.high, field.label) == (31, 31, "Tokens at most")


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({}, "either --prompt TEXT"),
        ({"prompt": "", "out": "o"}, "--out goes with --prompt-file"),
        ({"prompt_file": "p", "stream": False}, "--stream goes with --prompt"),
        ({"prompt_file": "p", "overwrite": True, "resume": True}, "--resume and --overwrite exclude each other"),
    ],
)
def test_what_generate_refuses(given: dict[str, object], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        build_config(GenerateConfig, overrides={"bundle": "b", **given})


def test_an_empty_prompt_is_a_prompt() -> None:
    settings = build_config(GenerateConfig, overrides={"bundle": "b", "prompt": "", "stream": True})
    assert settings.prompt == ""


@pytest.mark.parametrize(
    ("model", "given", "told"),
    [
        (Beginning, {"allow_changed_data": True}, "--allow-changed-data goes with --resume"),
        (Beginning, {"extend_schedule": True}, "--extend-schedule is for --resume"),
        (Beginning, {"resume": True, "from_checkpoint": "x"}, "--resume and --from-checkpoint exclude each other"),
        (TrialConfig, {"measure": False, "limit_s": 3}, "--limit-s goes with --measure"),
        (MazeConfig, {"output_dir": "m", "csv": ["a"], "loops": 0.1}, "--loops cannot be used with --csv"),
        (SudokuConfig, {"output_dir": "s", "hard_proxy": True, "seed": 1}, "--seed cannot be used with --hard-proxy"),
        (ExportConfig, {"format": "trm", "segments": 2}, "--segments goes with --format hf"),
    ],
)
def test_what_other_commands_refuse(model: type[Config], given: dict[str, object], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        build_config(model, overrides=given)


def test_a_seed_of_the_hard_proxy_draws_its_variants() -> None:
    given = {"output_dir": "s", "hard_proxy": True, "num_aug": 2, "seed": 1}
    assert build_config(SudokuConfig, overrides=given).seed == 1


def test_who_typed_a_default_is_told_as_well() -> None:
    """A program hands over what it has; on the command line a flag was typed."""
    dense = {"use_moe": False, "num_experts": 8, "dataset_file": "t.txt"}
    assert build_config(TextTrainConfig, overrides=dense).moe.num_experts == 8
    with pytest.raises(ConfigError, match="--num-experts goes with --use-moe"):
        build_config(TextTrainConfig, overrides=dense, typed=True)
