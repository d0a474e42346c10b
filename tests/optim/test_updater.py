"""Updates: against torch's AdamW and against the rule by hand; skipped as a whole; restored exactly."""

from __future__ import annotations

import logging
import sys

import pytest
import torch
from torch import Tensor

from hrm_engine.errors import CheckpointError, MissingExtraError
from hrm_engine.optim.updater import Updater
from hrm_engine.optim.weights import MasterWeights
from tests.models.tiny import tiny_core
from tests.optim.small_net import Backward, Net, assert_equal, copies, net, objective, one_pass, updater_of


@pytest.mark.parametrize("grad_clip", [0.0, 0.5, 1e9])
def test_adamw_is_torchs_with_clipping(grad_clip: float) -> None:
    ours, theirs = net(), net()
    updater = updater_of(ours, grad_clip=grad_clip, weight_decay=0.3)
    matrices = [theirs.inner.weight, theirs.unused.weight]
    rest = [p for p in theirs.parameters() if all(p is not m for m in matrices)]
    library = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": 0.3}, {"params": rest, "weight_decay": 0.0}],
        betas=(0.9, 0.95),
        eps=1e-8,
        foreach=False,
    )
    for number in range(5):
        lr = 1e-2 / (number + 1)
        result = updater.update(one_pass(ours, number), schedule_share=lr)
        library.zero_grad()
        objective(theirs, number).backward()
        with_gradient = [p.grad for p in theirs.parameters() if p.grad is not None]
        norm = torch.sqrt(sum((g.double() ** 2).sum() for g in with_gradient))
        assert result.grad_norm.item() == pytest.approx(norm.item(), rel=1e-5)
        assert bool(result.stepped)
        if grad_clip and norm > grad_clip:
            for gradient in with_gradient:
                gradient.mul_(grad_clip / norm)
        for group in library.param_groups:
            group["lr"] = lr
        library.step()
        for (name, a), b in zip(ours.named_parameters(), theirs.parameters(), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6, msg=lambda t, n=name: f"{n}: {t}")
    assert not torch.equal(ours.inner.weight, net().inner.weight)
    assert torch.equal(ours.unused.weight, net().unused.weight)  # without a gradient nothing moves, decay included


def test_clipping_bounds_the_update_of_a_plain_gradient() -> None:
    """The moments see the clipped gradient: after one step the first moment is 0.1 of it, with norm 0.1 * clip."""
    model = net()
    updater = updater_of(model, grad_clip=0.25)
    result = updater.update(one_pass(model, 3), schedule_share=1e-3)
    assert result.grad_norm > 0.25
    moments = [t for name, t in updater.state_tensors().items() if name.endswith("exp_avg")]
    assert torch.sqrt(sum((m**2).sum() for m in moments)).item() == pytest.approx(0.025, rel=1e-5)


def test_decay_is_for_matrices_alone() -> None:
    for core in (tiny_core("hrm", pos_encodings="learned"), tiny_core("hrm-text")):
        updater = updater_of(core.float(), weight_decay=0.7)
        names = {id(parameter): name for name, parameter in core.named_parameters()}
        decay = {names[id(p)]: group["weight_decay"] for group in updater.groups for p in group["params"]}
        assert decay.keys() == dict(core.named_parameters()).keys()
        for name, value in decay.items():
            free = name.startswith(("embed_tokens", "embed_positions")) or name.endswith("bias")
            assert value == (0.0 if free else 0.7), name


def test_decay_shrinks_by_lr_times_decay() -> None:
    """A gradient of zero leaves only the decay: w * (1 - lr * decay), and embeddings stay."""
    model = net()
    updater = updater_of(model, weight_decay=0.5)
    first = {name: p.detach().clone() for name, p in model.named_parameters()}
    updater.update(lambda backward: backward(objective(model, 0) * 0.0), schedule_share=0.1)
    torch.testing.assert_close(model.inner.weight.detach(), first["inner.weight"] * 0.95)
    assert torch.equal(model.inner.bias, first["inner.bias"])
    assert torch.equal(model.embed_tokens.weight, first["embed_tokens.weight"])


