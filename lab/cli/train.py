"""``lab train``: start or resume a training and show how it goes."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, NamedTuple, TypeVar

from cyclopts import App, Group, Parameter

from hrm_engine.config import TrainConfig, build_config, kinds, leaves, load_preset
from hrm_engine.config.kinds import Kind
from hrm_engine.store.paths import Workspace
from lab.cli.flags import config_flags

app = App(name="train", help="Train a brain or a puzzle solver.")

C = TypeVar("C", bound=TrainConfig)

_ABSENT = object()

_START = Group("Run", help="Which configuration, and whether a run begins, goes on or is forked.", sort_key=1)

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

Preset = Annotated[str | None, Parameter(group=_START, help="Preset or YAML file to start from; flags go on top.")]
Resume = Annotated[
    bool, Parameter(group=_START, negative="", show_default=False, help="Go on with the run of that name.")
]
Fresh = Annotated[
    bool,
    Parameter(
        group=_START,
        negative="",
        show_default=False,
        help="Begin anew: an existing run of that name moves to .archive.",
    ),
]
FromCheckpoint = Annotated[
    Path | None,
    Parameter(
        group=_START,
        help="Fork: begin with the state of this checkpoint, or of the newest one of a run (folder or name), and with "
        "its settings; flags go on top.",
    ),
]
ExtendSchedule = Annotated[
    bool,
    Parameter(
        group=_START,
        negative="",
        show_default=False,
        help="With --resume and more --steps: recompute the learning rate over all of them.",
    ),
]
AllowChangedData = Annotated[
    bool,
    Parameter(group=_START, negative="", show_default=False, help="With --resume: accept a dataset that has changed."),
]


def titles(model: type[TrainConfig]) -> dict[str, str]:
    """Titles of a configuration's groups; one that is not known by a title of its own has its name."""
    others = {name: name.replace("_", " ").capitalize() for name in model.model_fields if name not in TITLES}
    return {**TITLES, **others}


def add_commands(app: App, command_of: Callable[[Kind], Callable[..., int]]) -> None:
    """Give an app a command for each kind of training, in the order of the table."""
    for kind in kinds.commands():
        app.command(config_flags(kind.config, titles(kind.config))(command_of(kind)), name=kind.name)


def _command(kind: Kind) -> Callable[..., int]:
    def train(
        *,
        config: Preset = None,
        resume: Resume = False,
        fresh: Fresh = False,
        from_checkpoint: FromCheckpoint = None,
        extend_schedule: ExtendSchedule = False,
        allow_changed_data: AllowChangedData = False,
        **given: Any,
    ) -> int:
        how = _How(resume, fresh, from_checkpoint, extend_schedule, allow_changed_data)
        return _train(kinds.chosen(kind, given).config, config, how, given)

    train.__doc__ = kind.about
    return train


class _How(NamedTuple):
    """Flags that are no settings; fields are keywords of ``hrm_engine.training.train``."""

    resume: bool
    fresh: bool
    from_checkpoint: Path | None
    extend_schedule: bool
    allow_changed_data: bool


def _train(kind: type[C], preset_name: str | None, how: _How, given: dict[str, Any]) -> int:
    workspace = Workspace.find()
    preset = {} if preset_name is None else load_preset(preset_place(preset_name, workspace), kind)
    if how.resume or how.from_checkpoint is not None:
        given = {**_leaf_values(kind, preset), **given}
        settings = _saved_settings(kind, how, given, workspace)
    else:
        settings = build_config(kind, preset=preset, overrides=given)

    # Only now: a wrong setting should not wait for torch.
    from hrm_engine.training import train
    from lab.cli.train_view import train_view

    with train_view(workspace) as view:
        result = train(
            settings, **how._asdict(), given=given, command_line=sys.argv, workspace=workspace, observer=view
        )
    view.finish(result)
    return result.exit_code


def _saved_settings(kind: type[C], how: _How, given: dict[str, Any], workspace: Workspace) -> C:
    """The saved settings of the run or checkpoint that is named, with what may change; needs no --dataset-file."""
    from hrm_engine.training import Beginning, forked_config, resumed_config

    Beginning(**how._asdict())
    if how.from_checkpoint is not None:
        return forked_config(kind, given, how.from_checkpoint, workspace=workspace)
    name_leaf = kinds.of(kind).run.name_leaf
    place = {name: given[name] for name in (name_leaf, "bundle_dir") if given.get(name) is not None}
    saved = resumed_config(
        kind, given, name=place.get(name_leaf), bundle_dir=place.get("bundle_dir"), workspace=workspace
    )
    return build_config(kind, preset=saved.model_dump(mode="json"), overrides=place)


def _leaf_values(kind: type[TrainConfig], preset: Mapping[str, Any]) -> dict[str, Any]:
    """What a preset says, by leaf name."""
    values: dict[str, Any] = {}
    for leaf in leaves(kind).values():
        branch: Any = preset
        for part in leaf.path:
            branch = branch.get(part, _ABSENT) if isinstance(branch, Mapping) else _ABSENT
        if branch is not _ABSENT:
            values[leaf.name] = branch
    return values


def preset_place(name_or_file: str, workspace: Workspace) -> str | Path:
    """Files are taken from the workspace root, like every path on the command line."""
    if Path(name_or_file).suffix in {".yaml", ".yml"}:
        return workspace.resolve(name_or_file)
    return name_or_file


add_commands(app, _command)
