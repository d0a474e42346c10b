"""Where ``--log-file`` and ``--stop-file`` may lie: the one is appended to, and the other is removed."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import get_args

from hrm_engine.config import TrainConfig, leaves
from hrm_engine.errors import ConfigError
from hrm_engine.reading import open_regular
from hrm_engine.store.metrics import ROW_START
from hrm_engine.store.paths import (
    ARGS_FILE,
    BEST_FOLDER,
    CHECKPOINTS_FOLDER,
    CONFIG_FILE,
    LOG_FILE,
    MANIFEST_FILE,
    METADATA_FILE,
    METRICS_FILE,
    STATUS_FILE,
    WANDB_FOLDER,
    Workspace,
)

LARGEST_STOP_FILE_BYTES = 4096
_SIDE_FILES = {
    "log_file": "rows of metrics would be appended to it",
    "stop_file": "it would be removed when it stops the run",
}
_MARKS = (ARGS_FILE, METADATA_FILE, MANIFEST_FILE)
_OWN = {ARGS_FILE, CONFIG_FILE, METADATA_FILE, STATUS_FILE, LOG_FILE, CHECKPOINTS_FOLDER, BEST_FOLDER, WANDB_FOLDER}


def check_side_files(config: TrainConfig, workspace: Workspace, run_dir: Path | None) -> None:
    """Refuse a ``--log-file`` or ``--stop-file`` that is a file of something else.

    Args:
        run_dir: folder of the run, where a file that it does not write itself may lie; None where it is not known yet.

    Raises:
        ConfigError: the place is another setting's, in a bundle, or holds what is no log and no request to stop.
    """
    known = leaves(type(config))
    for name, use in _SIDE_FILES.items():
        given = known[name].value(config)
        if given is None:
            continue
        place = workspace.resolve(given).resolve()
        problem = (
            _other_setting(name, place, config, workspace)
            or _in_bundle(place, None if run_dir is None else run_dir.resolve(), is_log=name == "log_file")
            or (_no_log(place) if name == "log_file" else _no_stop_file(place))
        )
        if problem is not None:
            raise ConfigError(f"{known[name].flag} {given}: {problem}, and {use}; choose another file")


def _other_setting(name: str, place: Path, config: TrainConfig, workspace: Workspace) -> str | None:
    for leaf in leaves(type(config)).values():
        value = leaf.value(config)
        is_path = Path in (leaf.annotation, *get_args(leaf.annotation))
        if is_path and value is not None and leaf.name not in (name, "bundle_dir"):
            other = workspace.resolve(value).resolve()
            if place.is_relative_to(other):
                return f"it {'is' if place == other else 'lies in'} {leaf.flag} {value}"
    return None


def _in_bundle(place: Path, run_dir: Path | None, *, is_log: bool) -> str | None:
    if run_dir is not None and place.is_relative_to(run_dir):
        first = (*place.relative_to(run_dir).parts, "")[0]
        is_own = first in _OWN or (first == METRICS_FILE and not is_log) or place.suffix == ".safetensors"
        return "it is a file of this run" if is_own else None
    bundle = next((folder for folder in place.parents if any((folder / mark).is_file() for mark in _MARKS)), None)
    return None if bundle is None else f"it lies in the bundle {bundle}"


def _no_log(place: Path) -> str | None:
    start = b""
    with suppress(OSError), open_regular(place) as file:  # what cannot be written is told when it is opened
        start = file.read(len(ROW_START))
    return "it holds something else than metrics" if start and start != ROW_START else None


def _no_stop_file(place: Path) -> str | None:
    size = place.stat().st_size if place.is_file() else 0
    return f"it holds {size:,} bytes, as no request to stop does" if size > LARGEST_STOP_FILE_BYTES else None
