"""Puzzle solvers equal their equations, written out a second time: losses, gradients, states, halting, metrics."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from hrm_engine.models.core import RecurrentCore
from hrm_engine.models.slots import NUMBERS, Objective, Rows, Slots, empty_slots, join, refill, think
from hrm_engine.optim.sparse_sign import sparse_sign_update
from tests.parity import reference_puzzle as reference
from tests.parity.solvers import CELLS, IDENTIFIERS, NETWORKS, QUEUE, SLOTS, VOCAB, make_core

PLAIN = Objective()

OBJECTIVES = {
    "softmax": Objective(loss="softmax"),
    "smoothed": Objective(loss="softmax", label_smoothing=0.2, halt_loss_weight=0.05),
    "smoothed-stablemax": Objective(loss="stablemax", label_smoothing=0.1, halt_loss_weight=0.0),
    "every-cell": Objective(ignore_label=None),
    "another-label": Objective(ignore_label=3),
}


def shape_of(core: RecurrentCore, chosen: dict[str, Any]) -> reference.Shape:
    """Sizes and what was chosen; what the architecture's name means, the re-implementation knows by itself."""
    config = core.config
    words = {"full": config.num_calls}
    return reference.Shape(
        arch=config.arch,
        heads=config.num_heads,
        h_layers=config.h_layers,
        l_layers=config.l_layers,
        h_cycles=config.h_cycles,
        l_cycles=config.l_cycles,
        halt_max_steps=config.halt_max_steps,
        grad_calls=words.get(str(chosen.get("grad_calls")), chosen.get("grad_calls")),
        positions=config.pos_encodings,
        prefix=config.prefix_tokens,
        latents=chosen.get("num_latents", 1),
        damping=chosen.get("damping", 1.0),
        q_continue=chosen.get("q_continue", config.arch == "hrm"),
        gate=chosen.get("attention_gate", False),
        zero_start=chosen.get("initial_state") == "zero",
    )


def goal_of(objective: Objective) -> reference.Objective:
    return reference.Objective(
        objective.loss, objective.label_smoothing, objective.halt_loss_weight, objective.ignore_label
    )


