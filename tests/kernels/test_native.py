"""The attention in C++ against its equation in float64, with gradients: documents, windows, odd sizes, gate, angles."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from hrm_engine.kernels import native
from hrm_engine.kernels.attention import attention_reference, gated_attention, plan_attention
from hrm_engine.kernels.rope import rope_tables, rotate

CPU = torch.device("cpu")
needs_native = pytest.mark.skipif(native.load() is not None, reason=f"no kernels in C++: {native.load()}")


@dataclass(frozen=True)
class Case:
    length: int
    width: int = 32
    heads: int = 2
    causal: bool = True
    window: int | None = None
    documents: bool = False
    gate: bool = True
    rope: bool = True


CASES = [
    Case(2),
    Case(63, documents=True),
    Case(64, window=7),
    Case(81, causal=False, rope=False, gate=False),
    Case(129, width=64, documents=True, window=40),
    Case(200, width=96, heads=1, gate=False),
    Case(300, causal=False),
]


def inputs(case: Case) -> list[Tensor]:
    """Queries, keys, values and gate, in bf16; the heads of queries do not lie one after another in memory."""
    generator = torch.Generator().manual_seed(case.length)
    shape = (3, case.length, case.heads, case.width)
    q, k, v, gate = (torch.randn(shape, generator=generator).bfloat16() for _ in range(4))
    q = q.transpose(1, 2).contiguous().transpose(1, 2)
    return [x.requires_grad_() for x in (q, k, v, gate)]


def results(case: Case, leaves: list[Tensor]) -> list[Tensor]:
    """What comes out, and the gradients, in the type of the leaves."""
    q, k, v, gate = leaves
    documents = None
    if case.documents:
        draw = torch.Generator().manual_seed(1)
        documents = torch.randint(0, 4, (len(q), case.length), generator=draw).sort(1).values
    plan = plan_attention(
        num_queries=case.length,
        num_keys=case.length,
        device=CPU,
        dtype=q.dtype,
        documents=documents,
        window=case.window,
        causal=case.causal,
    )
    angles = rope_tables(torch.arange(case.length)[None], case.width, 1e4, q.dtype) if case.rope else None
    if q.dtype == torch.bfloat16:
        assert plan.spans is not None
        y = gated_attention(q, k, v, gate if case.gate else None, angles, plan)
    else:
        if angles is not None:
            # the tables that the kernel reads are rounded
            angles = tuple(table.bfloat16().to(q.dtype) for table in angles)
            q, k = rotate(q, *angles), rotate(k, *angles)
        y = attention_reference(q, k, v, plan)
        y = y * torch.sigmoid(gate) if case.gate else y
    weight = torch.randn(y.shape, generator=torch.Generator().manual_seed(2)).bfloat16().to(y.dtype)
    wanted = leaves if case.gate else leaves[:3]
    return [y, *torch.autograd.grad((y * weight).sum(), wanted)]


@needs_native
@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_kernel_is_its_equation(case: Case) -> None:
    leaves = inputs(case)
    exact = results(case, [leaf.detach().double().requires_grad_() for leaf in leaves])
    for ours, reference in zip(results(case, leaves), exact, strict=True):
        error = (ours.double() - reference).norm() / reference.norm()
        assert error < 1e-2  # bf16 keeps 8 bits


@needs_native
def test_what_a_query_does_not_see_changes_nothing() -> None:
    """To the last bit: neither a later key nor another document."""
    case = Case(130, documents=True)
    leaves = inputs(case)
    before = results(case, leaves)[0]
    with torch.no_grad():
        for leaf in leaves:
            leaf[:, 100:] = 50 * torch.randn_like(leaf[:, 100:])
    assert torch.equal(results(case, leaves)[0][:, :100], before[:, :100])


@needs_native
def test_the_number_of_threads_changes_no_bit() -> None:
    case, threads = Case(100), torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = results(case, inputs(case))
        torch.set_num_threads(3)
        together = results(case, inputs(case))
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(a, b) for a, b in zip(alone, together, strict=True))


@needs_native
def test_compiled_code_calls_the_kernel() -> None:
    case = Case(40)
    q, k, v, gate = inputs(case)
    plan = plan_attention(num_queries=40, num_keys=40, device=CPU, dtype=q.dtype)
    angles = rope_tables(torch.arange(40)[None], case.width, 1e4, q.dtype)

    def run(q: Tensor) -> Tensor:
        return gated_attention(q * 2, k, v, gate, angles, plan)

    compiled = torch.compile(run, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(q), run(q))
    assert torch.equal(*(torch.autograd.grad(form(q).sum(), q)[0] for form in (compiled, run)))


LOAD = "from hrm_engine.kernels import native; print(native.load())"


def loaded(**environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", LOAD], env={**os.environ, **environment}, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def test_without_a_compiler_the_other_forms_serve(tmp_path) -> None:
    (tmp_path / "bin").mkdir()
    said = loaded(PATH=str(tmp_path / "bin"), CXX="", TORCH_EXTENSIONS_DIR=str(tmp_path))
    assert "compiler" in said or sys.platform in said


@pytest.mark.skipif(sys.platform != "linux", reason="compiled on Linux alone")
def test_a_compiler_that_fails_is_named_and_leaves_nothing(tmp_path) -> None:
    failing = tmp_path / "bin" / "g++"
    failing.parent.mkdir()
    failing.write_text("#!/bin/sh\necho 'x.cpp: error: no such thing' >&2\nexit 1\n")
    failing.chmod(0o755)
    said = loaded(CXX=str(failing), TORCH_EXTENSIONS_DIR=str(tmp_path / "made"))
    assert "g++ failed: x.cpp: error: no such thing" in said
    assert [path.name for path in (tmp_path / "made" / "hrm_lab").iterdir()] == ["build.lock"]


@needs_native
def test_a_damaged_library_is_made_again(tmp_path) -> None:
    """By a compiler that gives what the real one gave before, and is asked once."""
    real = native._built(str(shutil.which("g++") or shutil.which("clang++")))
    compiler = tmp_path / "g++"
    compiler.write_text(f"""#!/bin/sh
