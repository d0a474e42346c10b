"""Recipes: a notebook, its parameters, and a sentence that says what comes out.

title: Quickstart
description: Train a small brain on real text and look at it.
notebook: notebooks/quickstart.ipynb
preset: text-small            # optional: parameters that are settings of it are checked like flags; a parameter
                              # "preset" of the notebook takes its place, and None leaves a setting as the preset has it
parameters: {steps: 300}      # defaults, on top of the notebook's own
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from hrm_engine.config import TrainConfig, build_config, kinds, leaves, load_preset
from hrm_engine.config.base import field_problems
from hrm_engine.errors import ConfigError, NotebookError
from hrm_engine.reading import load_yaml
from hrm_engine.store.paths import Workspace, check_name

RECIPES = Path(__file__).parents[1] / "recipes"
_CODE = Path(__file__).parents[2]


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    title: str
    description: str
    notebook: str
    preset: str | None = None
    parameters: dict[str, Any] = {}


@dataclass(frozen=True)
class Recipe:
    """What is to be run: a notebook, and the values it gets before the user's own."""

    name: str
    notebook: Path
    title: str = ""
    description: str = ""
    preset: str | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)

    def check_settings(self, values: Mapping[str, Any]) -> None:
        """Check the values that are settings of the recipe's preset by their bounds, and that they fit together.

        Raises:
            NotebookError: a value is out of range, or some do not fit together.
        """
        if self.preset is None:
            return
        # The preset by name, or its file as the notebook's kernel resolves it, which runs beside the notebook.
        chosen: str | Path = str(values.get("preset", self.preset))
        if Path(chosen).suffix in {".yaml", ".yml"}:
            chosen = self.notebook.parent.absolute() / chosen
        try:
            model = _training_of(self.preset)
            known = leaves(model)
            settings = {name: value for name, value in values.items() if name in known and value is not None}
            # as of a preset: a notebook hands over all its parameters, also those that do nothing beside the others
            build_config(model, preset={**load_preset(chosen, model), **settings})
        except ConfigError as error:
            raise NotebookError(f"recipe {self.name}: {error}") from error


def _training_of(preset: str) -> type[TrainConfig]:
    """The training that a preset is for. Raises ConfigError."""
    recorded = load_preset(preset).get("kind")
    kind = kinds.named(recorded)
    if kind is None:
        raise ConfigError(
            f"preset {preset} is for no training of the lab (kind: {recorded!r}): begin it with a line such as "
            f"'kind: {kinds.TEXT.name}'; there are {', '.join(kinds.table())}"
        )
    return kind.config


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
        return Recipe(name or "notebook", notebook, title=notebook.stem)
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
    return Recipe(check_name(path.stem, "recipe"), notebook, file.title, file.description, file.preset, file.parameters)
