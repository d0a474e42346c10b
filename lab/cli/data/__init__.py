"""``lab data``: build and show what trainings read. Every command is imported when it is used."""

from __future__ import annotations

from cyclopts import App

app = App(name="data", help="Build text corpora and puzzle datasets, show puzzles.")
app.command(
    "lab.cli.data.text:build_python_docs", name="build-python-docs", help="Build a text corpus; needs no network."
)
app.command("lab.cli.data.sudoku:build_sudoku", name="build-sudoku", help="Build a Sudoku dataset.")
app.command("lab.cli.data.maze:build_maze", name="build-maze", help="Build a maze dataset.")
app.command("lab.cli.data.arc:build_arc", name="build-arc", help="Build an ARC dataset with augmentations.")
app.command("lab.cli.data.show:show", name="show", help="Draw one row of a puzzle dataset.")
