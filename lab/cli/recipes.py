"""``lab recipes``: what ``lab run`` can run by name."""

from __future__ import annotations

from typing import Annotated

from cyclopts import App, Parameter

from hrm_engine.store.paths import Workspace
from lab.cli.console import relative, say, show_json, show_list, show_table
from lab.cli.parameters import Json
from lab.runner.recipes import find_recipe, list_recipes

app = App(name="recipes", help="List and show recipes.")


@app.command(name="list")
def list_(*, json: Json = False) -> int:
    """All recipes that come with the lab."""
    workspace = Workspace.find()
    recipes = [find_recipe(name, workspace) for name in list_recipes()]
    names = ("name", "title", "description", "time", "hardware")
    content = [{name: getattr(item, name) for name in names} for item in recipes]
    columns = ("name", "time", "hardware", "what it does")
    rows = [(item.name, item.time, item.hardware, item.description) for item in recipes]
    return show_list(content, columns, rows, json=json)


@app.command
def show(
    name: Annotated[str, Parameter(help="Name of a recipe, or the path of a recipe file or notebook.")],
    /,
    *,
    json: Json = False,
) -> int:
    """One recipe: its notebook and its parameters with types and defaults."""
    from lab.runner.execute import plan_run

    workspace = Workspace.find()
    recipe = find_recipe(name, workspace)
    plan = plan_run(recipe, {})
    rules = {name: rule.text for name, rule in recipe.must_be.items()}
    rows = [
        (item.name, item.type_name, plan.parameters[item.name], rules.get(item.name, ""), item.comment)
        for item in plan.declared.values()
    ]
    if json:
        keys = ("name", "type", "default", "must_be", "comment")
        parameters = [dict(zip(keys, row, strict=True)) for row in rows]
        names = ("name", "title", "description", "time", "hardware", "notebook", "preset")
        show_json({**{name: getattr(recipe, name) for name in names}, "parameters": parameters})
        return 0
    say(f"{recipe.title}: {recipe.description}" if recipe.description else recipe.title, wrap=True)
    say(f"notebook: {relative(recipe.notebook, workspace)}\n")
    show_table(("parameter", "type", "default", "must be", ""), rows)
    say(f"\nlab run {recipe.name} -p name=value ...")
    return 0