@pytest.mark.parametrize("eight_bit", [False, True])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_step_that_is_not_finite_changes_nothing(bad: float, eight_bit: bool) -> None:
    model = net()
    updater = updater_of(model, use_8bit_optimizer=eight_bit)
    for number in range(2):
        updater.update(one_pass(model, number), schedule_share=1e-2)
    before = copies(updater)
    assert float(before["inner.weight.step"]) == 2

    def poisoned(backward: Backward) -> None:
        backward(objective(model, 2))
        backward(model.inner.bias[0] * bad)  # one number of one gradient

    result = updater.update(poisoned, schedule_share=1e-2)
    assert not bool(result.stepped)
    assert not result.grad_norm.isfinite()
    assert_equal(copies(updater), before)
    result = updater.update(one_pass(model, 2), schedule_share=1e-2)
    assert bool(result.stepped)
    assert float(updater.state_tensors()["inner.weight.step"]) == 3
    assert all(t.isfinite().all() for t in updater.weights.tensors().values())

    skipped, straight = copies(updater), net()
    other = updater_of(straight, use_8bit_optimizer=eight_bit)
    for number in range(3):
        other.update(one_pass(straight, number), schedule_share=1e-2)
    assert_equal(skipped, copies(other))  # as if the bad step had never been


def test_bf16_computes_and_fp32_is_updated() -> None:
    """Two backward passes in bf16, summed in fp32; AdamW by hand on fp32; the model gets a rounded copy."""
    model = net(torch.bfloat16)
    plain = net(torch.bfloat16)
    updater = updater_of(model, grad_clip=0.0, weight_decay=0.1)
    wanted = {name: p.detach().float() for name, p in plain.named_parameters()}
    mean = {name: torch.zeros_like(w) for name, w in wanted.items()}
    square = {name: torch.zeros_like(w) for name, w in wanted.items()}
    for step in range(1, 6):

        def two_passes(backward: Backward, step: int = step) -> None:
            backward(objective(model, step))
            backward(objective(model, step + 1))

        updater.update(two_passes, schedule_share=1e-4)
        totals: dict[str, Tensor] = {}
        for number in (step, step + 1):
            plain.zero_grad(set_to_none=True)
            objective(plain, number).backward()
            for name, parameter in plain.named_parameters():
                if parameter.grad is not None:
                    totals[name] = totals.get(name, torch.zeros(())) + parameter.grad.float()
        for name, gradient in totals.items():
            decay = 0.1 if name == "inner.weight" else 0.0
            mean[name] = 0.9 * mean[name] + 0.1 * gradient
            square[name] = 0.95 * square[name] + 0.05 * gradient**2
            size = mean[name] / (1 - 0.9**step) / (torch.sqrt(square[name] / (1 - 0.95**step)) + 1e-8)
            wanted[name] = wanted[name] * (1 - 1e-4 * decay) - 1e-4 * size
        with torch.no_grad():
            for name, parameter in plain.named_parameters():
                parameter.copy_(wanted[name])
        for name, master in updater.weights.parameters.items():
            assert master.dtype is torch.float32
            torch.testing.assert_close(master.detach(), wanted[name], rtol=0, atol=1e-6)
            torch.testing.assert_close(model.get_parameter(name), master.bfloat16(), rtol=0, atol=0)
    moved = (updater.weights.parameters["inner.weight"].detach() - net(torch.bfloat16).inner.weight.float()).abs()
    # what a bf16 weight alone would have lost: many updates are smaller than half its spacing
    assert (moved > 0).all()
    assert (model.inner.weight == net(torch.bfloat16).inner.weight).float().mean() > 0.1


def test_a_model_in_the_masters_type_has_no_copies() -> None:
    model = net()
    weights = MasterWeights(model, torch.float32)
    assert all(weights.parameters[name] is parameter for name, parameter in model.named_parameters())


def test_masters_take_values_without_rounding() -> None:
    model = net(torch.bfloat16)
    masters = MasterWeights(model, torch.float32)
    exact = {name: torch.full_like(t, 1 / 3) for name, t in net().state_dict().items()}
    masters.load(exact)
    assert_equal({name: t.clone() for name, t in masters.tensors().items()}, exact)
    assert torch.equal(model.inner.weight, exact["inner.weight"].bfloat16())


