"""``lab train``: start or resume a training and show how it goes."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, NamedTuple, TypeVar

from cyclopts import App, Group, Parameter

from hrm_engine.config import (
    ExpertTrainConfig,
    PuzzleTrainConfig,
    TextTrainConfig,
    TrainConfig,
    build_config,
    leaves,
    load_preset,
)
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


@app.command(name="actv1")
@config_flags(TextTrainConfig, TITLES)
def actv1(
    *,
    config: Preset = None,
    resume: Resume = False,
    fresh: Fresh = False,
    from_checkpoint: FromCheckpoint = None,
    extend_schedule: ExtendSchedule = False,
    allow_changed_data: AllowChangedData = False,
    **given: Any,
) -> int:
    """Train a causal text model that thinks in segments (ACTv1).

    --dataset-file FILE or --config text-small is all it needs; flags go on top of
    a preset, and the value "none" takes back what the preset says. It leaves a
    run folder, artifacts/brains/actv1/NAME, that every other command can use.
    """
    kind = TextTrainConfig if given.get("expert_id") is None else ExpertTrainConfig
    how = _How(resume, fresh, from_checkpoint, extend_schedule, allow_changed_data)
    return _train(kind, config, how, given)


@app.command(name="puzzle")
@config_flags(PuzzleTrainConfig, TITLES)
def puzzle(
    *,
    config: Preset = None,
    resume: Resume = False,
    fresh: Fresh = False,
    from_checkpoint: FromCheckpoint = None,
    extend_schedule: ExtendSchedule = False,
    allow_changed_data: AllowChangedData = False,
    **given: Any,
) -> int:
    """Train a solver of Sudoku, mazes or ARC grids that decides itself how long it thinks.

    --data-path FOLDER or --config sudoku-4x4 is all it needs (lab data build-sudoku
    makes a dataset). It leaves a run folder, artifacts/runs/NAME, that lab solve
    and every other command can use.
    """
    how = _How(resume, fresh, from_checkpoint, extend_schedule, allow_changed_data)
    return _train(PuzzleTrainConfig, config, how, given)


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
    name_leaf = kind.model_fields["run"].default.name_flag[2:].replace("-", "_")
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
