"""What a parameter of a recipe must be beyond its type: a free name, a brain that exists, a file, a number in bounds.

A recipe declares it under ``must_be``, in the words that ``lab recipes show`` prints::

    must_be: {brain_name: name of a new run, dataset_file: existing file, num_seeds: at least 1}

The rules are checked before a kernel starts. They load no torch, and ``None`` fits every rule.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hrm_engine.bundles.core_config import read_core_config
from hrm_engine.bundles.listing import folder_problems
from hrm_engine.config import kinds
from hrm_engine.errors import BundleError, ConfigError
from hrm_engine.store.paths import Workspace
from hrm_engine.store.runs import find_run, free_folder

_BOUND = re.compile(r"at least (?P<low>\d+)|above (?P<over>\d+)|(?P<from>\d+) to (?P<to>\d+)")

_SHORT = 50

Check = Callable[[Any, Workspace, Path], None]


@dataclass(frozen=True)
class Rule:
    """One rule: its words, and the check of a value in a workspace where runs have a home folder."""

    text: str
    check: Check

    @classmethod
    def read(cls, text: Any) -> Rule:
        """The rule of these words. Raises ValueError, which names all rules."""
        if text in _RULES:
            return cls(text, _RULES[text])
        if isinstance(text, str) and (bound := _BOUND.fullmatch(text)):
            return cls(text, _bounded(bound))
        raise ValueError(f"{text!r} is no rule: use one of {', '.join(_RULES)}, at least 1, above 0, 0 to 5")


def _new_run(value: Any, workspace: Workspace, home: Path) -> None:
    free_folder(workspace.resolve(home), value, "name")


def _short_name(value: Any, workspace: Workspace, home: Path) -> None:
    if len(value) > _SHORT:
        raise ConfigError(f"use at most {_SHORT} characters, because other names begin with it")
    _new_run(value, workspace, home)


def _existing_file(value: Any, workspace: Workspace, home: Path) -> None:
    if not value.strip():
        raise ConfigError("name a file or folder")
    path = workspace.resolve(value)
    if not path.exists():
        below = "" if Path(value).is_absolute() else f"; a relative path begins at the workspace, {workspace.root}"
        raise ConfigError(f"{path} does not exist{below}")


def _deep_text_brain(value: Any, workspace: Workspace, home: Path) -> None:
    folder = find_run(value, workspace)
    if problems := folder_problems(folder):
        raise BundleError(f"{folder} cannot be loaded: {'; '.join(problems)}")
    if read_core_config(folder, kind=kinds.TEXT.name, error=BundleError).halt_max_steps < 2:
        raise BundleError(f"{folder} runs one segment at every token and has no depth to look at: name another brain")


def _bounded(bound: re.Match[str]) -> Check:
    low, over, first, last = (float("-inf" if text is None else text) for text in bound.groups())
    least, most = max(low, first), float("inf") if bound["to"] is None else last

    def check(value: Any, workspace: Workspace, home: Path) -> None:
        numbers = value if isinstance(value, list) else [value]
        if not numbers:
            raise ConfigError("name at least one number")
        if not all(least <= number <= most and number > over for number in numbers):
            raise ConfigError(f"use {bound[0]}")

    return check


_RULES: dict[str, Check] = {
    "name of a new run": _new_run,
    # for runs whose name begins the names of others
    f"name of a new run, at most {_SHORT} characters": _short_name,
    "existing file or folder": _existing_file,
    "text brain of several segments": _deep_text_brain,
}
