"""Content of a registry in memory: the cards, and the rules that hold between them. No file is touched."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from hrm_engine.errors import NewerError, RegistryError
from hrm_engine.store.clock import now_iso
from hrm_engine.store.expert_cards import ExpertCard, GoalLink, Stored, check_expert_id, parse_entry, shown
from hrm_engine.store.files import json_bytes

REGISTRY_VERSION = 1

_IDS_SHOWN = 20
# What other functions keep in order, and the one that says so.
_KEPT_ELSEWHERE = {
    "expert_id": "an expert keeps its id",
    "goals": "goals are linked with 'lab goals link-expert'",
    "parent_expert_id": "parents are set with set_parent",
    "child_expert_ids": "parents are set with set_parent",
}


class _Top(Stored):
    """Fields of a registry beside the cards."""

    version: int = REGISTRY_VERSION
    created_at: str | None = None
    base_model: str | None = None


class RegistryContent:
    """The cards of a registry in memory, in the order of their addition; every change leaves them consistent.

    Changes reach the file only inside ``ExpertRegistry.changing``. Unknown experts raise RegistryError, with near
    matches; ids that none can have raise ConfigError.
    """

    def __init__(self, where: Path, top: _Top, cards: Sequence[ExpertCard]) -> None:
        self.where = where
        self._top = top
        self._cards = {card.expert_id: card for card in cards}
        self._list_children()

    @classmethod
    def empty(cls, where: Path) -> RegistryContent:
        """A registry without experts."""
        return cls(where, _Top(created_at=now_iso()), [])

    @classmethod
    def parse(cls, raw: Mapping[str, Any], where: Path) -> RegistryContent:
        """The content of a registry file; ``where`` is named in messages.

        Raises:
            RegistryError: from a newer version, or damaged: not the fields or types that are expected, an id twice,
                a parent that does not exist or is its own descendant.
        """
        _check_version(raw.get("version"), where)
        entries = raw.get("experts", [])
        if not isinstance(entries, list):
            raise RegistryError(f"{where}: experts: a list is expected, found {type(entries).__name__}")
        cards: dict[str, ExpertCard] = {}
        for position, entry in enumerate(entries):
            card = parse_entry(ExpertCard, entry, f"{where}: experts[{position}]")
            if card.expert_id in cards:
                raise RegistryError(f"{where}: experts[{position}]: expert {card.expert_id!r} stands there twice")
            cards[card.expert_id] = card
        checked: set[str] = set()
        for card in cards.values():
            checked.update(_check_ancestors(card, cards, str(where), checked))
        rest = {key: value for key, value in raw.items() if key not in ("version", "experts")}
        return cls(where, parse_entry(_Top, rest, str(where)), list(cards.values()))

    def to_json(self) -> bytes:
        """The content of the file: indented JSON in UTF-8."""
        return json_bytes({**self._top.model_dump(mode="json"), "experts": [card.dump() for card in self.cards]})

    def note_base_model(self, base_model: str) -> None:
        """Record what the experts are for, unless it stands there already."""
        self._top = self._top.model_copy(update={"base_model": self._top.base_model or base_model})

    @property
    def cards(self) -> list[ExpertCard]:
        """All cards, in the order of their addition."""
        return list(self._cards.values())

    def __contains__(self, expert_id: object) -> bool:
        return expert_id in self._cards

    def get(self, expert_id: str) -> ExpertCard:
        """The card of one expert."""
        if expert_id in self._cards:
            return self._cards[expert_id]
        check_expert_id(expert_id)
        near = difflib.get_close_matches(expert_id, self._cards, n=3, cutoff=0.5)
        known = ", ".join(list(self._cards)[:_IDS_SHOWN]) + (", ..." if len(self._cards) > _IDS_SHOWN else "")
        hint = f"Did you mean {', '.join(near)}?" if near else f"Experts: {known or 'none yet'}."
        raise RegistryError(f"no expert {expert_id!r} in {self.where}. {hint}")

    def add(self, card: ExpertCard) -> ExpertCard:
        """Add a card. Refused: an id that exists, a parent that does not, goals (they are linked later)."""
        if card.expert_id in self._cards:
            raise RegistryError(f"expert {card.expert_id!r} is in {self.where} already: choose another id")
        self._check_known(card.model_extra or {})
        if card.goals or card.child_expert_ids:
            field = "goals" if card.goals else "child_expert_ids"
            raise RegistryError(f"expert {card.expert_id!r} is new, its {field} must be empty: they are linked later")
        if card.parent_expert_id is not None:
            self.get(card.parent_expert_id)
        return self._put(card)

    def update(self, expert_id: str, /, **changes: Any) -> ExpertCard:
        """Change fields of a card; what has rules of its own (id, goals, parent) is refused."""
        card = self.get(expert_id)
        for name in changes:
            if name in _KEPT_ELSEWHERE:
                raise RegistryError(f"{name} of expert {expert_id!r} is not changed here: {_KEPT_ELSEWHERE[name]}")
        self._check_known({name: value for name, value in changes.items() if name not in ExpertCard.model_fields})
        return self._put(parse_entry(ExpertCard, {**card.dump(), **changes}, f"expert {expert_id!r}"))

    def set_parent(self, expert_id: str, parent_id: str | None) -> ExpertCard:
        """Hang an expert under another one, or under none. Refused if that would close a cycle."""
        card = self.get(expert_id)
        if parent_id is not None:
            self.get(parent_id)
        moved = card.model_copy(update={"parent_expert_id": parent_id})
        _check_ancestors(moved, {**self._cards, expert_id: moved}, f"expert {expert_id!r}")
        return self._put(moved)

    def remove(self, expert_id: str, *, reparent: bool = False) -> ExpertCard:
        """Take a card out. One with children is refused, or with ``reparent`` its parent becomes theirs."""
        card = self.get(expert_id)
        if card.child_expert_ids and not reparent:
            raise RegistryError(
                f"expert {expert_id!r} has children ({', '.join(card.child_expert_ids)}): give them another parent "
                "first, or delete it with --reparent, which hangs them under its own parent"
            )
        for child in card.child_expert_ids:
            self._cards[child] = self._cards[child].model_copy(update={"parent_expert_id": card.parent_expert_id})
        del self._cards[expert_id]
        self._list_children()
        return card

    def set_goals(self, goals: Mapping[str, Sequence[GoalLink]]) -> None:
        """Put in what the goals' database says of every expert; texts of old registries without an id stay."""
        for expert_id, card in self._cards.items():
            links = (*goals.get(expert_id, ()), *(goal for goal in card.goals if goal.id is None))
            if links != card.goals:
                self._cards[expert_id] = card.model_copy(update={"goals": links})

    def take_waiting_goals(self) -> list[tuple[str, str]]:
        """(expert id, text) of the goals that are in no database yet; they are taken off the cards."""
        waiting: list[tuple[str, str]] = []
        for expert_id, card in self._cards.items():
            texts = [goal.text for goal in card.goals if goal.id is None]
            if texts:
                kept = tuple(goal for goal in card.goals if goal.id is not None)
                self._cards[expert_id] = card.model_copy(update={"goals": kept})
                waiting += [(expert_id, text) for text in texts]
        return waiting

    def _put(self, card: ExpertCard) -> ExpertCard:
        self._cards[card.expert_id] = card
        self._list_children()
        return self._cards[card.expert_id]

    def _list_children(self) -> None:
        children: dict[str | None, list[str]] = {}
        for card in self._cards.values():
            children.setdefault(card.parent_expert_id, []).append(card.expert_id)
        for expert_id, card in self._cards.items():
            ids = tuple(children.get(expert_id, ()))
            if ids != card.child_expert_ids:
                self._cards[expert_id] = card.model_copy(update={"child_expert_ids": ids})

    def _check_known(self, fields: Mapping[str, Any]) -> None:
        for name in fields:
            near = difflib.get_close_matches(name, ExpertCard.model_fields, n=3)
            hint = f" Did you mean {', '.join(near)}?" if near else ""
            raise RegistryError(f"an expert card has no field {name!r}.{hint}")


