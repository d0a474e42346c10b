"""Which folder a run writes to: names, locks, ``--resume`` and ``--fresh``. Nothing is ever overwritten."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from io import BufferedReader
from itertools import chain, count
from pathlib import Path
from typing import Any, TypeVar

from hrm_engine.config import TrainConfig, build_config, flat, kinds, leaves
from hrm_engine.config.training import RunConfig
from hrm_engine.errors import CheckpointError, ConfigError, HRMError, LockedError
from hrm_engine.reading import LINK, open_regular
from hrm_engine.store.files import (
    clean_temporaries,
    ensure_writable,
    is_temporary,
    read_json,
    readable_json,
    storage_error,
    write_json,
)
from hrm_engine.store.locks import HOLDER_FILE, LOCK_FILE, FolderLock
from hrm_engine.store.manifest import checkpoint_folders, read_versioned
from hrm_engine.store.paths import (
    ARCHIVE_FOLDER,
    ARGS_FILE,
    BEST_FOLDER,
    CHECKPOINTS_FOLDER,
    LOG_FILE,
    METADATA_FILE,
    METRICS_FILE,
    WANDB_FOLDER,
    Workspace,
    check_name,
    inside,
)
from hrm_engine.training.ended import is_done

ARGS_SCHEMA = 1
_LONGEST_ROW = 1 << 20
_ORIGINS = frozenset({"made_of", "imported_from"})
"""Fields of folders that no training has made, which cannot be resumed."""

C = TypeVar("C", bound=TrainConfig)


def claim_folder(
    config: TrainConfig, workspace: Workspace, *, resume: bool, fresh: bool, take_over: bool = False
) -> tuple[FolderLock, list[str]]:
    """The lock of the folder that the configuration names, now held, and sentences for the user.

    Args:
        take_over: with ``resume``: whoever holds the lock on another machine no longer runs.

    Raises:
        ConfigError: the name exists and neither ``resume`` nor ``fresh`` is set, or there is nothing to resume.
        LockedError: another process trains there. StorageError: the folder cannot be written.
    """
    path = planned_folder(config, workspace, resume=resume, fresh=fresh)
    if resume:
        return _lock(path, [], workspace, take_over=take_over)
    if config.run.name is None and not fresh:
        return _lock(_next_free(path), [], workspace)
    messages = [f"moved the old run to {_archive(path)}"] if path.exists() and not _is_unused(path) else []
    try:
        path.mkdir(exist_ok=True)
    except OSError as problem:
        raise storage_error(problem, path, doing="create the run folder") from problem
    lock, messages = _lock(path, messages, workspace)
    if not _is_unused(path):
        lock.release()
        raise ConfigError(f"{path} was taken by another process just now; choose another {config.run.name_flag}")
    return lock, messages


def planned_folder(config: TrainConfig, workspace: Workspace, *, resume: bool, fresh: bool) -> Path:
    """The folder that a run will claim (without a name: the first that it will try).

    Raises what :func:`claim_folder` raises for a name that cannot be used, before anything expensive is done.
    """
    parent = workspace.resolve(config.run.bundle_dir)
    if resume and fresh:
        raise ConfigError("--resume and --fresh exclude each other")
    if resume:
        return existing_run(config.run.name, parent, config.run)
    ensure_writable(parent)
    name, flag = config.run.name, config.run.name_flag
    path = _named(parent, config.run.default_name if name is None else name, flag)
    if name is not None and not fresh and path.exists() and not _is_unused(path):
        raise ConfigError(
            f"{path} exists: continue it with --resume, move it away with --fresh, or choose another {flag}"
        )
    return path


def existing_run(name: str | None, parent: Path, run: RunConfig, steps: int | None = None) -> Path:
    """The folder that ``--resume`` continues, by name or id; without a name, the unnamed one that has work left.

    Raises ConfigError where there is none, or more than one fits; ``steps`` are those that the user gave.
    """
    if name is None:
        # Up to version 0.1 the unnamed runs of every kind were called default.
        starts = (run.default_name, RunConfig.default_name)
        args = (path for path in parent.glob(f"*/{ARGS_FILE}") if path.parent.name.startswith(starts))
        unnamed = sorted(path.parent.name for path in args if not _ORIGINS & readable_json(path).keys())
        left = [name for name in unnamed if not is_done(parent / name, steps)]
        if len(left) > 1:
            raise ConfigError(f"--resume: say which run with {run.name_flag}: {', '.join(left)}")
        if unnamed and not left:
            raise ConfigError(
                f"--resume: nothing is left to do for {', '.join(unnamed)}; give more --steps, or say which run with "
                f"{run.name_flag}"
            )
        name = left[0] if left else run.default_name
    home, _, last = name.rpartition("/")
    if home and parent.as_posix().endswith(f"/{home}"):  # an id, as the dashboard shows it, or a path
        name = last
    path = _named(parent, name, run.name_flag)
    if not (path / ARGS_FILE).is_file():
        raise ConfigError(f"--resume: there is no run {name!r} in {parent}; start it without --resume")
    return path


@dataclass(frozen=True)
class CommandLines:
    """The command that began a run, and those that went on with it; None for a session from Python."""

    first: list[str] | None = None
    resumed: list[list[str] | None] = field(default_factory=list)

    def and_then(self, command_line: list[str] | None) -> CommandLines:
        """With that of one more session."""
        return CommandLines(self.first, [*self.resumed, command_line])


def saved_command_lines(run_dir: Path) -> CommandLines:
    """Those in ``training_args.json``."""
    content = readable_json(run_dir / ARGS_FILE)
    resumed = content.get("resumed_with")
    return CommandLines(content.get("command_line"), resumed if isinstance(resumed, list) else [])


def write_args(
    path: Path, config: TrainConfig, commands: CommandLines, *, forked_from: Mapping[str, Any] | None = None
) -> None:
    """Write ``training_args.json``: every parameter, resolved, and the command lines.

    Args:
        forked_from: checkpoint with which the run begins; kept until the run has one of its own.
    """
    content = {
        "schema_version": ARGS_SCHEMA,
        "kind": config.kind,
        "command_line": commands.first,
        "parameters": config.model_dump(mode="json"),
    }
    if commands.resumed:
        content["resumed_with"] = commands.resumed
    if forked_from is not None:
        content["forked_from"] = dict(forked_from)
    write_json(path / ARGS_FILE, content)


def saved_origin(run_dir: Path) -> dict[str, Any] | None:
    """The checkpoint with which a run began that has none of its own yet: path, hash and step. None: it is no fork."""
    origin = read_json(run_dir / ARGS_FILE, CheckpointError).get("forked_from")
    return origin if isinstance(origin, dict) else None


def saved_run_id(run_dir: Path) -> str | None:
    """The id under which the rows of a run stand; None where it has none yet."""
    with suppress(OSError, ValueError, AttributeError, RecursionError):
        with BufferedReader(open_regular(run_dir / METRICS_FILE, follow=False)) as file:
            run_id = json.loads(file.readline(_LONGEST_ROW)).get("run_id")
        return run_id if isinstance(run_id, str) else None
    return None


def saved_config(path: Path, kind: type[C]) -> C:
    """The configuration that a run of this kind was started with.

    Raises:
        CheckpointError: it cannot be read, or the run is of another kind.
    """
    content = read_versioned(path / ARGS_FILE, known=ARGS_SCHEMA, error=CheckpointError)
    if made_of := content.get("made_of"):  # both are of _ORIGINS
        raise CheckpointError(f"{path} was made of {made_of} without its checkpoints: no run to resume")
    if source := content.get("imported_from"):
        raise CheckpointError(
            f"{path} was imported from {source}: it has no run to resume. Train it further as a new one, with "
            f"--student-init {path}"
        )
    parameters = content.get("parameters")
    if not isinstance(parameters, dict):
        raise CheckpointError(f"{path / ARGS_FILE} holds no parameters")
    recorded = content.get("kind", kinds.TEXT.name)  # the only one of runs that do not say it
    if recorded != kind.kind:
        known = kinds.named(recorded)
        command = f"lab train {recorded}" if known is None else known.command_line
        raise CheckpointError(f"{path} is a run of `{command}`; go on with it by that command")
    return build_config(kind, preset=kind.as_of_now(parameters))


def resumed_config(kind: type[C], given: Mapping[str, Any], workspace: Workspace) -> C:
    """The configuration of a run that is continued: the saved one, with the few changes that are allowed.

    Args:
        given: leaf values that the user gave; those that name the run and its folder say which it is.

    Raises:
        ConfigError: a value differs from the saved one and may not; both are named, for all such values at once.
    """
    run = kinds.of(kind).run
    bundle_dir = Path(given.get("bundle_dir") or run.bundle_dir)
    path = existing_run(given.get(run.name_leaf), workspace.resolve(bundle_dir), run, given.get("steps"))
    saved = _last_config(path, kind)
    known = leaves(kind)
    before = flat(saved)
    # The folder itself says where it is: it may have been renamed, and an unnamed run has no name in its arguments.
    place = {run.name_leaf: path.name, "bundle_dir": str(bundle_dir)}
    changed = {name: value for name, value in given.items() if name not in place}
    kept = {name: before[name] for name, leaf in known.items() if leaf.belongs_to}  # measured as up to here
    resumed = build_config(kind, preset=saved.model_dump(mode="json"), overrides={**kept, **changed, **place})
    after = flat(resumed)
    problems = [
        f"{known[name].flag} is {before[name]} in the saved run, {after[name]} was given"
        for name in changed
        if before[name] != after[name]
        and not (known[name].may_change_on_resume and (name != "steps" or after[name] > before[name]))
    ]
    if problems:
        raise ConfigError(
            "--resume continues with the saved settings, but " + "; ".join(problems) + ". Leave these flags out, or "
            "start a new run"
        )
    return resumed


def _last_config(path: Path, kind: type[C]) -> C:
    """The configuration of the last session; of one that was killed, it stands in its checkpoints alone."""
    ended_at = readable_json(path / METADATA_FILE).get("step")
    for step, checkpoint in reversed(checkpoint_folders(path)):
        if isinstance(ended_at, int) and step <= ended_at:
            break
        with suppress(HRMError):  # damaged; the trainer names it
            return saved_config(checkpoint, kind)
    return saved_config(path, kind)


def _named(parent: Path, name: str, flag: str) -> Path:
    path = parent / check_name(name, flag)
    inside(parent, path)
    return path


def _is_unused(path: Path) -> bool:
    """Whether a folder holds nothing but what claiming it leaves: a start that was killed at once."""
    try:
        return all(entry.name in {LOCK_FILE, HOLDER_FILE} or is_temporary(entry) for entry in path.iterdir())
    except OSError:
        return False


def _next_free(first: Path) -> Path:
    path = first
    for number in count(2):
        try:
            path.mkdir()
            break
        except FileExistsError:
            path = first.with_name(f"{first.name}-{number}")
        except OSError as problem:
            raise storage_error(problem, path, doing="create the run folder") from problem
    return path


def _archive(path: Path) -> Path:
    with FolderLock(path):  # refuses while a trainer is at work there
        pass
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    first = path.parent / ARCHIVE_FOLDER / f"{path.name}-{stamp}"
    names = chain([first.name], (f"{first.name}-{number}" for number in count(2)))
    target = next(place for name in names if not (place := first.with_name(name)).exists())
    try:
        target.parent.mkdir(exist_ok=True)
        path.rename(target)
    except OSError as problem:
        raise storage_error(problem, target, doing="archive the old run") from problem
    return target


def _check_entries(path: Path) -> None:
    """Raise ConfigError where something that a run opens, or writes in, is a link, or a file in a folder's place.

    The other files of a run folder are replaced under their names: there a link goes, and what it leads to stays.
    """
    for name in (METRICS_FILE, LOG_FILE, CHECKPOINTS_FOLDER, BEST_FOLDER, WANDB_FOLDER):
        entry = path / name
        if entry.is_symlink():
            raise ConfigError(f"{entry}: {LINK}")
        if name in (CHECKPOINTS_FOLDER, BEST_FOLDER) and entry.is_file():
            raise ConfigError(f"{entry} is a file, and a run keeps a folder of that name: move the file away")


def _lock(
    path: Path, messages: list[str], workspace: Workspace, *, take_over: bool = False
) -> tuple[FolderLock, list[str]]:
    _check_entries(path)
    ensure_writable(path)
    lock = FolderLock(path, take_over=take_over)
    try:
        lock.acquire()
    except LockedError as problem:
        raise LockedError(f"{problem}. Two trainers cannot share a run folder") from problem
    messages = messages + ([lock.taken_over] if lock.taken_over else [])
    if not workspace.add_home(path.parent):
        messages.append(f"{path} is outside of the workspace: lists do not show it; name it by this path")
    for folder in (path, path / CHECKPOINTS_FOLDER):
        if folder.is_dir():
            messages += clean_temporaries(folder)
    return lock, messages
