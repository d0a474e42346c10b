"""The one look-up of run folders, for engine, command line and dashboard.

A run is named by the name of its folder where only one run has it, by its id (its path below ``artifacts/``, as the
dashboard shows it), or by a path. The checkpoints and ``best/`` of a run are named by an id or a path as well, or by
the run's name and their path in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hrm_engine.config import kinds
from hrm_engine.errors import BundleError, ConfigError
from hrm_engine.store.files import readable_json
from hrm_engine.store.paths import (
    ARGS_FILE,
    CONFIG_FILE,
    METADATA_FILE,
    STATUS_FILE,
    Workspace,
    check_name,
    inside,
)

TRANSFORMERS_TYPE = "hrm_text"
"""``model_type`` of the models of transformers that can be imported."""
_MARKS = (ARGS_FILE, CONFIG_FILE, METADATA_FILE, STATUS_FILE)
_NAMES_SHOWN = 20


def printable(text: str) -> str:
    """``text`` as valid Unicode: half surrogates, as a damaged name holds, become their escaped form."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def run_id(folder: Path, workspace: Workspace) -> str:
    """Id of a run in tables and links: its path below ``artifacts/``, with ``/``, as valid Unicode.

    Of a run elsewhere (``--bundle-dir``) it is the path from the root of the workspace.
    """
    home = workspace.artifacts if folder.is_relative_to(workspace.artifacts) else workspace.root.absolute()
    return printable(folder.relative_to(home).as_posix())


def pick_run(name: str, folders: Sequence[Path], workspace: Workspace) -> Path | None:
    """The one of ``folders`` that has this id or, if no other has it, this name.

    ``name`` may come from a link that anyone can write: it is compared, and never made into a path.
    """
    matches = _matching(name, folders, workspace)
    return matches[0] if len(matches) == 1 else None


def shared_name(name: str, folders: Sequence[Path], workspace: Workspace) -> str | None:
    """A sentence for the user where several of ``folders`` have that name, with the ids to choose from."""
    matches = sorted(_matching(name, folders, workspace))
    if len(matches) < 2:
        return None
    ids = ", ".join(run_id(folder, workspace) for folder in matches)
    return f"several runs are called {printable(name)}: name one by its id. They are {ids}"


def find_run(name: str | Path, workspace: Workspace) -> Path:
    """The run, checkpoint or ``best/`` folder that a user means by a name, an id or a path.

    Raises:
        BundleError: there is none (the runs that exist are listed), it is no run folder, or it is a model of
            transformers, which is imported first.
        ConfigError: several runs have that name, it is not allowed, or it is a link that leads out of its folder.
    """
    text = str(name)
    is_path = isinstance(name, Path) or "/" in text or "\\" in text
    folders = _by_path(text, workspace) if is_path else _by_name(check_name(text, "run name"), workspace)
    runs = [folder for folder in folders if _is_run(folder)]
    if len(runs) > 1 and (problem := shared_name(text, runs, workspace)):
        raise ConfigError(problem)
    if not folders:
        raise _no_run(text, workspace)
    folder = (runs or folders)[0]
    if folder.is_relative_to(workspace.artifacts.absolute()):  # any other link is followed: somebody has typed its path
        inside(folder.parent, folder)
    if not runs:
        raise BundleError(f"{folder} is no run folder: 'lab bundle list' shows those of this workspace")
    _check_is_ours(folder)
    return folder


def free_folder(home: Path, name: str, what: str) -> Path:
    """The folder ``name`` in ``home``, which must not exist; ``what`` is the name's word in messages. ConfigError."""
    target = home / check_name(name, what)
    inside(home, target)
    if target.exists() or target.is_symlink():
        raise ConfigError(f"{target} exists: choose another {what}")
    return target


def _by_name(name: str, workspace: Workspace) -> list[Path]:
    # A run that has only just begun may not hold the file by which run_dirs() knows it.
    homes = dict.fromkeys(workspace.root / kind.home for kind in kinds.commands())
    usual = [home / name for home in homes if (home / name).is_dir()]
    matches = _matching(name, workspace.run_dirs(), workspace)
    return list(dict.fromkeys((*usual, *matches))) or [path for path in [workspace.resolve(name)] if _is_run(path)]


def _by_path(text: str, workspace: Workspace) -> list[Path]:
    """At most one folder: a path means what lies there, and only where no run does, an id."""
    path = workspace.resolve(text)
    is_id = not Path(text).is_absolute() and ".." not in Path(text).parts
    folders = [folder for folder in (path, *[workspace.artifacts / text] * is_id) if folder.is_dir()]
    if is_id and not folders:  # of a name that is not Unicode
        folders = _matching(text, workspace.run_dirs(), workspace)
    if is_id and not folders:  # of a checkpoint: a run by its name, and a path in it
        name, *inner = Path(text).parts
        runs = _matching(name, workspace.run_dirs(), workspace)
        if problem := shared_name(name, runs, workspace):
            raise ConfigError(problem)
        folders = [folder for run in runs if (folder := run.joinpath(*inner)).is_dir()]
    return ([folder for folder in folders if _is_run(folder)] or folders)[:1]


def _matching(name: str, folders: Sequence[Path], workspace: Workspace) -> list[Path]:
    with_id = [folder for folder in folders if run_id(folder, workspace) == name]
    return with_id or [folder for folder in folders if folder.name == name]


def _is_run(folder: Path) -> bool:
    return any((folder / name).is_file() for name in _MARKS)


def _no_run(text: str, workspace: Workspace) -> BundleError:
    """The error for a name that no run has, with the names that runs have; for a shared one, the ids."""
    runs = [path for path in workspace.run_dirs() if not path.is_relative_to(workspace.experts)]
    names = [path.name for path in runs]
    known = sorted(path.name if names.count(path.name) == 1 else run_id(path, workspace) for path in runs)
    more = f" and {len(known) - _NAMES_SHOWN} more" if len(known) > _NAMES_SHOWN else ""
    shown = printable(", ".join(known[:_NAMES_SHOWN]) + more)
    return BundleError(f"no run {text!r} in {workspace.root}. Runs here: {shown or 'none; train one first'}")


def _check_is_ours(folder: Path) -> None:
    content = readable_json(folder / CONFIG_FILE)
    if "model_type" not in content or "kind" in content:
        return
    kind = content["model_type"]
    cure = (
        f"import it first: lab bundle import {folder} --format hf --name NAME"
        if kind == TRANSFORMERS_TYPE
        else f"only models of type {TRANSFORMERS_TYPE!r} can be imported"
    )
    raise BundleError(f"{folder} is a model of transformers, of type {kind!r}, and no bundle of this lab; {cure}")
