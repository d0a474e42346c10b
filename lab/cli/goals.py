"""``lab goals``: goals, and the experts that serve them; ``aios goals-...`` runs the same commands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

from cyclopts import App, Parameter

from hrm_engine.store.paths import Workspace
from lab.cli.console import confirmed, relative, say, show_done, show_list
from lab.cli.parameters import Expert, Json, Yes, switch

if TYPE_CHECKING:
    from hrm_engine.store.goal_tables import Goal
    from hrm_engine.store.goals import Goals

app = App(name="goals", help="Goals, and the experts that serve them.")

GoalId = Annotated[int, Parameter(name="ID", help="Number of the goal, as 'lab goals list' shows it.")]


@app.command
def add(
    text: Annotated[str, Parameter(name="TEXT", help="What is wanted.")],
    /,
    *,
    expert_id: Annotated[str | None, Parameter(help="Expert that serves the goal from the start.")] = None,
    json: Json = False,
) -> int:
    """Add an active goal, and link an expert to it if one is named."""
    goal = _goals().add(text, expert_id=expert_id)
    served = f", served by expert {expert_id}" if expert_id else ""
    content = {**asdict(goal), "experts": [expert_id] if expert_id else []}
    return show_done(f"Goal {goal.id} is added{served}: {goal.text}", content, json=json)


@app.command(name="list")
def list_(*, all: Annotated[bool, switch("Inactive goals too.")] = False, json: Json = False) -> int:
    """The active goals, with the experts that serve them."""
    goals = _goals()
    shown = goals.list_goals(active_only=not all)
    none = "No goals yet; 'lab goals add TEXT' adds one."
    if not shown and not all and goals.list_goals(active_only=False):
        none = "No active goals; 'lab goals list --all' shows the others, 'lab goals activate ID' activates one."
    return _show(goals, shown, none, json=json)


@app.command
def activate(goal_id: GoalId, /, *, json: Json = False) -> int:
    """Let a goal steer routing again."""
    goal = _goals().set_active(goal_id, True)
    return show_done(f"Goal {goal.id} is active: {goal.text}", asdict(goal), json=json)


@app.command
def deactivate(goal_id: GoalId, /, *, json: Json = False) -> int:
    """Keep a goal and its links, but let it steer nothing."""
    goal = _goals().set_active(goal_id, False)
    return show_done(f"Goal {goal.id} is inactive: {goal.text}", asdict(goal), json=json)


@app.command
def remove(goal_id: GoalId, /, *, yes: Yes = False) -> int:
    """Remove a goal and its links to experts."""
    goals = _goals()
    goal = goals.get(goal_id)
    if not confirmed(f"Remove goal {goal.id} ({goal.text})?", yes=yes):
        say("Nothing was removed.")
        return 0
    goals.remove(goal_id)
    say(f"Removed goal {goal.id}: {goal.text}")
    return 0


@app.command
def remove_like(
    pattern: Annotated[
        str,
        Parameter(name="PATTERN", help="Whole text of the goals; '%' stands for any text, '_' for one character."),
    ],
    /,
    *,
    yes: Yes = False,
) -> int:
    """Remove all goals whose text fits a pattern, such as '%summar%'; case is ignored."""
    goals = _goals()
    matching = goals.matching(pattern)
    if not matching:
        say(f"No goal fits {pattern!r}.")
        return 0
    listed = ", ".join(f"{goal.id} ({goal.text})" for goal in matching)
    if not confirmed(f"Remove {_count(matching)}: {listed}?", yes=yes):
        say("Nothing was removed.")
        return 0
    removed = goals.remove_like(pattern)
    say(f"{_count(removed)} removed: {', '.join(str(goal.id) for goal in removed)}")
    return 0


@app.command
def restore(*, json: Json = False) -> int:
    """Rebuild a lost or damaged database of goals from the experts' cards."""
    goals, workspace = _goals(), Workspace.find()
    made, old = goals.restore()
    kept = f"; the damaged file is {relative(old, workspace)} now" if old is not None else ""
    place = relative(goals.path, workspace)
    text = f"{_count(made)} restored, all of them active, in {place}{kept}. Goals that no expert serves are lost."
    return show_done(text, [asdict(goal) for goal in made], json=json)


@app.command
def link_expert(goal_id: GoalId, expert_id: Expert, /) -> int:
    """Let an expert serve a goal."""
    _goals().link_expert(goal_id, expert_id)
    say(f"Expert {expert_id} serves goal {goal_id}.")
    return 0


@app.command
def unlink_expert(goal_id: GoalId, expert_id: Expert, /) -> int:
    """Unlink an expert from a goal."""
    _goals().unlink_expert(goal_id, expert_id)
    say(f"Expert {expert_id} no longer serves goal {goal_id}.")
    return 0


@app.command
def list_for_expert(expert_id: Expert, /, *, json: Json = False) -> int:
    """The goals that an expert serves, inactive ones included."""
    goals = _goals()
    return _show(goals, goals.list_for_expert(expert_id), f"Expert {expert_id} serves no goal.", json=json)


@app.command
def get_expert(goal_id: GoalId, /, *, json: Json = False) -> int:
    """The experts that serve a goal."""
    goals = _goals()
    experts, cards = goals.get_expert(goal_id), goals.registry.read()
    rows = [(name, (cards.get(name).name if name in cards else "not in the registry") or "-") for name in experts]
    none = f"No expert serves goal {goal_id}; 'lab goals link-expert {goal_id} EXPERT' links one."
    return show_list(experts, ("expert", "name"), rows, json=json, if_none=none)


def _goals() -> Goals:
    from hrm_engine.store.goals import Goals

    return Goals(Workspace.find())


def _show(goals: Goals, chosen: Sequence[Goal], if_none: str, *, json: bool) -> int:
    experts = goals.experts_by_goal()
    rows = [
        (goal.id, "yes" if goal.active else "no", ", ".join(experts.get(goal.id, [])) or "-", goal.text)
        for goal in chosen
    ]
    content = [{**asdict(goal), "experts": experts.get(goal.id, [])} for goal in chosen]
    return show_list(content, ("id", "active", "experts", "goal"), rows, json=json, right=("id",), if_none=if_none)


def _count(goals: Sequence[Goal]) -> str:
    return f"{len(goals)} goal{'' if len(goals) == 1 else 's'}"
