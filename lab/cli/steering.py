"""Flags of ``lab generate`` and ``lab solve`` that draw tokens to the experts of goals, and the lines about them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Literal

from hrm_engine.config.writing import GoalsConfig
from hrm_engine.errors import ConfigError
from hrm_engine.store.paths import Workspace
from lab.cli.console import printable, say

if TYPE_CHECKING:
    from hrm_engine.bundles.bundle import Bundle, PuzzleBundle
    from hrm_engine.bundles.steering import ExpertUse


def steered(bundle: Bundle | PuzzleBundle, goals: GoalsConfig, workspace: Workspace) -> None:
    """Steer a loaded bundle as the flags say, and write warnings to stderr."""
    from hrm_engine.bundles.steering import steer

    notes = bundle.messages
    if goals.goal is not None:
        notes = steer(bundle, goals=_numbers(goals.goal), workspace=workspace, strength=goals.goal_bias_strength)
    for sentence in notes:
        say(f"warning: {sentence}", style="yellow", stderr=True)


def show_use(used: Sequence[ExpertUse], goals: GoalsConfig) -> None:
    """After ``--goal``: a line on stderr for each attached expert."""
    for one in used if goals.goal is not None else ():
        share = "no tokens yet" if one.token_share is None else f"{one.token_share:.1%} of the tokens"
        state = f"bias {one.bias:g}" if one.is_active else "inactive"
        say(f"expert {one.expert_id} in {one.layer}: {state}, {share}", style="dim", stderr=True)


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
