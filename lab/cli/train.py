"""``lab train``: start or resume a training and show how it goes."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, Group, Parameter

from hrm_engine.config import TrainConfig, build_config, kinds, load_preset
from hrm_engine.config.kinds import Kind
from hrm_engine.config.training import Beginning
from hrm_engine.store.paths import Workspace
from lab.cli.flags import SELF, Common, config_flags
from lab.cli.output import outlived_output
from lab.cli.parameters import HELP_ALL, WITH_ALL_FLAGS

COMMON = Common(
    Group("Common", help="What most trainings need.", sort_key=0),
    frozenset((
        "dataset_file", "data_path", "brain_name", "run_name", "resume", "arch", "hidden_size", "max_seq_len",
        "halt_max_steps", "steps", "max_minutes", "batch_size", "lr", "seed", "device",
    )),
)  # fmt: skip
START = Group("Run", help="Whether a run begins, goes on or is forked.", sort_key=1)

# Titles of the configurations' groups, in the order of the help page.
TITLES = {
    "data": "Data",
    "run": "Length, batch and folders",
    "optim": "Optimizer",
    "network": "Network",
    "moe": "Experts",
    "depth": "Adaptive depth",
    "objective": "Objective",
    "start": "Initial weights",
    "evaluation": "Evaluation",
    "compute": "Device and precision",
}

Preset = Annotated[
    str | None, Parameter(group=COMMON.group, help="Preset or YAML file to start from; flags go on top.")
]


def titles(model: type[TrainConfig]) -> dict[str, str]:
    """Titles of a configuration's groups; one that is not known by a title of its own has its name."""
    others = {name: name.replace("_", " ").capitalize() for name in model.model_fields if name not in TITLES}
    return {**TITLES, **others}


def app_of_kinds(name: str, text: str, command_of: Callable[[Kind], Callable[..., int]]) -> App:
    """An app with a command for each kind of training, in the order of the table.

    It is made when it is asked for, so that kinds that have been registered since this module was imported are in it.
    """
    app = App(name=name, help=text)
    for kind in kinds.commands():
        _add(app, kind.name, f"lab {name} {kind.name}", kind, command_of)
    return app


def add_training(app: App, name: str, words: str, kind: Kind) -> None:
    """Give ``app`` the command that trains a kind; ``words`` are what one types for it."""
    _add(app, name, words, kind, _command)


def _add(app: App, name: str, words: str, kind: Kind, command_of: Callable[[Kind], Callable[..., int]]) -> None:
    command = config_flags(kind.config, titles(kind.config), common=COMMON)(command_of(kind))
    more = "" if WITH_ALL_FLAGS.get() else f"'{words} {HELP_ALL}' shows all flags."
    app.command(command, name=name, help_epilogue=more, help_flags=("--help", "-h", HELP_ALL))


def _command(kind: Kind) -> Callable[..., int]:
    @config_flags(Beginning, {SELF: START}, common=COMMON)
    def train(settings: Beginning, *, config: Preset = None, **given: Any) -> int:
        workspace, model = Workspace.find(), kinds.chosen(kind, given).config
        preset = preset_of(config, model, workspace)
        if not settings.has_saved_settings:
            build_config(model, preset=preset, overrides=given, typed=True)  # a wrong setting should not wait for torch

        from hrm_engine.training import Trainer, drive, settle
        from lab.cli.train_view import train_view

        settled = settle(model, given, settings, workspace, preset=preset)
        with outlived_output():
            with train_view(workspace) as view:
                result = drive(Trainer(settled, settings, command_line=sys.argv, workspace=workspace, observer=view))
            view.finish(result)
        return result.exit_code

    train.__doc__ = kind.about
    return train


def preset_of(name_or_file: str | None, model: type[TrainConfig], workspace: Workspace) -> dict[str, Any]:
    """The preset of a command line; files are taken from the workspace root, like every path there."""
    if name_or_file is None:
        return {}
    is_file = Path(name_or_file).suffix in {".yaml", ".yml"}
    return load_preset(workspace.resolve(name_or_file) if is_file else name_or_file, model)


def __getattr__(name: str) -> App:
    if name != "app":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return app_of_kinds("train", "Train a brain or a puzzle solver.", _command)