echo once >> {tmp_path}/asked
while [ "$1" != -o ]; do shift; done
cp {real} "$2"
""")
    compiler.chmod(0o755)
    environment = {"CXX": str(compiler), "TORCH_EXTENSIONS_DIR": str(tmp_path)}
    assert loaded(**environment) == "None"
    [library] = (tmp_path / "hrm_lab").glob("*.so")
    library.write_bytes(b"no library")
    (tmp_path / "asked").unlink()
    assert loaded(**environment) == "None"
    assert library.read_bytes() == real.read_bytes()
    assert (tmp_path / "asked").read_text() == "once\n"


@needs_native
@pytest.mark.parametrize("sizes", [[0, 3, 700, 0, 61], [1100], [0, 0]], ids=str)
def test_products_of_experts_are_those_of_each_block(sizes: list[int]) -> None:
    """Blocks of several parts, of none, and rows behind the last; the same bits with any threads, in inference too."""
    generator = torch.Generator().manual_seed(sum(sizes))
    total, behind, threads = sum(sizes), 4, torch.get_num_threads()
    rows, grads = (torch.randn(total + behind, width, generator=generator).bfloat16() for width in (48, 520))
    weight = torch.randn(len(sizes), 520, 48, generator=generator).bfloat16()
    ends = torch.tensor(sizes).cumsum(0).to(torch.int32)
    blocks = [slice(end - size, end) for size, end in zip(sizes, ends.tolist(), strict=True)]
    made = []
    try:
        for count, inference in ((1, False), (3, False), (3, True)):
            torch.set_num_threads(count)
            with torch.inference_mode(inference):
                made.append(
                    (
                        torch.ops.hrm_lab.expert_products(rows, weight, ends),
                        torch.ops.hrm_lab.expert_outer_products(grads, rows, ends),
                    )
                )
    finally:
        torch.set_num_threads(threads)
    (forward, outer), *others = made
    assert all(torch.equal(forward, other[0]) and torch.equal(outer, other[1]) for other in others)
    assert not forward[total:].any()
    for expert, block in enumerate(blocks):
        exact = rows[block].double() @ weight[expert].double().T
        torch.testing.assert_close(forward[block].double(), exact, rtol=1e-2, atol=5e-2)
        exact = grads[block].double().T @ rows[block].double()
        torch.testing.assert_close(outer[expert].double(), exact, rtol=1e-2, atol=0.3)
