"""The expert registry as tables: counts, filtered rows, and the tree of parents and children."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dashboard.queries.fields import finite, has_words
from hrm_engine.store.clock import parse_iso
from hrm_engine.store.runs import printable

if TYPE_CHECKING:
    import pandas as pd

    from hrm_engine.store.expert_cards import ExpertCard

STATES = ("active", "inactive", "frozen", "attached")
"""States that a filter can require, all of them at once."""
_COLUMNS = (
    *("expert_id", "name", "category", "is_active", "is_frozen", "is_attached", "parent_expert_id", "num_goals"),
    *("num_children", "last_trained", "total_activations", "avg_routing_weight", "has_weights"),
)


@dataclass(frozen=True)
class Counts:
    """Numbers of experts. ``attached`` to at least one bundle."""

    total: int
    active: int
    frozen: int
    attached: int


class ExpertTable:
    """The cards of one state of the registry."""

    def __init__(self, cards: Sequence[ExpertCard]) -> None:
        self._cards = cards

    def counts(self, attached: Collection[str]) -> Counts:
        """Counts; ``attached`` are the ids of those that stand in a bundle."""
        states = [state for card in self._cards for state in _states(card, attached)]
        return Counts(len(self._cards), *(states.count(state) for state in ("active", "frozen", "attached")))

    def categories(self) -> list[str]:
        """The categories that experts have."""
        names = {card.category.strip() for card in self._cards} - {""}
        return sorted(names, key=lambda name: (name.lower(), name))

    def find(
        self, search: str = "", category: str = "", states: Sequence[str] = (), attached: Collection[str] = ()
    ) -> pd.DataFrame:
        """The experts that have every word of ``search`` somewhere, that category, and all of those ``STATES``.

        ``last_trained`` is in UTC.
        """
        rows = []
        for card in self._cards:
            own = _states(card, attached)
            text = " ".join((card.expert_id, card.name, card.description, card.category))
            if has_words(text, search) and category in ("", card.category.strip()) and own.issuperset(states):
                rows.append(_row(card, "attached" in own))
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


def _states(card: ExpertCard, attached: Collection[str]) -> set[str]:
    flags = {
        "active": card.is_active,
        "inactive": not card.is_active,
        "frozen": card.is_frozen,
        "attached": card.expert_id in attached,
    }
    return {state for state, holds in flags.items() if holds}


def _row(card: ExpertCard, is_attached: bool) -> dict[str, Any]:
    return {
        "expert_id": card.expert_id,
        "name": card.name,
        "category": card.category.strip(),
        "is_active": card.is_active,
        "is_frozen": card.is_frozen,
        "is_attached": is_attached,
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

    lines = [
        (printable(name), printable(_written(value)))
        for field, content in card.dump().items()
        for name, value in (_inner(field, content) if isinstance(content, dict) and content else [(field, content)])
    ]
    return pd.DataFrame(lines, columns=["field", "value"], dtype="str")


def losses(card: ExpertCard) -> tuple[float | None, float | None]:
    """Held-out loss with and without the expert in nats per token, as its last training found them."""
    metrics: Mapping[str, Any] = card.performance_metrics
    return finite(metrics.get("loss_with")), finite(metrics.get("loss_without"))


def _inner(field: str, content: Mapping[str, Any]) -> list[tuple[str, Any]]:
    return [(f"{field}.{name}", value) for name, value in content.items()]


def _written(value: Any) -> str:
    if value is None or value in ("", [], {}):
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return ", ".join(value)
    return json.dumps(value, ensure_ascii=False)
