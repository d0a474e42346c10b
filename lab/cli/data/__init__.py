"""``lab data``: build and show what trainings read. Every command is imported when it is used."""

from __future__ import annotations

from cyclopts import App

app = App(name="data", help="Build text corpora and puzzle datasets, show puzzles.")
for name, text in (
    ("build-python-docs", "Build a text corpus; needs no network."),
    ("build-sudoku", "Build a Sudoku dataset."),
    ("build-maze", "Build a maze dataset."),
    ("build-arc", "Build an ARC dataset with augmentations."),
):
    app.command(f"lab.cli.data.build:{name.replace('-', '_')}", name=name, help=text)
app.command("lab.cli.data.show:show", name="show", help="Draw one row of a puzzle dataset.")
