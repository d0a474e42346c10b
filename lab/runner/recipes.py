"""Recipes: a notebook, its parameters, and a sentence that says what comes out.

title: Quickstart
description: Train a small brain on real text and look at it.
time: 4 min                   # optional: how long it takes, and on what
hardware: 2 CPU cores
notebook: notebooks/quickstart.ipynb
preset: text-small            # optional: parameters that are settings of it are checked like flags; a parameter
                              # "preset" of the notebook takes its place, and None leaves a setting as the preset has it
parameters: {steps: 300}      # defaults, on top of the notebook's own
must_be: {brain_name: name of a new run}  # what parameters must be beyond their types (lab/runner/rules.py)
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, InstanceOf, ValidationError

from hrm_engine.config import build_config, kinds, leaves, load_preset
from hrm_engine.config.reasons import field_problems, shown
from hrm_engine.errors import ConfigError, HRMError, NotebookError
from hrm_engine.reading import load_yaml
from hrm_engine.store.paths import Workspace, check_name
from lab.runner.rules import Rule

RECIPES = Path(__file__).parents[1] / "recipes"
_CODE = Path(__file__).parents[2]


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    notebook: str
    title: str
    description: str
    time: str = ""
    hardware: str = ""
    preset: str | None = None
    parameters: dict[str, Any] = {}
    must_be: dict[str, Annotated[InstanceOf[Rule], BeforeValidator(Rule.read)]] = {}


@dataclass(frozen=True)
class Recipe:
    """A notebook with the values that it gets before the user's own, and the rules for values."""

    name: str
    notebook: Path
    workspace: Workspace
    title: str = ""
    description: str = ""
    time: str = ""
    hardware: str = ""
    preset: str | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)
    must_be: Mapping[str, Rule] = field(default_factory=dict)

    def check(self, values: Mapping[str, Any]) -> None:
        """Check the values of all parameters beyond their types: by the rules, then as settings of the preset.

        Raises:
            NotebookError: values break rules (each is named), a setting is out of range, some settings do not fit
                together, or a rule is for something that is no parameter of the notebook.
        """
        problems = []
        home = (kinds.TEXT if self.preset is None else _kind_of(self.preset)).home
        for name, rule in self.must_be.items():
            if name not in values:
                raise NotebookError(f"recipe {self.name}: must_be: {self.notebook.name} has no parameter {name!r}")
            if (value := values[name]) is not None:
                try:
                    rule.check(value, self.workspace, home)
                except HRMError as error:
                    problems.append(f"-p {name}={shown(value)}: {error}")
        if problems:
            raise NotebookError("; ".join(problems))
        if self.preset is not None:
            self._check_settings(self.preset, values)

    def _check_settings(self, preset: str, values: Mapping[str, Any]) -> None:
        # The preset by name, or its file as the notebook's kernel resolves it, which runs beside the notebook.
        chosen: str | Path = str(values.get("preset", preset))
        if Path(chosen).suffix in {".yaml", ".yml"}:
            chosen = self.notebook.parent.absolute() / chosen
        try:
            model = _kind_of(preset).config
            known = leaves(model)
            settings = {name: value for name, value in values.items() if name in known and value is not None}
            # as of a preset: a notebook hands over all its parameters, also those that do nothing beside the others
            build_config(model, preset={**load_preset(chosen, model), **settings})
        except ConfigError as error:
            raise NotebookError(f"recipe {self.name}: {error}") from error


def _kind_of(preset: str) -> kinds.Kind:
    """The training that a preset is for. Raises NotebookError."""
    try:
        recorded = load_preset(preset).get("kind")
    except ConfigError as error:
        raise NotebookError(str(error)) from error
    kind = kinds.named(recorded)
    if kind is None:
        raise NotebookError(
            f"preset {preset} is for no training of the lab (kind: {recorded!r}): begin it with a line such as "
            f"'kind: {kinds.TEXT.name}'; there are {', '.join(kinds.table())}"
        )
    return kind


def list_recipes() -> list[str]:
    """Names of the recipes that come with the lab."""
    return sorted(path.stem for path in RECIPES.glob("*.yaml"))


def find_recipe(name_or_path: str, workspace: Workspace) -> Recipe:
    """The recipe of that name, the recipe in that YAML file, or one made from that notebook.

    Raises:
        NotebookError: there is no such recipe, file or notebook, or its file is not right.
    """
    suffix = Path(name_or_path).suffix
    if suffix == ".ipynb":
        notebook = workspace.resolve(name_or_path)
        if not notebook.is_file():
            raise NotebookError(f"{notebook} does not exist")
        # as the beginning of a run id: characters that names do not have become '-'
        name = re.sub(r"[^A-Za-z0-9._-]", "-", notebook.stem).lstrip("._-")[:40]
        for shipped in list_recipes():
            with suppress(NotebookError):  # its notebook is missing
                recipe = load_recipe(RECIPES / f"{shipped}.yaml", workspace)
                if recipe.notebook.samefile(notebook):  # what parameters must be does not depend on how it is named
                    return replace(recipe, name=name)
        return Recipe(name or "notebook", notebook, workspace, title=notebook.stem)
    if suffix in {".yaml", ".yml"}:
        return load_recipe(workspace.resolve(name_or_path), workspace)
    if name_or_path not in list_recipes():
        near = difflib.get_close_matches(name_or_path, list_recipes(), n=3)
        hint = f"Did you mean {', '.join(near)}?" if near else f"Recipes: {', '.join(list_recipes())}."
        raise NotebookError(f"no recipe is called {name_or_path!a}. {hint} A notebook is run by its path (.ipynb).")
    return load_recipe(RECIPES / f"{name_or_path}.yaml", workspace)


def load_recipe(path: Path, workspace: Workspace) -> Recipe:
    """Read one recipe file; its notebook is looked for in the workspace, beside the file, then beside the lab's code.

    Raises:
        NotebookError: the file is missing, not plain YAML (tags that build objects are refused), has wrong keys, or
            names a notebook that does not exist.
    """
    try:
        file = _File.model_validate(load_yaml(path, NotebookError))
    except ValidationError as error:
        raise NotebookError(f"{path} is not a recipe: {field_problems(error)}") from error
    places = [workspace.resolve(file.notebook), path.parent / file.notebook, _CODE / file.notebook]
    notebook = next((place for place in places if place.is_file()), None)
    if notebook is None:
        raise NotebookError(f"{path}: the notebook {file.notebook} does not exist (looked for {places[0]})")
    facts = {name: value for name, value in file if name != "notebook"}
    return Recipe(check_name(path.stem, "recipe"), notebook, workspace, **facts)
