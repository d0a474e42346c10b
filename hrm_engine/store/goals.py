"""Goals, and the experts that serve them: what ``lab goals`` and goal-aware routing ask.

``artifacts/goals.sqlite`` is the truth. A change of a link is committed there first and then written to the cards of
the registry, both under the registry's lock; if the process dies in between, the next change of the registry makes up
for it.
"""

from __future__ import annotations

from collections.abc import Iterable

from hrm_engine.errors import RegistryError
from hrm_engine.store.expert_cards import check_expert_id
from hrm_engine.store.experts import ExpertRegistry
from hrm_engine.store.goal_tables import Goal, GoalTables
from hrm_engine.store.paths import Workspace


class Goals:
    """The goals of one workspace.

    All methods raise RegistryError: a goal does not exist (those that do are listed), an expert does not exist (near
    matches are named), or database or registry are damaged or from a newer version; nothing is then overwritten.
    ConfigError: a text or id that is not acceptable. LockedError, StorageError: as their names say.
    """

    def __init__(self, workspace: Workspace) -> None:
        self.registry = ExpertRegistry(workspace)
        self._tables = GoalTables(workspace.goals)

    def list_goals(self, *, active_only: bool = True) -> list[Goal]:
        """Goals by id; by default the active ones."""
        return self._tables.goals(active_only=active_only)

    def get(self, goal_id: int) -> Goal:
        """One goal."""
        return self._tables.goal(goal_id)

    def add(self, text: str, *, expert_id: str | None = None) -> Goal:
        """Add an active goal; if an expert is named, it serves the goal from the start, or nothing is added."""
        if expert_id is None:
            return self._tables.add(text)
        with self.registry.changing() as content:
            content.get(expert_id)
            return self._tables.add(text, expert_id)

    def ensure(self, text: str, *, expert_id: str) -> Goal:
        """The oldest goal of that text, or a new one, with the expert linked: what a repeated training asks for."""
        with self.registry.changing() as content:
            content.get(expert_id)
            return self._tables.add(text, expert_id, unless_there=True)

    def activate(self, goal_id: int) -> Goal:
        """Let a goal steer routing again."""
        return self._tables.set_active(goal_id, True)

    def deactivate(self, goal_id: int) -> Goal:
        """Keep a goal and its links, but let it steer nothing."""
        return self._tables.set_active(goal_id, False)

    def remove(self, goal_id: int) -> Goal:
        """Remove a goal and its links; returns what it was."""
        goal = self._tables.goal(goal_id)
        with self.registry.changing():
            self._tables.remove([goal_id])
        return goal

    def matching(self, pattern: str) -> list[Goal]:
        """Goals that ``remove_like`` would remove."""
        return self._tables.matching(pattern)

    def remove_like(self, pattern: str) -> list[Goal]:
        """Remove the goals whose text fits an SQL pattern ('%' any text, '_' one character); returns them."""
        with self.registry.changing():
            goals = self._tables.matching(pattern)
            self._tables.remove(goal.id for goal in goals)
        return goals

    def link_expert(self, goal_id: int, expert_id: str) -> None:
        """Let an expert serve a goal; without effect if it does already."""
        with self.registry.changing() as content:
            content.get(expert_id)
            self._tables.link(goal_id, expert_id)

    def unlink_expert(self, goal_id: int, expert_id: str) -> None:
        """End that an expert serves a goal; refused if it does not."""
        with self.registry.changing() as content:
            if not self._tables.unlink(goal_id, expert_id):
                content.get(expert_id)
                serving = ", ".join(self._tables.experts_of(goal_id))
                raise RegistryError(
                    f"expert {expert_id!r} does not serve goal {goal_id}. Its experts: {serving or 'none'}"
                )

    def list_for_expert(self, expert_id: str) -> list[Goal]:
        """The goals that an expert serves, inactive ones included."""
        check_expert_id(expert_id)
        self.registry.get(expert_id)
        return self._tables.goals_of(expert_id)

    def get_expert(self, goal_id: int) -> list[str]:
        """Ids of the experts that serve a goal."""
        return self._tables.experts_of(goal_id)

    def experts_by_goal(self) -> dict[int, list[str]]:
        """Ids of the experts of every goal that has one."""
        experts: dict[int, list[str]] = {}
        for expert_id, goals in sorted(self._tables.by_expert().items()):
            for goal in goals:
                experts.setdefault(goal.id, []).append(expert_id)
        return experts

    def active_experts(self) -> set[str]:
        """Ids of the experts that serve at least one active goal."""
        return set(self._tables.active_experts())

    def experts_for(self, goal_ids: Iterable[int]) -> set[str]:
        """Ids of the experts that serve at least one of these goals, which need not be active: they were named."""
        return {expert_id for goal_id in goal_ids for expert_id in self._tables.experts_of(goal_id)}
