"""The expert registry as tables: counts, what a filter finds, and the tree of parents and children, asked with SQL.

What is asked is the registry's JSON as the store has read and checked it, so a damaged or newer registry never gets
here, and the page of an expert says the same as the table.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING, Any

from dashboard.queries.scan import finite
from hrm_engine.store.runs import printable

if TYPE_CHECKING:
    import pandas as pd

    from hrm_engine.store.expert_cards import ExpertCard

STATES = ("active", "inactive", "frozen", "attached")
"""What a filter can ask for; an expert must be all that is asked."""

_LOAD = """
CREATE TABLE experts AS
SELECT place, card ->> 'expert_id' AS expert_id, card ->> 'name' AS name, card ->> 'description' AS description,
       trim(card ->> 'category') AS category, (card ->> 'is_active')::BOOLEAN AS is_active,
       (card ->> 'is_frozen')::BOOLEAN AS is_frozen, card ->> 'parent_expert_id' AS parent_expert_id,
       json_array_length(card, '$.goals')::BIGINT AS num_goals,
       json_array_length(card, '$.child_expert_ids')::BIGINT AS num_children,
       try_cast(card ->> 'last_trained' AS TIMESTAMP) AS last_trained,
       try_cast(card ->> 'total_activations' AS DOUBLE) AS total_activations,
       CASE WHEN total_activations > 0 THEN try_cast(card ->> 'avg_routing_weight' AS DOUBLE) END AS avg_routing_weight,
       card ->> 'checkpoint_path' IS NOT NULL AS has_weights
FROM (SELECT unnest(cards) AS card, generate_subscripts(cards, 1) AS place
      FROM (SELECT ($text::JSON -> 'experts')::JSON[] AS cards))
"""
_COUNTS = """
SELECT count(*) AS total, count(*) FILTER (is_active) AS active, count(*) FILTER (is_frozen) AS frozen,
       count(*) FILTER (list_contains($attached, expert_id)) AS attached
FROM experts
"""
_CATEGORIES = "SELECT DISTINCT category FROM experts WHERE category <> '' ORDER BY lower(category), category"
_FIND = """
SELECT * EXCLUDE (place, description), list_contains($attached, expert_id) AS is_attached
FROM experts
WHERE len(list_filter($words, lambda word:
          NOT contains(lower(concat_ws(' ', expert_id, name, description, category)), word))) = 0
  AND ($category = '' OR category = $category)
  AND (is_active OR NOT list_contains($states, 'active'))
  AND (NOT is_active OR NOT list_contains($states, 'inactive'))
  AND (is_frozen OR NOT list_contains($states, 'frozen'))
  AND (list_contains($attached, expert_id) OR NOT list_contains($states, 'attached'))
ORDER BY place
"""
# Who hangs under nobody and has nobody below is no part of a tree. `way` sorts a child below its parent.
_TREE = """
WITH RECURSIVE tree AS (
    SELECT expert_id, 0 AS depth, [place] AS way FROM experts WHERE parent_expert_id IS NULL AND num_children > 0
    UNION ALL
    SELECT experts.expert_id, depth + 1, list_append(way, place)
    FROM experts JOIN tree ON experts.parent_expert_id = tree.expert_id)
SELECT expert_id, name, is_active, is_frozen, parent_expert_id, depth
FROM tree JOIN experts USING (expert_id) ORDER BY way
"""


@dataclass(frozen=True)
class Counts:
    """How many experts there are. ``attached`` to at least one bundle."""

    total: int
    active: int
    frozen: int
    attached: int


class ExpertTable:
    """The cards of one state of the registry, in a database of its own. Safe to share among threads."""

    def __init__(self, registry_json: bytes) -> None:
        """``registry_json`` is what ``RegistryContent.to_json`` gives."""
        import duckdb

        self._lock = Lock()
        self._database = duckdb.connect(config={"enable_external_access": False, "threads": 1})
        self._database.execute(_LOAD, {"text": registry_json.decode()})

    def counts(self, attached: Collection[str]) -> Counts:
        """Counts; ``attached`` are the ids of those that stand in a bundle."""
        row = self._ask(_COUNTS, attached=list(attached)).iloc[0]
        return Counts(*(int(row[name]) for name in ("total", "active", "frozen", "attached")))

    def categories(self) -> list[str]:
        """The categories that experts have."""
        return [str(name) for name in self._ask(_CATEGORIES)["category"]]

    def find(
        self, search: str = "", category: str = "", states: Sequence[str] = (), attached: Collection[str] = ()
    ) -> pd.DataFrame:
        """The experts that have every word of ``search`` somewhere, that category, and all of those ``STATES``.

        Columns: ``expert_id, name, category, is_active, is_frozen, is_attached, parent_expert_id, num_goals,
        num_children, last_trained`` (UTC), ``total_activations, avg_routing_weight, has_weights``.
        """
        words = search.lower().split()
        return self._ask(_FIND, words=words, category=category, states=list(states), attached=list(attached))

    def tree(self) -> pd.DataFrame:
        """Experts with a parent or children, each below its parent: ``expert_id, name, is_active, is_frozen,
        parent_expert_id, depth``."""
        return self._ask(_TREE)

    def _ask(self, sql: str, **parameters: object) -> pd.DataFrame:
        with self._lock:
            return self._database.execute(sql, parameters or None).df()


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
    found: Mapping[str, Any] = card.performance_metrics
    return finite(found.get("loss_with")), finite(found.get("loss_without"))


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
