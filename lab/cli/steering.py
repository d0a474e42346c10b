"""Flags of ``lab generate`` and ``lab solve`` that draw tokens to the experts of goals, and what is told of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Group, Parameter

from hrm_engine.errors import ConfigError
from hrm_engine.store.paths import Workspace
from lab.cli.console import console, printable

if TYPE_CHECKING:
    from hrm_engine.bundles import Bundle, PuzzleBundle
    from hrm_engine.bundles.steering import ExpertUse

_GOALS = Group("Goals", sort_key=3)

Goal = Annotated[
    str | None,
    Parameter(
        group=_GOALS,
        help="Send more tokens to the attached experts that serve these goals: numbers such as 3,5, or 'active'.",
    ),
]
Strength = Annotated[
    float | None,
    Parameter(group=_GOALS, help="What --goal adds to the scores of these experts, 0 (nothing) to 5. Default: 1."),
]


def steered(bundle: Bundle | PuzzleBundle, goal: str | None, strength: float | None, workspace: Workspace) -> None:
    """Steer a loaded bundle as the flags say, and tell on stderr what a user should know."""
    from hrm_engine.bundles.experts import steer

    if goal is None:
        if strength is not None:
            raise ConfigError("--goal-bias-strength goes with --goal: name the goals, or 'active'")
        told = bundle.messages
    else:
        how = {} if strength is None else {"strength": strength}
        told = steer(bundle, goals=_numbers(goal), workspace=workspace, **how)
    for sentence in told:
        console(stderr=True).print(f"warning: {printable(sentence)}", style="yellow")


def show_use(used: Sequence[ExpertUse], goal: str | None) -> None:
    """After ``--goal``: a line on stderr for each attached expert."""
    for one in used if goal is not None else ():
        share = "no tokens yet" if one.token_share is None else f"{one.token_share:.1%} of the tokens"
        state = f"bias {one.bias:g}" if one.is_active else "inactive"
        console(stderr=True).print(f"expert {one.expert_id} in {one.layer}: {state}, {share}", style="dim")


def use_json(used: Sequence[ExpertUse]) -> dict[str, Any]:
    """The same for ``--json``; nothing for a bundle without attached experts."""
    return {"experts": [asdict(one) for one in used]} if used else {}


def _numbers(goal: str) -> list[int] | Literal["active"]:
    if goal.strip() == "active":
        return "active"
    words = [word.strip() for word in goal.split(",")]
    if not all(word.isascii() and word.isdecimal() and len(word) < 20 for word in words):
        raise ConfigError(f"--goal {printable(goal)}: give numbers of goals such as 3 or 3,5, or 'active'")
    return [int(word) for word in words]
