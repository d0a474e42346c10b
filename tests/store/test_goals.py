"""Goals and their experts: the database is the truth, the cards follow, nothing damaged is overwritten."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hrm_engine.errors import ConfigError, HRMError, LockedError, RegistryError, StorageError
from hrm_engine.store import goal_tables
from hrm_engine.store.expert_cards import ExpertCard
from hrm_engine.store.experts import ExpertRegistry
from hrm_engine.store.goal_tables import MAX_TEXT, GoalTables
from hrm_engine.store.goals import Goals
from hrm_engine.store.paths import Workspace
from tests.store.conftest import Spawn

ADDS = """
import sys
from pathlib import Path
from hrm_engine.store.goals import Goals
from hrm_engine.store.paths import Workspace
goals = Goals(Workspace(Path(sys.argv[1])))
input()
for number in range(int(sys.argv[3])):
    goal = goals.add(f"goal {number}")
    if number % 10 == 0:
        goals.link_expert(goal.id, sys.argv[2])
"""


@pytest.fixture
def goals(workspace: Path) -> Goals:
    """Goals beside a registry with two experts."""
    found = Goals(Workspace(workspace))
    for name in ("test-expert-004", "poems"):
        found.registry.add(ExpertCard(expert_id=name))
    return found


def ids(found: list[goal_tables.Goal]) -> list[int]:
    return [goal.id for goal in found]


def on_card(goals: Goals, expert_id: str) -> list[tuple[int | None, str]]:
    """What the file says, whatever the database does."""
    card = ExpertRegistry._read_file(goals.registry).get(expert_id)
    return [(goal.id, goal.text) for goal in card.goals]


def test_life_of_a_goal(goals: Goals) -> None:
    first = goals.add("  Improve summarization quality ", expert_id="test-expert-004")
    second = goals.add("Rhyme")
    assert (first.id, first.text, first.active) == (1, "Improve summarization quality", True)
    assert goals.list_goals() == [first, second]
    assert goals.get_expert(first.id) == ["test-expert-004"]
    assert goals.list_for_expert("test-expert-004") == [first]
    assert not goals.set_active(first.id, False).active
    assert ids(goals.list_goals()) == [2]
    assert ids(goals.list_goals(active_only=False)) == [1, 2]
    assert ids(goals.list_for_expert("test-expert-004")) == [1]
    assert goals.set_active(first.id, True) == first
    goals.link_expert(second.id, "test-expert-004")
    goals.link_expert(second.id, "test-expert-004")
    goals.link_expert(second.id, "poems")
    assert goals.get_expert(second.id) == ["poems", "test-expert-004"]
    assert goals.experts_by_goal() == {1: ["test-expert-004"], 2: ["poems", "test-expert-004"]}
    goals.unlink_expert(second.id, "poems")
    assert goals.get_expert(second.id) == ["test-expert-004"]
    assert goals.remove(first.id) == first
    assert goals.list_goals() == [second]
    assert goals.add("Another").id == 3  # the number of a removed goal is not given again
    goals.remove(3)
    assert goals.add("Yet another").id == 4


def test_routing_asks_for_the_experts_of_active_goals(goals: Goals) -> None:
    assert goals.active_experts() == set()
    first = goals.add("one", expert_id="poems")
    second = goals.add("two", expert_id="test-expert-004")
    goals.link_expert(second.id, "poems")
    assert goals.active_experts() == {"poems", "test-expert-004"}
    goals.set_active(second.id, False)
    assert goals.active_experts() == {"poems"}
    goals.set_active(first.id, False)
    assert goals.active_experts() == set()
    assert goals.get_expert(second.id) == ["poems", "test-expert-004"]
    with pytest.raises(RegistryError, match="no goal 9"):
        goals.get_expert(9)


def test_goals_of_one_text(goals: Goals) -> None:
    assert goals.add("same").id != goals.add("same").id
    assert goals.add("same", expert_id="poems", unless_there=True).id == 1
    assert goals.add(" same ", expert_id="test-expert-004", unless_there=True).id == 1
    assert goals.add("other", expert_id="poems", unless_there=True).id == 3
    assert goals.get_expert(1) == ["poems", "test-expert-004"]


def test_the_cards_follow_the_database(goals: Goals) -> None:
    goals.add("one", expert_id="poems")
    goals.add("two", expert_id="poems")
    assert on_card(goals, "poems") == [(1, "one"), (2, "two")]
    goals.set_active(1, False)
    goals.unlink_expert(2, "poems")
    assert on_card(goals, "poems") == [(1, "one")]
    goals.remove(1)
    assert on_card(goals, "poems") == []


def test_a_crash_between_commit_and_card_is_made_up_for(goals: Goals) -> None:
    goals.add("one")
    GoalTables(goals.registry.workspace.goals).link_expert(1, "poems")  # all that the dying process managed
    assert on_card(goals, "poems") == []
    assert [goal.text for goal in goals.registry.get("poems").goals] == ["one"]  # what is shown is true at once
    goals.registry.update("test-expert-004", is_frozen=True)
    assert on_card(goals, "poems") == [(1, "one")]


def test_patterns(goals: Goals) -> None:
    for text in ("Improve summaries", "improve poems", "100 %", "x_y"):
        goals.add(text)
    assert ids(goals.matching("IMPROVE%")) == [1, 2]
    assert goals.matching("improve") == []
    assert ids(goals.remove_like("%summar%")) == [1]
    assert goals.remove_like("%summar%") == []
    assert ids(goals.remove_like("%")) == [2, 3, 4]
    assert goals.list_goals(active_only=False) == []


@pytest.mark.parametrize("goal_id", [42, 0, -1, 2**63, 10**30])
def test_an_unknown_goal_is_answered_with_what_exists(goals: Goals, goal_id: int) -> None:
    with pytest.raises(RegistryError, match="none yet"):
        goals.set_active(goal_id, True)
    assert not goals.registry.workspace.goals.exists()
    goals.add("Rhyme")
    for action in (
        lambda goal_id: goals.set_active(goal_id, True),
        lambda goal_id: goals.set_active(goal_id, False),
        goals.remove,
        goals.get,
        goals.get_expert,
    ):
        with pytest.raises(RegistryError, match=rf"no goal {goal_id} .*Goals: 1 \(Rhyme\)"):
            action(goal_id)
    for link in (goals.link_expert, goals.unlink_expert):
        with pytest.raises(RegistryError, match=r"Goals: 1 \(Rhyme\)"):
            link(goal_id, "poems")


def test_an_unknown_expert_is_answered_with_near_matches_and_nothing_is_added(goals: Goals) -> None:
    goals.add("Rhyme")
    for action in (
        lambda: goals.add("new", expert_id="test-expert-04"),
        lambda: goals.add("new", expert_id="test-expert-04", unless_there=True),
        lambda: goals.link_expert(1, "test-expert-04"),
        lambda: goals.unlink_expert(1, "test-expert-04"),
        lambda: goals.list_for_expert("test-expert-04"),
    ):
        with pytest.raises(RegistryError, match=r"Did you mean test-expert-004\?"):
            action()
    assert ids(goals.list_goals()) == [1]
    with pytest.raises(ConfigError, match="expert id"):
        goals.list_for_expert("../x")
    with pytest.raises(RegistryError, match="does not serve goal 1. Its experts: none"):
        goals.unlink_expert(1, "poems")


@pytest.mark.parametrize("text", ["", "  \n", "x" * (MAX_TEXT + 1), "a\0b", "half \udcff"])
def test_texts_that_no_goal_can_have(goals: Goals, text: str) -> None:
    with pytest.raises(ConfigError, match="text of a goal"):
        goals.add(text)
    with pytest.raises(ConfigError, match="pattern"):
        goals.remove_like(text)
    assert not goals.registry.workspace.goals.exists()


@pytest.mark.parametrize("text", ["'); DROP TABLE goals; --", "ä 💡 \n line", '"quoted" %_'])
def test_texts_are_only_texts(goals: Goals, text: str) -> None:
    goals.add(text, expert_id="poems")
    assert [goal.text for goal in goals.list_goals()] == [text]
    assert goals.registry.get("poems").goals[0].text == text


def test_goals_need_no_registry(workspace: Path) -> None:
    goals = Goals(Workspace(workspace))
    goals.add("one")
    goals.set_active(1, False)
    goals.remove(1)
    assert not goals.registry.path.exists()


def test_reading_creates_nothing(workspace: Path) -> None:
    goals = Goals(Workspace(workspace))
    assert goals.list_goals() == []
    assert goals.active_experts() == set()
    assert goals.experts_by_goal() == {}
    assert list((workspace / "artifacts").iterdir()) == []


def test_two_processes_that_add_at_once_lose_nothing(goals: Goals, spawn: Spawn) -> None:
    names = ("test-expert-004", "poems")
    processes = [spawn(ADDS, goals.registry.workspace.root, name, 200) for name in names]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    for process in processes:
        _, errors = process.communicate()
        assert (process.returncode, errors) == (0, "")
    found = goals.list_goals()
    assert sorted(goal.text for goal in found) == sorted(f"goal {number}" for number in range(200) for _ in names)
    for name in names:
        assert len(goals.list_for_expert(name)) == 20
        assert len(on_card(goals, name)) == 20


def newer(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA user_version = {goal_tables.SCHEMA_VERSION + 1}")


def without_tables(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript("DROP TABLE goal_experts; DROP TABLE goals")


def of_another_program(path: Path) -> None:
    path.unlink()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE mails (text)")


def changed(*statements: str, version: int | None = None) -> Callable[[Path], None]:
    """A database in which somebody has worked with a tool of his own."""

    def damage(path: Path) -> None:
        with closing(sqlite3.connect(path)) as connection:
            if version is not None:
                connection.execute(f"PRAGMA user_version = {version}")
            for statement in statements:
                connection.execute(statement)
            connection.commit()

    return damage


ENDLESS = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT x, 'a', 'b', 1 FROM n"
DAMAGE: list[tuple[Callable[[Path], object], str]] = [
    (lambda path: path.write_bytes(b"this is no database" * 300), "damaged"),
    (lambda path: path.write_bytes(path.read_bytes()[:5000]), "damaged"),
    (lambda path: path.write_bytes(path.read_bytes()[:4096] + bytes(len(path.read_bytes()) - 4096)), "damaged"),
    (lambda path: path.write_bytes(path.read_bytes()[:50]), "damaged"),
    (newer, "newer"),
    (without_tables, "damaged"),
    (of_another_program, "not one of goals"),
    (changed("CREATE TRIGGER t AFTER INSERT ON goals BEGIN DELETE FROM goals; END"), "not those of goals"),
    (changed("CREATE VIEW v AS SELECT 1"), "not those of goals"),
    (changed("DROP TABLE goals", f"CREATE VIEW goals AS {ENDLESS}"), "not those of goals"),
    (changed("DROP TABLE goals", "CREATE TABLE goals (id, text, created_ts, active)"), "not those of goals"),
    (lambda path: path.write_bytes(b""), "is empty, and experts have goals .*lab goals restore"),
    (Path.unlink, "is missing, and experts have goals .*lab goals restore"),
]


@pytest.mark.parametrize(("damage", "told"), DAMAGE)
def test_a_database_that_cannot_be_used_is_named_and_kept(
    goals: Goals, damage: Callable[[Path], object], told: str
) -> None:
    path = goals.registry.workspace.goals
    for number in range(100):
        goals.add(f"goal {number} " + "x" * 60)
    goals.link_expert(1, "poems")
    damage(path)
    before, cards = path.exists() and path.read_bytes(), goals.registry.path.read_bytes()
    for action in (
        lambda: goals.list_goals(),
        lambda: goals.add("new"),
        lambda: goals.add("new", expert_id="poems"),
        lambda: goals.set_active(1, True),
        lambda: goals.remove(1),
        lambda: goals.remove_like("%"),
        lambda: goals.link_expert(2, "poems"),
        lambda: goals.active_experts(),
        lambda: goals.registry.update("poems", is_frozen=True),
    ):
        with pytest.raises(RegistryError, match=told) as caught:
            action()
        assert "goals.sqlite" in str(caught.value)
    assert (path.exists() and path.read_bytes()) == before
    assert goals.registry.path.read_bytes() == cards


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ("text = x'ff00'", "values of other types"),
        ("text = CAST(x'ff' AS TEXT)", "UTF-8"),
        ("created_ts = x'00'", "values of other types"),
        (f"text = '{'x' * 2_000_000}'", "too big"),
    ],
)
def test_values_that_are_none_of_a_goal(goals: Goals, value: str, told: str) -> None:
    goals.add("one", expert_id="poems")
    changed(f"UPDATE goals SET {value}")(goals.path)
    for action in (goals.list_goals, lambda: goals.get(1)):
        with pytest.raises(RegistryError, match=rf"goals\.sqlite is damaged .*{told}"):
            action()


@pytest.mark.parametrize("lose", [Path.unlink, lambda path: path.write_bytes(b""), of_another_program, without_tables])
def test_lost_goals_are_made_again_of_the_cards(goals: Goals, lose: Callable[[Path], object]) -> None:
    path = goals.registry.workspace.goals
    for text, expert in (("one", "poems"), ("two", None), ("three", "poems"), ("four", "test-expert-004")):
        goals.add(text, expert_id=expert)
    goals.link_expert(3, "test-expert-004")
    with pytest.raises(RegistryError, match="can be read: there is nothing to restore"):
        goals.restore()
    links, cards = goals.links(), goals.registry.path.read_bytes()
    lose(path)
    damaged = path.exists() and path.read_bytes()
    made, old = goals.restore()
    assert [(goal.id, goal.text, goal.active) for goal in made] == [
        (1, "one", True),
        (3, "three", True),
        (4, "four", True),
    ]
    assert goals.links() == links
    assert (old is not None and old.read_bytes()) == damaged
    goals.registry.update("poems", description="")
    assert goals.registry.path.read_bytes() == cards
    assert goals.add("five").id == 5


def test_goals_of_a_newer_version_are_not_restored(goals: Goals) -> None:
    goals.add("one", expert_id="poems")
    newer(goals.path)
    with pytest.raises(RegistryError, match="newer"):
        goals.restore()


def test_a_question_that_never_ends_is_given_up(goals: Goals, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(goal_tables, "_MOST_WORK", 1)
    goals.add("one")
    with pytest.raises(RegistryError, match="interrupted"):
        goals._read(f"SELECT count(*) FROM ({ENDLESS})")
    monkeypatch.setattr(goal_tables, "_MOST_ROWS", 10)
    with pytest.raises(RegistryError, match="more than 10 rows"):
        goals._read(ENDLESS)


def test_an_empty_file_is_a_new_store(workspace: Path) -> None:
    goals = Goals(Workspace(workspace))
    goals.registry.workspace.goals.touch()  # as a process leaves it that died while creating it
    assert goals.list_goals() == []
    assert goals.add("one").id == 1


def test_a_folder_or_link_in_the_way(workspace: Path) -> None:
    goals = Goals(Workspace(workspace))
    goals.registry.workspace.goals.mkdir()
    for action in (lambda: goals.add("x"), lambda: goals.list_goals()):
        with pytest.raises(StorageError, match=r"goals.sqlite"):
            action()


def test_a_lock_that_stays_is_named(goals: Goals, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(goal_tables, "BUSY_TIMEOUT_S", 0.05)
    goals.add("one")
    with closing(sqlite3.connect(goals.registry.workspace.goals, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(LockedError, match=r"goals.sqlite"):
            goals.add("two")
        other.execute("ROLLBACK")
    assert goals.add("two").id == 2


def test_a_full_disk_leaves_the_goals_as_they_were(small_disk: Callable[[str], Path]) -> None:
    root = small_disk("128k")
    goals = Goals(Workspace(root))
    goals.add("one")

    def fill() -> None:
        for number in range(200):
            goals.add(f"{number} " + "x" * 1900)

    with pytest.raises(StorageError, match=r"goals.sqlite.*full"):
        fill()
    found = goals.list_goals()
    assert found[0].text == "one"
    goals.remove(found[-1].id)
    assert len(goals.list_goals()) == len(found) - 1


OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.integers(0, 3), st.sampled_from(("poems", "songs"))),
        st.tuples(
            st.sampled_from(("link_expert", "unlink_expert")), st.integers(1, 6), st.sampled_from(("poems", "songs"))
        ),
        st.tuples(st.sampled_from(("remove", "activate", "deactivate")), st.integers(1, 6), st.none()),
        st.tuples(st.sampled_from(("delete", "create")), st.none(), st.sampled_from(("poems", "songs"))),
    ),
    max_size=12,
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(operations=OPERATIONS)
def test_any_order_of_changes_keeps_cards_and_database_equal(
    tmp_path_factory: pytest.TempPathFactory, operations: list[tuple[str, int | None, str | None]]
) -> None:
    goals = Goals(Workspace(tmp_path_factory.mktemp("goals")))
    for name, number, expert in operations:
        try:
            if name == "add":
                goals.add(f"goal {number}", expert_id=expert)
            elif name == "delete":
                goals.registry.delete(str(expert))
            elif name == "create":
                goals.registry.add(ExpertCard(expert_id=str(expert)))
            elif name.endswith("activate"):
                goals.set_active(int(number or 0), name == "activate")
            else:
                getattr(goals, name)(*(value for value in (number, expert) if value is not None))
        except HRMError:
            pass
        known = {card.expert_id: [link.id for link in card.goals] for card in goals.registry._read_file().cards}
        for expert_id, linked in known.items():
            assert linked == ids(goals.list_for_expert(expert_id))
        assert {expert_id for found in goals.experts_by_goal().values() for expert_id in found} <= set(known)
        assert goals.active_experts() == {expert for goal in goals.list_goals() for expert in goals.get_expert(goal.id)}
