"""Every optimizer of pytorch_optimizer: refused for a reason, or it runs and goes on exactly from its saved state."""

from __future__ import annotations

import math

import pytest
import torch
from safetensors.torch import load, save
from torch import Tensor, nn

from hrm_engine.config.training import OptimConfig
from hrm_engine.errors import CheckpointError, ConfigError
from hrm_engine.optim import library
from hrm_engine.optim.registry import check_name, list_rules, make_updater
from hrm_engine.optim.state_tree import LIBRARY, as_tensor, from_tensor, rebuild
from hrm_engine.optim.updater import Updater
from hrm_engine.optim.weights import MasterWeights
from tests.optim.small_net import Backward, assert_equal, copies

RULES = list_rules()
USABLE = [rule.name for rule in RULES if not rule.refused]
AVERAGING = [name for name in USABLE if "averages" in next(rule.description for rule in RULES if rule.name == name)]


class Small(nn.Module):
    """A matrix, an embedding, a head, a vector, and a layer that no gradient reaches."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(5, 6)
        self.inner = nn.Linear(6, 4)
        self.head = nn.Linear(4, 1, bias=False)
        self.unused = nn.Linear(2, 2)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(torch.tanh(self.inner(self.embed(tokens))))


def made(name: str, **optim: object) -> tuple[Small, Updater]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Small()
    config = OptimConfig.model_validate({"optimizer": name, "lr": 1e-2, **optim})
    return model, make_updater(MasterWeights(model, torch.float32), config, loss_scaling=False)


def step(model: Small, updater: Updater, number: int, *, schedule_share: float = 1.0) -> None:
    def loss(backward: Backward) -> None:
        tokens = torch.tensor([number % 5, (number + 1) % 5, 3])
        backward(((model(tokens) - 0.3) ** 2).sum() * (1 + number))

    assert bool(updater.update(loss, schedule_share=schedule_share).stepped)


@pytest.mark.parametrize("name", USABLE)
def test_it_goes_on_bit_for_bit(name: str) -> None:
    model, straight = made(name)
    first = {key: p.detach().clone() for key, p in model.named_parameters()}
    for number in range(3):
        step(model, straight, number, schedule_share=(number + 1) / 3)
    weights = {key: t.detach().clone() for key, t in straight.weights.tensors().items()}
    state = load(save({key: t.detach().clone() for key, t in straight.state_tensors().items()}))
    torch.manual_seed(99)  # what is drawn elsewhere must not matter
    for number in range(3, 5):
        step(model, straight, number)
    torch.manual_seed(1)
    other, resumed = made(name)
    resumed.weights.load(weights)
    resumed.load_state_tensors(state)
    for number in range(3, 5):
        step(other, resumed, number)
    assert_equal(copies(resumed), copies(straight))
    assert all(p.isfinite().all() for p in model.parameters())
    assert torch.equal(model.unused.weight, first["unused.weight"])
    slow_starters = {"adashift", "radam", "schedulefreeradam", "dadaptsgd"}
    assert name in slow_starters or not torch.equal(model.inner.weight, first["inner.weight"])


@pytest.mark.parametrize("name", AVERAGING)
def test_rules_that_average_weights_show_the_average_and_take_it_back(name: str) -> None:
    model, updater = made(name)
    with updater.evaluating():
        pass  # there is no average yet
    for number in range(12):
        step(model, updater, number)
    before = copies(updater)
    with updater.evaluating():
        assert not torch.equal(model.inner.weight, before["inner.weight"])
        assert all(p.isfinite().all() for p in model.parameters())
        assert torch.equal(model.unused.weight, before["unused.weight"])
    assert_equal(copies(updater), before)
    with pytest.raises(ConfigError, match="--ema-decay 0"):
        made(name, ema_decay=0.9)


def test_the_averaging_rules_are_known() -> None:
    assert AVERAGING == ["schedulefreeadamw", "schedulefreeradam", "schedulefreesgd", "splus"]


def test_most_rules_can_be_used_and_the_refused_ones_say_why() -> None:
    assert len(USABLE) >= 105
    refused = {rule.name: rule.refused for rule in RULES if rule.refused}
    assert refused.keys() == library.REFUSED.keys()
    for name, reason in refused.items():
        with pytest.raises(ConfigError, match=f"--optimizer {name} cannot be used: {reason}"):
            check_name(name)


@pytest.mark.parametrize(
    ("name", "near"), [("adamW2", "adamw"), ("emoneco", "emonavi"), ("ranger25", "ranger"), ("zzzzzzzz", "lab optim")]
)
def test_unknown_names_list_near_ones(name: str, near: str) -> None:
    with pytest.raises(ConfigError, match=f"there is no such rule.*{near}"):
        check_name(name)


def test_what_a_rule_does_not_take_is_said() -> None:
    assert made("adamw")[1].messages == []
    assert made("adabelief")[1].messages == []
    assert made("fromage")[1].messages == [
        "--optimizer fromage takes no --beta1 and --beta2",
        "--optimizer fromage takes no --weight-decay",
    ]


def test_settings_reach_the_rule() -> None:
    _, updater = made("adabelief", beta1=0.7, beta2=0.8, weight_decay=0.3)
    assert [group["weight_decay"] for group in updater.groups] == [0.3, 0.0]
    assert all(group["betas"] == (0.7, 0.8) and group["weight_decouple"] for group in updater.groups)
    _, muon = made("normuon", adam_lr=1e-3)
    assert [(group["use_muon"], group["base_lr"]) for group in muon.groups] == [
        (True, 1e-2),
        (False, 1e-3),
        (False, 1e-3),
    ]


@pytest.mark.parametrize(
    ("name", "optim", "dtype", "reason"),
    [
        ("ftrl", {"lr_min_ratio": 0.0}, torch.float32, "learning rate of zero"),
        ("adai", {}, torch.bfloat16, "what is not finite"),
    ],
)
def test_what_fails_on_such_weights_is_refused_before_training(
    name: str, optim: dict, dtype: torch.dtype, reason: str
) -> None:
    config = OptimConfig.model_validate({"optimizer": name, "lr": 1e-3, **optim})
    with pytest.raises(ConfigError, match=f"--optimizer {name} cannot be used.*{reason}"):
        make_updater(MasterWeights(Small().to(dtype), dtype), config, loss_scaling=False)


def test_a_library_that_forgets_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "put_together", lambda *state: None)
    with pytest.raises(ConfigError, match="does not go on exactly"):
        made("adabelief")


def test_a_step_that_is_not_finite_changes_nothing() -> None:
    model, updater = made("adabelief")
    step(model, updater, 0)
    before = copies(updater)
    result = updater.update(lambda backward: backward(model.inner.bias.sum() * math.nan), schedule_share=1.0)
    assert not bool(result.stepped)
    assert_equal(copies(updater), before)


def test_state_of_another_rule_or_model_is_refused() -> None:
    model, updater = made("adabelief")
    step(model, updater, 0)
    state = updater.state_tensors()
    with pytest.raises(CheckpointError, match="not one of --optimizer lion"):
        made("lion")[1].load_state_tensors(made("adamw")[1].state_tensors())
    lacking = {name: t for name, t in state.items() if name != "inner.weight.exp_avg"}
    with pytest.raises(CheckpointError, match=r"no tensor 'inner\.weight\.exp_avg'"):
        made("adabelief")[1].load_state_tensors(lacking)
    with pytest.raises(CheckpointError, match="damaged"):
        made("adabelief")[1].load_state_tensors({**state, "library": torch.zeros(3, dtype=torch.uint8)})


@pytest.mark.parametrize("path", ["os:system", "subprocess:Popen", f"{LIBRARY}optimizer:no_such", "builtins:list"])
def test_no_class_but_the_librarys_is_made_from_a_checkpoint(path: str) -> None:
    tree = from_tensor(as_tensor({"object": path, "fields": {"dict": []}}))
    with pytest.raises(CheckpointError, match="no class of pytorch_optimizer"):
        rebuild(tree, {}, torch.device("cpu"))
