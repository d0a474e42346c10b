"""Goals and their experts as a table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dashboard.queries.fields import has_words
from hrm_engine.store.clock import parse_iso
from hrm_engine.store.goal_tables import Goal
from hrm_engine.store.goals import Goals

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class ServedGoal:
    """A goal, and the ids of the experts that serve it."""

    goal: Goal
    experts: tuple[str, ...]


def served_goals(goals: Goals) -> list[ServedGoal]:
    """All goals by id, inactive ones included. Raises RegistryError, LockedError, StorageError."""
    experts = goals.experts_by_goal()
    return [ServedGoal(goal, tuple(experts.get(goal.id, ()))) for goal in goals.list_goals(active_only=False)]


def matching(rows: list[ServedGoal], search: str) -> list[ServedGoal]:
    """Goals whose text or experts hold every word of ``search``."""
    return [served for served in rows if has_words(f"{served.goal.text} {' '.join(served.experts)}", search)]


def goal_frame(rows: list[ServedGoal]) -> pd.DataFrame:
    """One row a goal: ``id, text, state, experts, created`` (UTC)."""
    import pandas as pd

    created = [parse_iso(served.goal.created_ts) for served in rows]
    return pd.DataFrame(
        {
            "id": pd.Series([served.goal.id for served in rows], dtype="int64"),
            "text": pd.Series([served.goal.text for served in rows], dtype="str"),
            "state": [["active" if served.goal.active else "inactive"] for served in rows],
            "experts": [list(served.experts) for served in rows],
            "created": pd.to_datetime(pd.Series(created, dtype="float64"), unit="s", utc=True),
        }
    )
