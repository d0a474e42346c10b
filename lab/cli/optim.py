"""``lab optim``: the update rules that ``--optimizer`` can name."""

from __future__ import annotations

from dataclasses import asdict

from cyclopts import App

from lab.cli.console import show_list
from lab.cli.parameters import Json

app = App(name="optim", help="List the optimizers.")


@app.command(name="list")
def list_(*, json: Json = False) -> int:
    """All names for --optimizer, what each takes, and why some cannot be used."""
    from hrm_engine.optim.registry import list_rules

    rules = list_rules()
    content = [{**asdict(rule), "usable": not rule.refused} for rule in rules]
    rows = [
        (rule.name, rule.source, rule.description if not rule.refused else f"cannot be used: {rule.refused}")
        for rule in rules
    ]
    return show_list(content, ("name", "source", "remarks"), rows, json=json)
