"""Goals, and the experts that serve them: what ``lab goals`` and goal-aware routing ask.

``artifacts/goals.sqlite`` is the truth. A change of a link is committed there first and then written to the cards of
the registry, both under the registry's lock; if the process dies in between, the next change of the registry makes up
for it.
"""

from __future__ import annotations

from itertools import count
from pathlib import Path

from hrm_engine.errors import NewerError, RegistryError, StorageError
from hrm_engine.store.expert_cards import check_expert_id
from hrm_engine.store.experts import ExpertRegistry
from hrm_engine.store.files import storing
from hrm_engine.store.goal_tables import Goal, GoalTables
from hrm_engine.store.paths import Workspace


class Goals(GoalTables):
    """The goals of one workspace, whose links are those of its registry.

    All methods raise RegistryError: a goal does not exist (those that do are listed), an expert does not exist (near
    matches are named), or database or registry are damaged or from a newer version; nothing is then overwritten.
    ConfigError: a text or id that is not acceptable. LockedError, StorageError: as their names say.
    """

    def __init__(self, workspace: Workspace) -> None:
        self.registry = ExpertRegistry(workspace)
        super().__init__(workspace.goals, self.registry.has_goals)

    def add(self, text: str, expert_id: str | None = None, *, unless_there: bool = False) -> Goal:
        """Add a goal as :class:`GoalTables` does; an expert that does not exist adds nothing."""
        if expert_id is None:
            return super().add(text, unless_there=unless_there)
        with self.registry.changing() as content:
            content.get(expert_id)
            return super().add(text, expert_id, unless_there=unless_there)

    def remove(self, goal_id: int) -> Goal:
        """Remove a goal and its links; returns what it was."""
        self.get(goal_id)
        with self.registry.changing():
            return super().remove(goal_id)

    def remove_like(self, pattern: str) -> list[Goal]:
        """Remove the goals whose text fits an SQL pattern ('%' any text, '_' one character); returns them."""
        with self.registry.changing():
            return super().remove_like(pattern)

    def link_expert(self, goal_id: int, expert_id: str) -> None:
        """Let an expert serve a goal; without effect if it does already."""
        with self.registry.changing() as content:
            content.get(expert_id)
            super().link_expert(goal_id, expert_id)

    def unlink_expert(self, goal_id: int, expert_id: str) -> None:
        """End that an expert serves a goal; refused if it does not."""
        with self.registry.changing() as content:
            if expert_id not in self.get_expert(goal_id):
                content.get(expert_id)
            super().unlink_expert(goal_id, expert_id)

    def list_for_expert(self, expert_id: str) -> list[Goal]:
        """The goals that an expert serves, inactive ones included."""
        check_expert_id(expert_id)
        self.registry.get(expert_id)
        return super().list_for_expert(expert_id)

    def restore(self) -> tuple[list[Goal], Path | None]:
        """Make a lost or damaged database again of the goals on the experts' cards; all of them are active then.

        Goals that no expert serves stand nowhere else. Returns the goals, and where the old file lies now, if there
        was one. Refused where the database can be read, or was written by a newer version.
        """
        with self.registry.holding() as content:
            try:
                self.list_goals()
            except NewerError:
                raise
            except (RegistryError, StorageError):
                pass
            else:
                raise RegistryError(f"{self.path} can be read: there is nothing to restore")
            links = [(goal, card.expert_id) for card in content.cards for goal in card.goals if goal.id is not None]
            if not links:
                raise RegistryError(f"no expert in {self.registry.path} has a goal of which {self.path} could be made")
            old = None
            with storing(self.path, doing="move aside"):
                for suffix in ("-journal", "-wal", "-shm", ""):
                    file = self.path.with_name(self.path.name + suffix)
                    if file.exists() or file.is_symlink():
                        free = (file.with_name(f"{file.name}.damaged{number or ''}") for number in count())
                        old = file.rename(next(path for path in free if not path.exists()))
            texts: dict[int, str] = {}
            for goal, _ in links:
                texts.setdefault(int(goal.id or 0), goal.text)
            fresh = GoalTables(self.path)
            fresh.fill(sorted(texts.items()), sorted({(int(goal.id or 0), expert) for goal, expert in links}))
            return fresh.list_goals(), old

    def experts_by_goal(self) -> dict[int, list[str]]:
        """Ids of the experts of every goal that has one."""
        experts: dict[int, list[str]] = {}
        for expert_id, goal_id, _ in self.links():
            experts.setdefault(goal_id, []).append(expert_id)
        return experts