@pytest.mark.parametrize(
    ("dtype", "optim", "loss_scaling"),
    [
        (torch.float32, {}, False),
        (torch.bfloat16, {}, False),
        (torch.float16, {}, True),
        (torch.float32, {"use_8bit_optimizer": True}, False),
        (torch.bfloat16, {"use_8bit_optimizer": True}, False),
    ],
    ids=str,
)
def test_restored_state_goes_on_bit_for_bit(dtype: torch.dtype, optim: dict, loss_scaling: bool) -> None:
    def make() -> tuple[Net, Updater]:
        model = net(dtype)
        updater = updater_of(model, loss_scaling=loss_scaling, **optim)
        updater.loss_scale.clamp_(max=256.0)
        return model, updater

    model, straight = make()
    for number in range(3):
        straight.update(one_pass(model, number), schedule_share=1e-2)
    weights = {name: t.detach().clone() for name, t in straight.weights.tensors().items()}
    state = {name: t.clone() for name, t in straight.state_tensors().items()}
    assert all(isinstance(t, Tensor) for t in state.values())
    for number in range(3, 6):
        assert bool(straight.update(one_pass(model, number), schedule_share=1e-2).stepped)

    other, resumed = make()
    resumed.weights.load(weights)
    resumed.load_state_tensors(state)
    assert_equal(copies(resumed), weights | state)
    for key, value in straight.optimizers[0].state[straight.weights.parameters["inner.weight"]].items():
        restored = resumed.optimizers[0].state[resumed.weights.parameters["inner.weight"]][key]
        assert type(restored) is type(value), key
    for number in range(3, 6):
        resumed.update(one_pass(other, number), schedule_share=1e-2)
    assert_equal(copies(resumed), copies(straight))
    assert not torch.equal(weights["inner.weight"], resumed.weights.parameters["inner.weight"])


def test_8_bits_really_are_8_bits() -> None:
    model = net()
    updater = updater_of(model, use_8bit_optimizer=True)
    first = objective(model, 0).item()
    for _ in range(20):
        updater.update(one_pass(model, 0), schedule_share=1e-2)
    assert updater.state_tensors()["inner.weight.state1"].dtype is torch.uint8
    # the library warns, when it is imported, of a kernel that nothing here uses
    assert not logging.getLogger("bitsandbytes.backends.cpu.ops").isEnabledFor(logging.WARNING)
    assert objective(model, 0).item() < first / 2


def test_8_bits_stay_near_the_full_rule() -> None:
    narrow, full = net(), net()
    narrow_updater, full_updater = updater_of(narrow, use_8bit_optimizer=True), updater_of(full)
    for number in range(5):
        narrow_updater.update(one_pass(narrow, number), schedule_share=1e-3)
        full_updater.update(one_pass(full, number), schedule_share=1e-3)
    moved = (full.inner.weight - net().inner.weight).norm()
    assert (narrow.inner.weight - full.inner.weight).norm() < 0.1 * moved


def test_without_the_library_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes.optim.adamw", None)
    with pytest.raises(MissingExtraError, match="pip install .*bitsandbytes$"):
        updater_of(net(), use_8bit_optimizer=True)


def test_state_of_another_model_is_refused() -> None:
    updater = updater_of(net())
    tensors = updater.state_tensors() | {"outer.weight.exp_avg": torch.zeros(1)}
    with pytest.raises(CheckpointError, match=r"outer\.weight\.exp_avg"):
        updater.load_state_tensors(tensors)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_gradients_do_not_add_up_over_updates(dtype: torch.dtype) -> None:
    once, twice = net(dtype), net(dtype)
    first, second = updater_of(once, grad_clip=0.0), updater_of(twice, grad_clip=0.0)
    twice.inner.weight.grad = torch.ones_like(twice.inner.weight)  # left over from elsewhere
    a = first.update(one_pass(once, 0), schedule_share=1e-3)
    b = second.update(one_pass(twice, 0), schedule_share=1e-3)
    assert torch.equal(a.grad_norm, b.grad_norm)
    assert torch.equal(once.inner.weight, twice.inner.weight)