def _check_ancestors(
    card: ExpertCard, cards: Mapping[str, ExpertCard], where: str, checked: Collection[str] = ()
) -> Collection[str]:
    """An expert and those above it, up to the first that was ``checked`` already."""
    line = {card.expert_id: None}
    current = card
    while (parent := current.parent_expert_id) is not None and current.expert_id not in checked:
        if parent in line:
            shown = " < ".join([*line, parent][-_IDS_SHOWN:])
            raise RegistryError(f"{where}: the parents form a cycle ({shown}): choose another parent")
        if parent not in cards:
            raise RegistryError(f"{where}: the parent {parent!r} of expert {current.expert_id!r} does not exist")
        line[parent] = None
        current = cards[parent]
    return line


def _check_version(recorded: object, where: Path) -> None:
    """Registries without a version, or with a text such as "1.0", are older than the first one of ours."""
    if recorded is None:
        return
    number = recorded.partition(".")[0] if isinstance(recorded, str) else recorded
    if isinstance(number, str) and number.isdecimal():
        number = int(number)
    if not isinstance(number, int) or isinstance(number, bool):
        raise RegistryError(f"{where}: version {shown(recorded)} is none: the file is damaged")
    if number > REGISTRY_VERSION:
        raise NewerError(
            f"{where} has version {recorded}, this version of HRM Lab reads up to {REGISTRY_VERSION}: "
            "it was written by a newer one; update HRM Lab to use it"
        )
