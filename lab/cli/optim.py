"""``lab optim``: the update rules that ``--optimizer`` can name."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

from cyclopts import App, Parameter

from lab.cli.console import show_json, show_table

app = App(name="optim", help="List the optimizers.")


@app.command(name="list")
def list_(
    *, json: Annotated[bool, Parameter(negative="", show_default=False, help="Write JSON instead.")] = False
) -> int:
    """All names for --optimizer, what each takes, and why some cannot be used."""
    from hrm_engine.optim import list_rules

    rules = list_rules()
    if json:
        show_json([{**asdict(rule), "usable": not rule.refused} for rule in rules])
        return 0
    rows = [
        (rule.name, rule.source, rule.description if not rule.refused else f"cannot be used: {rule.refused}")
        for rule in rules
    ]
    show_table(("name", "source", "remarks"), rows)
    return 0
