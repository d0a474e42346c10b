"""What only a CUDA device can show. Skipped, with the reason, where there is none."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from hrm_engine.kernels.attention import attention, attention_reference, document_starts, plan_attention
from hrm_engine.kernels.experts import experts, experts_reference
from hrm_engine.kernels.losses import IGNORE, token_losses, token_losses_reference
from hrm_engine.store.paths import Workspace
from hrm_engine.training import Trainer, train
from tests.tiny_runs import Lab, assert_same_end, interrupter, make_source

# The compiler warns about calls of its own, and the debug mode about being a prototype.
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning"),
]

CUDA = torch.device("cuda")


@pytest.fixture
def lab(workspace: Path) -> Lab:
    return Lab(workspace, make_source(workspace.parent / "source"))


@pytest.mark.parametrize("window", [None, 7])
def test_attention_equals_its_equation(window: int | None) -> None:
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, 70, 4, 16, device=CUDA, requires_grad=True) for _ in range(3))
    documents = torch.randint(0, 3, (2, 70), device=CUDA).sort(1).values
    plan = plan_attention(
        num_queries=70, num_keys=70, device=CUDA, dtype=torch.float32, documents=documents, window=window
    )
    assert plan.blocks is None
    found = attention(q, k, v, plan)
    expected = attention_reference(q.double(), k.double(), v.double(), plan)
    torch.testing.assert_close(found.double(), expected, atol=1e-5, rtol=1e-5)
    grads = torch.autograd.grad(found.square().sum(), (q, k, v))
    wanted = torch.autograd.grad(expected.square().sum(), (q, k, v))
    for one, other in zip(grads, wanted, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("window", [None, 7])
def test_documents_by_their_starts_equal_the_mask(window: int | None) -> None:
    torch.manual_seed(0)
    documents = torch.randint(0, 5, (3, 200)).sort(1).values
    q, k, v = (torch.randn(3, 200, 4, 32, device=CUDA, dtype=torch.bfloat16, requires_grad=True) for _ in range(3))
    size = {"num_queries": 200, "num_keys": 200, "device": CUDA, "documents": documents.to(CUDA), "window": window}
    plan = plan_attention(**size, dtype=torch.bfloat16, starts=document_starts(documents).to(CUDA))
    assert plan.starts is not None
    found = attention(q, k, v, plan)
    masked = plan_attention(**size, dtype=torch.float32)
    expected = attention_reference(q.double(), k.double(), v.double(), masked)
    torch.testing.assert_close(found.double(), expected, atol=2e-2, rtol=2e-2)
    grads = torch.autograd.grad(found.square().sum(), (q, k, v))
    wanted = torch.autograd.grad(expected.square().sum(), (q, k, v))
    for one, other in zip(grads, wanted, strict=True):
        torch.testing.assert_close(one, other, atol=5e-2, rtol=5e-2)


def test_experts_equal_their_equation() -> None:
    torch.manual_seed(0)
    chosen = torch.rand(200, 6, device=CUDA).argsort(1)[:, :2].clamp_max(4)  # the sixth expert has no token
    x, weights = torch.randn(200, 64, device=CUDA), torch.rand(200, 2, device=CUDA)
    gate, up, down = (torch.randn(6, *shape, device=CUDA) / 8 for shape in ((128, 64), (128, 64), (64, 128)))
    leaves = [t.bfloat16().requires_grad_() for t in (x, weights, gate, up, down)]
    found = experts(leaves[0], chosen, leaves[1], None, *leaves[2:])
    wide = [t.detach().double().requires_grad_() for t in leaves]
    expected = experts_reference(wide[0], chosen, wide[1], None, *wide[2:])
    torch.testing.assert_close(found.double(), expected, atol=5e-2, rtol=5e-2)
    grads = torch.autograd.grad(found.square().sum(), leaves)
    wanted = torch.autograd.grad(expected.square().sum(), wide)
    for one, other in zip(grads, wanted, strict=True):
        torch.testing.assert_close(one.double(), other, atol=0.2, rtol=0.1)


def test_head_loss_equals_its_equation() -> None:
    torch.manual_seed(0)
    hidden = torch.randn(300, 32, device=CUDA, requires_grad=True)
    weight = torch.randn(500, 32, device=CUDA, requires_grad=True)
    labels = torch.randint(0, 500, (300,), device=CUDA)
    labels[::7] = IGNORE
    total, by_token = token_losses(hidden, weight, labels)
    expected = token_losses_reference(hidden.double(), weight.double(), labels)
    torch.testing.assert_close(by_token.double(), expected.detach(), atol=1e-4, rtol=1e-4)
    for one, other in zip(
        torch.autograd.grad(total, (hidden, weight)),
        torch.autograd.grad(expected.sum(), (hidden, weight)),
        strict=True,
    ):
        torch.testing.assert_close(one, other, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("compiled", [False, True])
def test_an_interrupted_training_continues_exactly(lab: Lab, compiled: bool) -> None:
    settings = {"device": "cuda", "strict": True, "compile": compiled, "steps": 8}
    straight = lab.train("straight", **settings)
    config = lab.config(brain_name="stopped", **settings)
    train(config, workspace=lab.workspace, observer=interrupter(4))
    resumed = lab.resume("stopped")
    assert resumed.step == 8
    assert_same_end(straight.run_dir, resumed.run_dir)


@pytest.mark.parametrize("dtype", ["fp32", "bf16", "fp16"])
def test_the_loss_falls_in_every_type(lab: Lab, dtype: str) -> None:
    result = lab.train("typed", device="cuda", strict=True, model_dtype=dtype, steps=60, compile=False)
    assert result.first_eval is not None
    assert result.last_eval is not None
    assert result.last_eval["loss"] < result.first_eval["loss"] - 0.5


@pytest.mark.parametrize("use_moe", [False, True])
def test_a_steady_step_does_not_wait_for_the_device(lab: Lab, use_moe: bool) -> None:
    config = lab.config(device="cuda", strict=True, steps=30, compile=False, halt_max_steps=2, use_moe=use_moe)
    with Trainer(config, workspace=Workspace(lab.root)) as trainer:
        for _ in range(2):
            trainer.step()
        trainer.journal.read()
        torch.cuda.set_sync_debug_mode("error")
        try:
            for _ in range(5):
                trainer.step()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    assert trainer.step_number == 7
