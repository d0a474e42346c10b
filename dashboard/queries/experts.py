"""Experts and goals as tables: counts, filtered rows, and the tree of parents and children."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dashboard.queries.fields import finite, has_words, written
from hrm_engine.store.clock import parse_iso
from hrm_engine.store.goal_tables import Goal
from hrm_engine.store.goals import Goals
from hrm_engine.store.runs import printable

if TYPE_CHECKING:
    import pandas as pd

    from hrm_engine.store.expert_cards import ExpertCard

STATES = ("active", "inactive", "frozen", "attached")
"""States that a filter can require, all of them at once."""
_COLUMNS = (
    *("expert_id", "name", "category", "state", "parent_expert_id", "num_goals"),
    *("num_children", "last_trained", "total_activations", "avg_routing_weight", "has_weights"),
)


class ExpertTable:
    """The cards of one state of the registry."""

    def __init__(self, cards: Sequence[ExpertCard]) -> None:
        self._cards = cards

    def counts(self, attached: Collection[str]) -> Counter[str]:
        """Number of experts by state; ``attached`` are the ids of those that stand in a bundle."""
        return Counter(state for card in self._cards for state in states_of(card, card.expert_id in attached))

    def categories(self) -> list[str]:
        """The categories that experts have."""
        names = {printable(card.category.strip()) for card in self._cards} - {""}
        return sorted(names, key=lambda name: (name.lower(), name))

    def find(
        self, search: str = "", category: str = "", states: Sequence[str] = (), attached: Collection[str] = ()
    ) -> pd.DataFrame:
        """The experts that have every word of ``search`` somewhere, that category, and all of those ``STATES``.

        ``last_trained`` is in UTC.
        """
        rows = []
        for card in self._cards:
            row = _row(card, card.expert_id in attached)
            text = " ".join((card.expert_id, card.name, card.description, card.category))
            if has_words(text, search) and category in ("", row["category"]) and set(states) <= set(row["state"]):
                rows.append(row)
        return _frame(rows)

    def tree(self) -> pd.DataFrame:
        """Experts with a parent or children, each below its parent; the first has ``depth`` 0."""
        cards = {card.expert_id: card for card in self._cards}
        pending = [(card, 0) for card in self._cards if card.parent_expert_id is None and card.child_expert_ids][::-1]
        rows = []
        while pending:
            card, depth = pending.pop()
            rows.append({**_row(card, is_attached=False), "depth": depth})
            pending += [(cards[child], depth + 1) for child in reversed(card.child_expert_ids)]
        return _frame(rows)


def states_of(card: ExpertCard, is_attached: bool) -> list[str]:
    """States of an expert, as filters and tables name them."""
    return ["active" if card.is_active else "inactive", *["frozen"] * card.is_frozen, *["attached"] * is_attached]


def _row(card: ExpertCard, is_attached: bool) -> dict[str, Any]:
    return {
        "expert_id": card.expert_id,
        "name": printable(card.name),
        "category": printable(card.category.strip()),
        "state": states_of(card, is_attached),
        "parent_expert_id": card.parent_expert_id,
        "num_goals": len(card.goals),
        "num_children": len(card.child_expert_ids),
        "last_trained": parse_iso(card.last_trained or ""),
        "total_activations": card.total_activations,
        "avg_routing_weight": card.avg_routing_weight if card.total_activations else None,
        "has_weights": card.checkpoint_path is not None,
    }


def _frame(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:

    import pandas as pd

    frame = pd.DataFrame(rows, columns=[*_COLUMNS, "depth"])
    return frame.assign(last_trained=pd.to_datetime(frame["last_trained"].astype("float64"), unit="s"))


def card_fields(card: ExpertCard) -> pd.DataFrame:
    """Every field of a card as text: columns ``field`` and ``value``; what is nested by ``field.name``."""
    import pandas as pd

    leaves: list[tuple[str, Any]] = []
    for field, content in card.dump().items():
        inner = content if isinstance(content, dict) else {}
        leaves += [(f"{field}.{name}", value) for name, value in inner.items()] or [(field, content)]
    texts = ("" if value in (None, [], {}) else written(value, ", ") for _, value in leaves)
    lines = [(printable(name), printable(text)) for (name, _), text in zip(leaves, texts, strict=True)]
    return pd.DataFrame(lines, columns=["field", "value"], dtype="str")


def losses(card: ExpertCard) -> tuple[float | None, float | None]:
    """Held-out loss with and without the expert in nats per token, as its last training found them."""

    metrics: Mapping[str, Any] = card.performance_metrics
    return finite(metrics.get("loss_with")), finite(metrics.get("loss_without"))


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
