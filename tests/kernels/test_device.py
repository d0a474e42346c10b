"""Which device, and which types, from what the user asked for."""

from __future__ import annotations

import pytest
import torch

from hrm_engine.errors import ConfigError
from hrm_engine.kernels.device import Precision, choose_device, choose_precision, is_out_of_memory

CPU = torch.device("cpu")
MISSING = "mps" if not torch.backends.mps.is_available() else "cuda:99"


def test_the_cpu_is_always_there() -> None:
    assert choose_device("cpu", strict=True) == (CPU, None)


def test_auto_finds_something_without_a_message() -> None:
    device, message = choose_device("auto", strict=True)
    assert message is None
    if not (torch.cuda.is_available() or torch.backends.mps.is_available() or torch.xpu.is_available()):
        assert device == CPU


@pytest.mark.parametrize("name", [MISSING, "cuda:99"])
def test_a_missing_device_is_said_or_refused(name: str) -> None:
    device, message = choose_device(name)
    assert device == CPU
    assert message is not None
    assert name in message
    # also said by commands that have no --strict
    with pytest.raises(ConfigError, match=f"{name} is not available here; use --device auto or cpu"):
        choose_device(name, strict=True)


@pytest.mark.parametrize(
    ("amp", "model_dtype", "wanted"),
    [
        (False, "fp32", Precision(torch.float32, torch.float32, torch.float32, False)),
        (True, "bf16", Precision(torch.bfloat16, torch.bfloat16, torch.bfloat16, False)),
        (False, "bf16", Precision(torch.bfloat16, torch.bfloat16, torch.bfloat16, False)),
        (True, "fp16", Precision(torch.float32, torch.float16, torch.float16, True)),
    ],
    ids=str,
)
def test_types(amp: bool, model_dtype: str, wanted: Precision) -> None:
    assert choose_precision(CPU, amp=amp, model_dtype=model_dtype) == (wanted, None)


def test_amp_computes_in_bf16_or_says_why_not() -> None:
    precision, message = choose_precision(CPU, amp=True, model_dtype="fp32")
    assert (precision.master, precision.stored, precision.loss_scaling) == (torch.float32, torch.float32, False)
    assert (precision.compute is torch.bfloat16) == (message is None)
    assert message is None or "bf16" in message


def test_running_out_of_memory_is_recognised() -> None:
    """The CPU's allocator really asked for more than any machine has."""
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 60, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)
    assert is_out_of_memory(MemoryError())
    assert is_out_of_memory(torch.OutOfMemoryError())
    assert is_out_of_memory(RuntimeError("could not create a primitive"))
    with pytest.raises(RuntimeError) as other:
        torch.zeros(2) @ torch.zeros(3)
    assert not is_out_of_memory(other.value)
