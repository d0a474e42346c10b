"""``aios``: the command words of the five documents, for the same functions as those of ``lab``."""

from __future__ import annotations

from collections.abc import Sequence

from cyclopts import App

from hrm_engine.config import kinds
from lab.cli.app import new_app, run_app
from lab.cli.goals import app as goals
from lab.cli.train import add_training


def build_app() -> App:
    """The root command. Others of the documents' words follow with what they need."""
    app = new_app("aios", "The commands that the documents call by it; everything else is 'lab' ('lab --help').")
    training = App(name="hrm-hf", help="Core training.")
    add_training(training, "train-actv1", "aios hrm-hf train-actv1", kinds.TEXT)
    app.command(training)
    for word in goals:
        if not word.startswith("-"):
            app.command(goals[word], name=f"goals-{word}")
    return app


def main(tokens: Sequence[str] | None = None) -> int:
    """Run an ``aios`` command line (by default the process's own) and return the exit code."""
    return run_app(build_app, tokens)


if __name__ == "__main__":
    raise SystemExit(main())
