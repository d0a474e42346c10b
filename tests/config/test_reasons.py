"""What is wrong with a value is said in plain words, whatever setting or field it is for."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import BaseModel, ValidationError

import hrm_engine
from hrm_engine.config import Config, build_config, leaves
from hrm_engine.config.puzzle import PuzzleTrainConfig
from hrm_engine.config.reasons import field_problems
from hrm_engine.config.text import TextTrainConfig
from hrm_engine.errors import ConfigError, HRMError

BAD = ["abc", "1.5x", "\ud800", "", -(10**30), 10**30, 1e99, float("nan"), 1.5, True, b"x", Path("x"), object]
BAD += [[], ["a", "b"], [0.5, 0.5, 0.5], {"a": 1}, {}, None]
FOREIGN = ("Input should", " a valid", "Value error", "unable to parse", "Field required", "Extra inputs", "validation",
           "instance of", "given: ", "{ge}", "^")  # fmt: skip


def models(base: type[BaseModel] = BaseModel) -> Iterator[type[BaseModel]]:
    """All models of the engine that are no bases of others, those of configurations and of files."""
    for model in base.__subclasses__():
        if model.__subclasses__():
            yield from models(model)
        elif model.__module__.startswith("hrm_engine."):
            yield model


for package in ("config", "store", "data"):
    for module in pkgutil.walk_packages([str(Path(hrm_engine.__path__[0]) / package)], f"hrm_engine.{package}."):
        importlib.import_module(module.name)


@pytest.mark.parametrize("model", dict.fromkeys(models()), ids=lambda model: model.__name__)
def test_no_field_is_refused_in_the_words_of_a_library(model: type[BaseModel]) -> None:
    names = leaves(model) if issubclass(model, Config) else model.model_fields
    texts = []
    for name in [*names, "colour"]:
        for value in BAD:
            try:
                if issubclass(model, Config):
                    build_config(model, preset={name: value})
                else:
                    model.model_validate({name: value})
            except HRMError as error:
                texts.append(str(error))
            except ValidationError as error:
                texts.append(field_problems(error))
    assert texts
    foreign = [text for text in texts if any(words in text for words in FOREIGN)]
    assert not foreign, foreign


@pytest.mark.parametrize(
    ("model", "given", "text"),
    [
        (TextTrainConfig, {}, "Give --dataset-file FILE or --config text-small"),
        (
            TextTrainConfig,
            {"steps": 0},
            "--steps 0: must be at least 1; Give --dataset-file FILE or --config text-small",
        ),
        (TextTrainConfig, {"lr": "abc"}, "--lr abc: a number is needed; Give "),
        (TextTrainConfig, {"lr": "a\tb"}, r"--lr 'a\tb': a number is needed; Give "),
        (TextTrainConfig, {"arch": "trm"}, "--arch trm: use hrm-text, hrm or transformer; Give "),
        (TextTrainConfig, {"device": "tpu"}, "--device tpu: use auto, cpu, cuda, cuda:N, mps or xpu; Give "),
        (TextTrainConfig, {"goal": "all"}, "--goal all: use numbers of goals with commas, or active; Give "),
        (TextTrainConfig, {"lr": 0}, "--lr 0: must be above 0; Give "),
        (PuzzleTrainConfig, {}, "Give --data-path FOLDER, or a preset by --config: arc-1, arc-2, "),
    ],
)
def test_a_message_has_the_flag_the_value_and_the_cure(
    model: type[Config], given: dict[str, object], text: str
) -> None:
    with pytest.raises(ConfigError) as refusal:
        build_config(model, overrides=given)
    assert str(refusal.value).startswith(text)
