"""The expert registry under processes and threads that all change it, and one that is killed."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from hrm_engine.store.expert_cards import ExpertCard
from hrm_engine.store.experts import ExpertRegistry
from hrm_engine.store.goals import Goals
from hrm_engine.store.paths import Workspace
from tests.store.conftest import Spawn

ADDS = """
import sys
from pathlib import Path
from hrm_engine.store.expert_cards import ExpertCard
from hrm_engine.store.experts import ExpertRegistry
from hrm_engine.store.paths import Workspace
registry = ExpertRegistry(Workspace(Path(sys.argv[1])))
input()
for number in range(int(sys.argv[3])):
    registry.add(ExpertCard(expert_id=f"{sys.argv[2]}-{number}"))
"""


# Everything that changes experts and goals, at once and on the same few experts; refusals are part of it.
CHANGES = """
import random, sys
from pathlib import Path
from hrm_engine.errors import RegistryError
from hrm_engine.store.expert_cards import ExpertCard
from hrm_engine.store.goals import Goals
from hrm_engine.store.paths import Workspace
goals = Goals(Workspace(Path(sys.argv[1])))
registry, draw = goals.registry, random.Random(int(sys.argv[2]))
input()
for _ in range(60):
    name, other = draw.choices("abcd", k=2)
    change = draw.choice((
        lambda: registry.add(ExpertCard(expert_id=name)), lambda: registry.update(name, is_frozen=True),
        lambda: registry.set_parent(name, other), lambda: registry.delete(name, reparent=True),
        lambda: goals.add("goal", expert_id=name), lambda: goals.remove(draw.randint(1, 20)),
        lambda: goals.link_expert(draw.randint(1, 20), name), lambda: goals.unlink_expert(draw.randint(1, 20), name),
    ))
    try:
        change()
    except RegistryError:
        pass
"""


@pytest.fixture
def registry(workspace: Path) -> ExpertRegistry:
    return ExpertRegistry(Workspace(workspace))


def test_two_processes_that_add_at_once_lose_nothing(registry: ExpertRegistry, spawn: Spawn) -> None:
    processes = [spawn(ADDS, registry.workspace.root, name, 100) for name in ("left", "right")]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    # A reader that takes no lock finds a whole file at every moment.
    while any(process.poll() is None for process in processes):
        seen = [card.expert_id for card in registry.cards()]
        assert len(seen) == len(set(seen))
        time.sleep(0.02)
    for process in processes:
        _, errors = process.communicate()
        assert (process.returncode, errors) == (0, "")
    expected = {f"{name}-{number}" for name in ("left", "right") for number in range(100)}
    assert {card.expert_id for card in registry.cards()} == expected


def test_threads_of_one_process_lose_nothing(registry: ExpertRegistry) -> None:
    def work(thread: int) -> None:
        for number in range(10):
            ExpertRegistry(registry.workspace).add(ExpertCard(expert_id=f"{thread}-{number}"))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    assert len(registry.cards()) == 40


def test_all_changes_at_once_leave_cards_and_goals_consistent(registry: ExpertRegistry, spawn: Spawn) -> None:
    processes = [spawn(CHANGES, registry.workspace.root, seed) for seed in range(3)]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    for process in processes:
        _, errors = process.communicate()
        assert (process.returncode, errors) == (0, "")
    goals = Goals(registry.workspace)
    raw = json.loads(registry.path.read_text())
    assert raw["experts"] == [card.dump() for card in registry.cards()]
    for entry in raw["experts"]:
        assert [link["id"] for link in entry["goals"]] == [
            goal.id for goal in goals.list_for_expert(entry["expert_id"])
        ]
    known = {entry["expert_id"] for entry in raw["experts"]}
    assert {name for names in goals.experts_by_goal().values() for name in names} <= known


def test_a_writer_that_is_killed_leaves_the_registry_whole(registry: ExpertRegistry, spawn: Spawn) -> None:
    registry.add(ExpertCard(expert_id="poems"))
    process = spawn(ADDS.replace("range(int(sys.argv[3]))", "range(10**6)"), registry.workspace.root, "x", 0)
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()
    while len(registry.cards()) < 5:
        assert process.poll() is None
    process.kill()
    process.wait()
    number = len(registry.cards())
    registry.add(ExpertCard(expert_id="after"))
    assert len(registry.cards()) == number + 1
    assert list(registry.path.parent.glob(".tmp-*")) == []