def make_queue(seed: int = 0) -> Rows:
    """Rows with few labels, so that some are solved by chance; one has none at all."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(1, VOCAB, (QUEUE, CELLS), generator=generator)
    labels[torch.rand(QUEUE, CELLS, generator=generator) < 0.8] = 0
    labels[1] = 0
    return Rows(
        torch.randint(VOCAB, (QUEUE, CELLS), generator=generator),
        labels,
        torch.randint(IDENTIFIERS, (QUEUE,), generator=generator),
    )


def weights_of(core: RecurrentCore) -> dict[str, Tensor]:
    parameters = {name: p.detach().clone().requires_grad_() for name, p in core.named_parameters()}
    return parameters | {name: b.detach().clone() for name, b in core.named_buffers()}


class Both:
    """The engine and the re-implementation, step by step from the same weights over the same rows."""

    def __init__(self, core: RecurrentCore, chosen: dict[str, Any], objective: Objective = PLAIN) -> None:
        self.core, self.objective, self.queue = core, objective, make_queue()
        self.shape, self.goal = shape_of(core, chosen), goal_of(objective)
        self.slots: Slots = empty_slots(core, SLOTS, self.queue)
        self.cursor = torch.zeros((), dtype=torch.int64)
        self.theirs = [reference.Slot() for _ in range(SLOTS)]
        self.taken = 0
        self.context = core.context(torch.arange(core.config.max_seq_len)[None])

    def engine_step(self, least_steps: list[int], part: int) -> tuple[float, dict[str, float], Tensor | None]:
        """Loss, sums, gradient of what was read from the puzzle embedding; slots in parts of ``part``."""
        core = self.core
        core.zero_grad(set_to_none=True)
        filled, self.cursor = refill(self.slots, self.queue, self.cursor)
        puzzle = None
        if core.puzzle_embedding is not None:
            puzzle = core.puzzle_embedding(filled.rows.identifiers).requires_grad_()
        loss, numbers, parts = 0.0, torch.zeros(len(NUMBERS)), []
        for start in range(0, SLOTS, part):
            places = slice(start, start + part)
            thought = think(
                core,
                filled.part(start, start + part),
                self.context,
                self.objective,
                num_slots=SLOTS,
                min_segments=torch.tensor(least_steps[places]),
                puzzle=None if puzzle is None else puzzle[places],
            )
            thought.loss.backward()
            loss += float(thought.loss.detach())
            numbers += thought.numbers
            parts.append(thought.slots)
        self.slots = join(parts)
        assert all(not state.requires_grad for state in (self.slots.carry.z_h, self.slots.carry.z_l))
        return loss, dict(zip(NUMBERS, numbers.tolist(), strict=True)), None if puzzle is None else puzzle.grad

    def reference_step(self, weights: dict[str, Tensor], least_steps: list[int]) -> tuple[reference.Step, list[Tensor]]:
        """The same; gradients of the puzzle embedding by slot."""
        for slot in self.theirs:
            if slot.halted:
                slot.inputs = self.queue.inputs[self.taken].tolist()
                slot.labels = self.queue.labels[self.taken].tolist()
                slot.identifier = int(self.queue.identifiers[self.taken])
                self.taken += 1
        puzzles = None
        if "puzzle_embedding.weight" in weights:
            table = weights["puzzle_embedding.weight"]
            puzzles = [table[slot.identifier].clone().requires_grad_() for slot in self.theirs]
        result = reference.step(weights, self.shape, self.theirs, puzzles, least_steps, self.goal)
        result.loss.backward()
        self.theirs = result.slots
        return result, [] if puzzles is None else [zeros_for_none(p) for p in puzzles]

    def compare_step(self, least_steps: list[int], *, part: int = SLOTS) -> reference.Step:
        """One step of both; everything that comes out is the same."""
        weights = weights_of(self.core)
        loss, sums, puzzle_grad = self.engine_step(least_steps, part)
        wanted, wanted_puzzle = self.reference_step(weights, least_steps)
        assert loss == pytest.approx(float(wanted.loss.detach()), abs=1e-9)
        assert sums["loss"] == pytest.approx(loss * SLOTS, rel=1e-5)
        for name, value in wanted.sums.items():
            assert sums[name] == pytest.approx(value, rel=1e-5, abs=1e-6), name
        for name, parameter in self.core.named_parameters():
            close(zeros_for_none(parameter), zeros_for_none(weights[name]), name)
        if puzzle_grad is not None:
            close(puzzle_grad, torch.stack(wanted_puzzle), "puzzle embedding")
        assert int(self.cursor) == self.taken
        assert self.slots.segments.tolist() == [slot.steps for slot in self.theirs]
        assert self.slots.halted.tolist() == [slot.halted for slot in self.theirs]
        assert self.slots.rows.inputs.tolist() == [slot.inputs for slot in self.theirs]
        close(self.slots.carry.z_h, torch.stack([z for slot in self.theirs for z in slot.high]), "z_h")
        close(self.slots.carry.z_l, torch.stack([z for slot in self.theirs for z in slot.low]), "z_l")
        return wanted

    def learn(self) -> None:
        """Move the weights, so that the next step is another problem."""
        with torch.no_grad():
            for parameter in self.core.parameters():
                parameter -= 0.1 * zeros_for_none(parameter)


def zeros_for_none(tensor: Tensor) -> Tensor:
    """Its gradient."""
    return torch.zeros_like(tensor) if tensor.grad is None else tensor.grad


def close(ours: Tensor, wanted: Tensor, name: str) -> None:
    torch.testing.assert_close(ours, wanted, rtol=1e-7, atol=1e-8, msg=lambda text: f"{name}: {text}")


@pytest.mark.parametrize("name", NETWORKS)
def test_steps_in_a_row(name: str) -> None:
    """Halting, exploration, fresh rows and the targets of Q-learning over several steps of learning."""
    both = Both(make_core(**NETWORKS[name]), NETWORKS[name])
    for number, least_steps in enumerate([[0, 0, 2, 3], [0, 0, 0, 3], [2, 0, 3, 0], [0, 2, 0, 0], [0, 0, 0, 0]]):
        both.compare_step(least_steps, part=SLOTS if number % 2 else 2)
        both.learn()
    assert SLOTS < both.taken < QUEUE  # slots were filled more than once
    if NETWORKS[name].get("halt_max_steps") != 1:
        assert both.taken < 5 * SLOTS  # and kept


@pytest.mark.parametrize("name", OBJECTIVES)
@pytest.mark.parametrize("network", ["hrm", "trm-three-latents"])
def test_objectives(network: str, name: str) -> None:
    both = Both(make_core(seed=3, **NETWORKS[network]), NETWORKS[network], OBJECTIVES[name])
    for _ in range(2):
        both.compare_step([0, 0, 0, 2])
        both.learn()


def test_what_the_comparison_can_see() -> None:
    """Rows that are right, rows without a label, slots that halt by themselves and that are kept by exploration."""
    both = Both(make_core(**NETWORKS["hrm"]), NETWORKS["hrm"])
    halted_early, exact, kept = 0, 0.0, 0
    for _ in range(5):
        wanted = both.compare_step([0, 0, 3, 3])
        both.learn()
        halted_early += sum(slot.halted and slot.steps < 3 for slot in both.theirs[:2])
        kept += sum(not slot.halted for slot in both.theirs[2:])
        exact += wanted.sums["exact_accuracy"]
    assert halted_early
    assert kept
    assert exact
    assert not any(both.queue.labels[1])


def test_a_full_table_and_a_narrow_one() -> None:
    """16 positions of puzzle embedding: with a number for each place, or with zeros behind the first width."""
    chosen = NETWORKS["trm"]
    narrow = make_core(**chosen)
    assert narrow.puzzle_embedding is not None
    assert narrow.puzzle_embedding.weight.shape == (IDENTIFIERS, 16)
    whole = RecurrentCore(narrow.config.model_copy(update={"identifier_width": None})).double()
    assert whole.puzzle_embedding is not None
    padded = torch.zeros(IDENTIFIERS, 16 * 16, dtype=torch.float64)
    padded[:, :16] = narrow.puzzle_embedding.weight
    whole.puzzle_embedding.weight = whole.puzzle_embedding.weight.double()
    whole.load_state_dict({**narrow.state_dict(), "puzzle_embedding.weight": padded})
    first, second = Both(narrow, chosen), Both(whole, chosen)
    close(first.compare_step([0] * SLOTS).loss.detach(), second.compare_step([0] * SLOTS).loss.detach(), "loss")
    whole.puzzle_embedding.weight.copy_(torch.randn(padded.shape, generator=torch.Generator().manual_seed(1)))
    Both(whole, chosen).compare_step([0] * SLOTS)


@pytest.mark.parametrize(
    ("network", "wrong"),
    [
        ("hrm", {"calls": 3}),
        ("trm", {"calls": 2}),
        ("trm-mlp", {"arch": "trm-fast"}),
        ("hrm", {"q_continue": False}),
        ("hrm", {"positions": "none"}),
    ],
)
def test_a_wrong_equation_is_seen(network: str, wrong: dict[str, Any]) -> None:
    both = Both(make_core(**NETWORKS[network]), NETWORKS[network])
    changed = {"grad_calls": wrong["calls"]} if "calls" in wrong else wrong
    both.shape = replace(both.shape, **changed)
    with pytest.raises(AssertionError):
        several_steps(both)


def several_steps(both: Both) -> None:
    for _ in range(3):
        both.compare_step([0] * SLOTS)


def test_the_puzzle_embedding_moves_only_where_it_was_read() -> None:
    """The sign update of the puzzle embedding against its rule, row by row."""
    generator = torch.Generator().manual_seed(4)
    table = torch.randn(6, 3, generator=generator, dtype=torch.float64)
    identifiers = torch.tensor([4, 1, 4, 0, 4])
    gradient = torch.randn(5, 3, generator=generator, dtype=torch.float64)
    gradient[3] = 0
    wanted = table.clone()
    for row in set(identifiers.tolist()):
        total = sum(g for i, g in zip(identifiers.tolist(), gradient, strict=True) if i == row)
        for column in range(3):
            sign = float(total[column] > 0) - float(total[column] < 0)
            wanted[row, column] = table[row, column] * (1 - 0.01 * 0.1) - 0.01 * sign
    sparse_sign_update(table, identifiers, gradient, lr=0.01, weight_decay=0.1, finite=torch.tensor(True))
    torch.testing.assert_close(table, wanted, rtol=0, atol=1e-15)
    sparse_sign_update(table, identifiers, gradient, lr=0.01, weight_decay=0.1, finite=torch.tensor(False))
    torch.testing.assert_close(table, wanted, rtol=0, atol=1e-15)
