"""``lab train``: start or resume a training and show how it goes."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, Group, Parameter

from hrm_engine.config import TextTrainConfig, build_config, leaves, load_preset
from hrm_engine.store.paths import Workspace
from lab.cli.flags import config_flags

app = App(name="train", help="Train a brain.")

_ABSENT = object()

_START = Group("Run", help="Which configuration, and whether a run begins or goes on.", sort_key=1)

# Titles of the configuration's groups, in the order of the help page.
_TITLES = {
    "data": "Data",
    "run": "Length, batch and folders",
    "optim": "Optimizer",
    "network": "Network",
    "start": "Initial weights",
    "evaluation": "Evaluation",
    "compute": "Device and precision",
}


@app.command(name="actv1")
@config_flags(TextTrainConfig, _TITLES)
def actv1(
    *,
    config: Annotated[
        str | None,
        Parameter(group=_START, help="Preset (text-small) or YAML file to start from; flags go on top."),
    ] = None,
    resume: Annotated[
        bool,
        Parameter(group=_START, negative="", show_default=False, help="Go on with the run named by --brain-name."),
    ] = False,
    fresh: Annotated[
        bool,
        Parameter(
            group=_START,
            negative="",
            show_default=False,
            help="Begin anew: an existing run of that name moves to .archive.",
        ),
    ] = False,
    allow_changed_data: Annotated[
        bool,
        Parameter(
            group=_START, negative="", show_default=False, help="With --resume: accept a dataset that has changed."
        ),
    ] = False,
    **given: Any,
) -> int:
    """Train a causal text model that thinks in segments (ACTv1).

    --dataset-file FILE or --config PRESET is all it needs; flags go on top of a
    preset, and the value "none" takes back what the preset says. It leaves a run
    folder, artifacts/brains/actv1/NAME, that every other command can use.
    """
    workspace = Workspace.find()
    preset = {} if config is None else load_preset(_preset_place(config, workspace))
    if resume:
        given = {**_leaf_values(preset), **given}
        settings = _settings_to_resume(given, workspace)
    else:
        settings = build_config(TextTrainConfig, preset=preset, overrides=given)

    # Only now: a wrong setting should not wait for torch.
    from hrm_engine.training import train
    from lab.cli.train_view import train_view

    with train_view(workspace) as view:
        result = train(
            settings,
            resume=resume,
            fresh=fresh,
            allow_changed_data=allow_changed_data,
            given=given,
            command_line=sys.argv,
            workspace=workspace,
            observer=view,
        )
    view.finish(result)
    return result.exit_code


def _settings_to_resume(given: dict[str, Any], workspace: Workspace) -> TextTrainConfig:
    """The saved settings of the run that is named, with what may change; needs no --dataset-file."""
    from hrm_engine.training import resumed_config

    place = {name: given[name] for name in ("brain_name", "bundle_dir") if given.get(name) is not None}
    saved = resumed_config(given, **place, workspace=workspace)
    return build_config(TextTrainConfig, preset=saved.model_dump(mode="json"), overrides=place)


def _leaf_values(preset: Mapping[str, Any]) -> dict[str, Any]:
    """What a preset says, by leaf name."""
    values: dict[str, Any] = {}
    for leaf in leaves(TextTrainConfig).values():
        branch: Any = preset
        for part in leaf.path:
            branch = branch.get(part, _ABSENT) if isinstance(branch, Mapping) else _ABSENT
        if branch is not _ABSENT:
            values[leaf.name] = branch
    return values


def _preset_place(name_or_file: str, workspace: Workspace) -> str | Path:
    """Files are taken from the workspace root, like every path on the command line."""
    if Path(name_or_file).suffix in {".yaml", ".yml"}:
        return workspace.resolve(name_or_file)
    return name_or_file
