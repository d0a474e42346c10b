"""``--grad-calls-warmup``: few calls carry gradient at first, and a step with k of them is a step of a network of k."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._dynamo.testing import CompileCounter

from hrm_engine.config import CoreConfig, NetworkConfig, PuzzleNetworkConfig, build_config
from hrm_engine.config.puzzle import PuzzleTrainConfig
from hrm_engine.config.text import TextTrainConfig
from hrm_engine.errors import ConfigError
from hrm_engine.models.act import accumulate_gradients
from hrm_engine.models.core import RecurrentCore
from hrm_engine.models.slots import Objective, Rows, empty_slots, refill, think
from hrm_engine.training import train
from tests.models.tiny import tiny_config, whole_rows
from tests.tiny_puzzles import PuzzleLab
from tests.tiny_runs import Lab, lasting_rows, rows

FULL = {"h_cycles": 2, "l_cycles": 2, "grad_calls": "full"}


def gradients_of_text(config: CoreConfig, **how: Any) -> dict[str, Tensor | None]:
    """Of one step of two segments."""
    core = RecurrentCore(config)
    core.initialise(0)
    backward = torch.Tensor.backward
    accumulate_gradients(core, whole_rows(2, 6), num_segments=2, normaliser=12, backward=backward, **how)
    return {name: parameter.grad for name, parameter in core.named_parameters()}


def gradients_of_puzzles(config: CoreConfig, **how: Any) -> dict[str, Tensor | None]:
    """Of the first step of three slots."""
    core = RecurrentCore(config)
    core.initialise(0)
    cells = config.max_seq_len - config.prefix_tokens
    bits = torch.Generator().manual_seed(1)
    drawn = torch.randint(1, config.vocab_size, (8, cells), generator=bits)
    slots, _ = refill(
        empty_slots(core, 3, queue := Rows(drawn, drawn.flip(1), torch.zeros(8, dtype=torch.int64))),
        queue,
        torch.zeros((), dtype=torch.int64),
    )
    context = core.context(torch.arange(config.max_seq_len)[None])
    objective = Objective("stablemax", 0.0, 0.5, None)
    puzzle = None if core.puzzle_embedding is None else core.puzzle_embedding(slots.rows.identifiers.long())
    min_segments = torch.zeros(3, dtype=torch.int64)
    think(core, slots, context, objective, num_slots=3, min_segments=min_segments, puzzle=puzzle, **how).loss.backward()
    return {name: parameter.grad for name, parameter in core.named_parameters()}


TEXT = tiny_config("hrm-text", h_cycles=2, l_cycles=2, grad_calls=6, halt_max_steps=2)
PUZZLES = tiny_config(
    "trm", h_cycles=2, l_cycles=2, grad_calls=6, causal=False, halting="q_halt", prefix_tokens=1, num_identifiers=1
)


@pytest.mark.parametrize("calls", [2, 3, 4, 5, 6])
@pytest.mark.parametrize("gradients", [gradients_of_text, gradients_of_puzzles])
def test_a_step_with_k_calls_is_one_of_a_network_of_k(gradients: Any, calls: int) -> None:
    config = TEXT if gradients is gradients_of_text else PUZZLES
    warmed = gradients(config, grad_calls=calls)
    wanted = gradients(config.model_copy(update={"grad_calls": calls}))
    assert warmed.keys() == wanted.keys()
    for name, gradient in wanted.items():
        found = warmed[name]
        assert (found is None) == (gradient is None), name
        assert found is None or torch.equal(found, gradient), name
    if calls < 6:
        full = gradients(config)
        assert any(g is not None and not torch.equal(g, full[name]) for name, g in warmed.items())


def test_rows_say_how_many_and_the_first_steps_are_of_two(lab: Lab) -> None:
    settings = {**FULL, "amp": False, "steps": 10, "eval_batches": 0, "lr_scheduler": "constant", "warmup_steps": 0}
    warmed = lab.train("warmed", grad_calls_warmup=0.8, **settings).run_dir
    two = lab.train("two", **{**settings, "grad_calls": 2}).run_dir
    calls = {row["step"]: row["grad_calls"] for row in rows(warmed) if row["event"] == "train"}
    assert calls == {1: 2, 2: 2, 3: 3, 4: 3, 5: 4, 6: 4, 7: 5, 8: 5, 9: 6, 10: 6}
    losses = [{row["step"]: row["loss"] for row in rows(run) if row["event"] == "train"} for run in (warmed, two)]
    assert [losses[0][step] == losses[1][step] for step in range(1, 5)] == [True, True, True, False]
    assert all("grad_calls" not in row for row in rows(two) if row["event"] == "train")
    said = "the token embeddings stay as they start until enough calls carry gradient (its warm-up)"
    assert said in rows(warmed)[0]["messages"]


def test_puzzles_with_a_curriculum_of_depth(puzzle_lab: PuzzleLab) -> None:
    settings = {**FULL, "depth_curriculum": "0:1x2,0.5:2x2", "steps": 8, "eval_rows": 0}
    run = puzzle_lab.train("run", grad_calls_warmup=1.0, **settings).run_dir
    assert [row["grad_calls"] for row in rows(run) if row["event"] == "train"] == [2, 2, 3, 3, 4, 4, 5, 5]
    run = puzzle_lab.train("short", grad_calls_warmup=0.25, **settings).run_dir
    assert [row["grad_calls"] for row in rows(run) if row["event"] == "train"] == [2, 3, 3, 3, 6, 6, 6, 6]


def test_an_extended_run_keeps_what_it_had_or_takes_that_of_the_longer_one(lab: Lab) -> None:
    settings = {**FULL, "amp": False, "steps": 4, "eval_batches": 0, "grad_calls_warmup": 0.5}
    for extended in (False, True):
        lab.train(f"run-{extended}", **settings)
        train(
            lab.config(brain_name=f"run-{extended}"),
            resume=True,
            extend_schedule=extended,
            given={"steps": 20},
            workspace=lab.workspace,
        )
    calls = [
        [row["grad_calls"] for row in lasting_rows(lab.run_dir(f"run-{extended}")) if row["event"] == "train"]
        for extended in (False, True)
    ]
    assert calls[0] == [2, 4] + [6] * 18
    assert calls[1] == [2, 4, 6, 6] + [3, 4, 4, 4, 5, 5] + [6] * 10


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_a_number_of_calls_costs_at_most_one_more_compiled_region() -> None:
    torch._dynamo.reset()
    core = RecurrentCore(TEXT)
    core.initialise(0)
    counted = CompileCounter()
    core.compile(backend=counted)
    frames = []
    for calls in (6, 2, 3, 4, 5, 6, 2):
        batch, backward = whole_rows(2, 6), torch.Tensor.backward
        accumulate_gradients(core, batch, num_segments=2, normaliser=12, backward=backward, grad_calls=calls)
        frames.append(counted.frame_count)
    assert all(after - before <= 1 for before, after in pairwise(frames)), frames
    assert frames[0] > 0
    assert frames[-1] == frames[-3], "what has been compiled serves again"


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        (TextTrainConfig, {"arch": "hrm"}),
        (TextTrainConfig, {"grad_calls": 2}),
        (TextTrainConfig, {"arch": "transformer"}),
        (PuzzleTrainConfig, {"arch": "hrm"}),
        (PuzzleTrainConfig, {"arch": "trm", "grad_calls": "one_step"}),
    ],
)
def test_a_warm_up_that_would_change_nothing_is_refused(kind: Any, settings: dict[str, Any]) -> None:
    data = {"dataset_file": "text.txt"} if kind is TextTrainConfig else {"data_path": "folder"}
    with pytest.raises(ConfigError, match=r"--grad-calls-warmup 0\.2: it grows from 2 calls, .*--grad-calls"):
        build_config(kind, overrides={**data, **settings, "grad_calls_warmup": 0.2})
    with pytest.raises(ConfigError, match="--grad-calls-warmup"):
        build_config(kind, overrides={**data, "grad_calls": "full", "grad_calls_warmup": 1.5})


def test_the_number_of_calls_after_it() -> None:
    assert NetworkConfig(arch="hrm-text", l_cycles=3).num_grad_calls == 5
    assert NetworkConfig(grad_calls="full").num_grad_calls == 6
    assert PuzzleNetworkConfig(arch="trm").num_grad_calls == 7
    assert PuzzleNetworkConfig(arch="transformer").num_grad_calls == 1
