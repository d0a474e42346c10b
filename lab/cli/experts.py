"""``lab experts``: the cards of the expert registry and their life cycle."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, Parameter

from hrm_engine.errors import ConfigError
from hrm_engine.store.paths import Workspace
from lab.cli.console import confirmed, relative, say, show_done, show_facts, show_json, show_list
from lab.cli.parameters import Brain, Expert, Json, Yes, switch

if TYPE_CHECKING:
    from hrm_engine.store.expert_cards import ExpertCard
    from hrm_engine.store.experts import ExpertRegistry

app = App(name="experts", help="List, name, freeze, arrange, attach and delete experts.")

Layer = Annotated[
    str | None,
    Parameter(
        help="Such as H.1. Default: the layer that it was trained in, else the last high-level one; in detaching, the "
        "one it is in."
    ),
]
Name = Annotated[
    str | None, Parameter(help="Name of the new brain, beside the old one. Default: the old one's and the expert's.")
]


@app.command(name="list")
def list_(*, json: Json = False) -> int:
    """All experts of the workspace, with what they are for and whether they are active or frozen."""
    workspace = Workspace.find()
    cards = _registry(workspace).cards()
    columns = ("expert", "name", "category", "state", "goals", "parent", "children", "last trained", "activations")
    rows = [
        (
            card.expert_id,
            card.name or "-",
            card.category or "-",
            _state(card),
            ", ".join(goal.text if goal.id is None else str(goal.id) for goal in card.goals) or "-",
            card.parent_expert_id or "-",
            ", ".join(card.child_expert_ids) or "-",
            card.last_trained or "never",
            f"{card.total_activations:,}",
        )
        for card in cards
    ]
    place = relative(workspace.expert_registry, workspace)
    none = f"No experts in {place} yet; 'lab train actv1 --expert-id NAME' trains one."
    return show_list([card.dump() for card in cards], columns, rows, json=json, right=("activations",), if_none=none)


@app.command
def show(expert_id: Expert, /, *, json: Json = False) -> int:
    """One expert: its card, its goals, where its weights lie, and the brains it is attached to."""
    from hrm_engine.store.experts import attached_to

    workspace = Workspace.find()
    card = _registry(workspace).get(expert_id)
    content = {**card.dump(), "attached_to": [relative(path, workspace) for path in attached_to(expert_id, workspace)]}
    if json:
        show_json(content)
        return 0
    goals = [(f"goal {goal.id}" if goal.id is not None else "goal", goal.text) for goal in card.goals]
    show_facts([*((name, _shown(value)) for name, value in content.items() if name != "goals"), *goals])
    return 0


def _changing(text: str, changes: dict[str, bool]) -> Callable[..., int]:
    def change(expert_id: Expert, /, *, json: Json = False) -> int:
        return _show_changed(_registry(Workspace.find()).update(expert_id, **changes), json=json)

    change.__doc__ = text
    return change


for _verb, _text, _changes in (
    ("freeze", "Keep an expert as it is: no gradient, no weight decay, no further training.", {"is_frozen": True}),
    ("unfreeze", "Let a frozen expert be trained again.", {"is_frozen": False}),
    ("activate", "Let tokens be routed to an expert again.", {"is_active": True}),
    ("deactivate", "Mask an expert from routing; its card and weights stay.", {"is_active": False}),
):
    app.command(_changing(_text, _changes), name=_verb)


Words = Annotated[str | None, Parameter(allow_leading_hyphen=True, show_default=False)]


@app.command(name="set")
def set_(
    expert_id: Expert,
    /,
    *,
    name: Annotated[Words, Parameter(help="What it is called.")] = None,
    description: Annotated[Words, Parameter(help="What it is good at.")] = None,
    category: Annotated[Words, Parameter(help="A word for experts of a kind.")] = None,
    json: Json = False,
) -> int:
    """Change what an expert is called and described by; an empty text takes one away."""
    from hrm_engine.store.goal_tables import check_goal_text

    given = {"name": name, "description": description, "category": category}
    changes = {
        field: " ".join(check_goal_text(text, f"--{field}").split()) if text.strip() else ""
        for field, text in given.items()
        if text is not None
    }
    if not changes:
        raise ConfigError("nothing to change: give --name, --description or --category")
    card = _registry(Workspace.find()).update(expert_id, **changes)
    now = ", ".join(f"{field} {text!r}" if text else f"no {field}" for field, text in changes.items())
    return show_done(f"Expert {expert_id} has {now}.", card.dump(), json=json)


@app.command
def set_parent(
    expert_id: Expert,
    parent: Annotated[str | None, Parameter(name="PARENT", help="Id of the expert that becomes its parent.")] = None,
    /,
    *,
    root: Annotated[bool, switch("No parent.")] = False,
    json: Json = False,
) -> int:
    """Give an expert a parent, or with --root none; a cycle is refused."""
    if (parent is None) != root:
        raise ConfigError("name either the parent's id or --root")
    return _show_changed(_registry(Workspace.find()).set_parent(expert_id, parent), json=json)


@app.command
def delete(
    expert_id: Expert,
    /,
    *,
    reparent: Annotated[bool, switch("Give its children its own parent.")] = False,
    yes: Yes = False,
) -> int:
    """Delete an expert: its card, its links to goals and its folder. One that is attached to a brain is kept."""
    workspace = Workspace.find()
    registry = _registry(workspace)
    registry.get(expert_id)
    folder = relative(registry.folder(expert_id), workspace)
    if not confirmed(f"Delete expert {expert_id} and everything in {folder}?", yes=yes):
        say("Nothing was deleted.")
        return 0
    registry.delete(expert_id, reparent=reparent)
    say(f"Deleted expert {expert_id} and its folder {folder}.")
    return 0


@app.command
def attach(
    expert_id: Expert,
    /,
    *,
    bundle: Brain,
    layer: Layer = None,
    name: Name = None,
    allow_other_base: Annotated[bool, switch("Also where it was trained on another brain.")] = False,
    json: Json = False,
) -> int:
    """Make a new brain in which the expert is one more expert of a layer; the brain it is made of stays as it is."""
    from hrm_engine.bundles.experts import attach_expert

    workspace = Workspace.find()
    folder = attach_expert(
        expert_id, bundle, layer=layer, name=name, allow_other_base=allow_other_base, workspace=workspace
    )
    return _show_made(folder, f"Expert {expert_id} is attached in", workspace, json=json)


@app.command
def detach(expert_id: Expert, /, *, bundle: Brain, layer: Layer = None, name: Name = None, json: Json = False) -> int:
    """Make a new brain without an expert that is attached; the brain it is made of stays as it is."""
    from hrm_engine.bundles.experts import detach_expert

    workspace = Workspace.find()
    folder = detach_expert(expert_id, bundle, layer=layer, name=name, workspace=workspace)
    return _show_made(folder, f"Without expert {expert_id}:", workspace, json=json)


@app.command
def export(
    expert_id: Expert,
    folder: Annotated[Path, Parameter(name="FOLDER", help="Folder to make; one that exists is refused.")],
    /,
) -> int:
    """Copy the weights of an expert and their metadata to a new folder."""
    workspace = Workspace.find()
    target = _registry(workspace).export(expert_id, folder)
    say(f"Copied expert {expert_id} to {relative(target, workspace)}.")
    return 0


def _registry(workspace: Workspace) -> ExpertRegistry:
    from hrm_engine.store.experts import ExpertRegistry

    return ExpertRegistry(workspace)


def _show_made(folder: Path, words: str, workspace: Workspace, *, json: bool) -> int:
    from hrm_engine.bundles.core_config import attached_experts

    attached = attached_experts(folder)
    names = ", ".join(f"{entry.expert_id} (layer {entry.layer}, column {entry.column})" for entry in attached)
    return show_done(
        f"{words} {relative(folder, workspace)}. Attached there: {names or 'none'}.",
        {"path": str(folder), "name": folder.name, "experts": [asdict(entry) for entry in attached]},
        json=json,
    )


def _show_changed(card: ExpertCard, *, json: bool) -> int:
    parent = f", parent {card.parent_expert_id}" if card.parent_expert_id else ""
    return show_done(f"Expert {card.expert_id} is {_state(card)}{parent}.", card.dump(), json=json)


def _state(card: ExpertCard) -> str:
    return ("active" if card.is_active else "inactive") + (", frozen" if card.is_frozen else "")


def _shown(value: Any) -> str:
    if value is None or value in ("", [], {}):
        return "-"
    if isinstance(value, dict):
        return ", ".join(f"{name} {inner}" for name, inner in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
