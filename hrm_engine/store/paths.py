"""The folder tree of a workspace, and the names of the files in a run folder. No other file knows them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from hrm_engine.errors import ConfigError

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_MAX_PART_BYTES = 255

# What lies in a run folder. The first is what makes a folder one.
ARGS_FILE = "training_args.json"
CONFIG_FILE = "config.json"
METADATA_FILE = "metadata.json"
STATUS_FILE = "status.json"
METRICS_FILE = "metrics.jsonl"
LOG_FILE = "run.log"
CHECKPOINTS_FOLDER = "checkpoints"
BEST_FOLDER = "best"
WANDB_FOLDER = "wandb"
# In a checkpoint; the second in best/ too.
STATE_FILE = "state.json"
MANIFEST_FILE = "MANIFEST.json"

ARCHIVE_FOLDER = ".archive"
"""Beside run folders: what ``--fresh`` has moved away."""

# Present in a run folder even before its first session has ended.
_RUN_FILES = frozenset({ARGS_FILE, STATUS_FILE, METRICS_FILE, METADATA_FILE})


def check_name(name: str, what: str = "name") -> str:
    """``name`` itself if we may write a file of that name, else ConfigError; ``what`` is its word in the message."""
    if not isinstance(name, str) or _NAME.fullmatch(name) is None:
        raise ConfigError(
            f"{what} {_shown(name)} is not allowed: use 1 to 64 letters, digits, '.', '_' or '-', "
            "beginning with a letter or digit"
        )
    return name


def inside(root: Path, path: Path) -> Path:
    """The resolved ``path``, which must lie under the resolved ``root`` (or be it). A relative one is taken from root.

    Symbolic links are followed before the comparison. Raises ConfigError for a path that leads out, has a NUL or a part
    longer than any file system allows, or cannot be resolved.
    """
    _check_text(path)
    try:
        real_root = Path(root).resolve()
        real = (real_root / path).resolve()
    except (OSError, RuntimeError, ValueError) as problem:  # a loop of links is a RuntimeError up to Python 3.12
        raise ConfigError(f"path {_shown(path)} cannot be resolved: {problem}") from problem
    if not real.is_relative_to(real_root):
        raise ConfigError(f"path {_shown(path)} leads out of {real_root}: choose a path inside that folder")
    return real


class _Place:
    """A file or folder of every workspace, by its path from the root."""

    def __init__(self, path: str) -> None:
        self._path = path

    def __get__(self, workspace: Workspace, owner: type[Workspace]) -> Path:
        return workspace.root / self._path


@dataclass(frozen=True)
class Workspace:
    """One workspace: its root folder and the places in it. Nothing is created here."""

    root: Path

    artifacts = _Place("artifacts")
    training_data = _Place("training_data")
    brains = _Place("artifacts/brains/actv1")
    runs = _Place("artifacts/runs")
    agents = _Place("artifacts/agent")
    notebooks = _Place("artifacts/notebooks")
    experts = _Place("artifacts/experts")
    expert_registry = _Place("artifacts/experts/registry.json")
    goals = _Place("artifacts/goals.sqlite")
    run_homes = _Place("artifacts/run_homes.json")
    base_model = _Place("artifacts/hf_implant/base_model")
    tokenizer_file = _Place("artifacts/hf_implant/tokenizers/tokenizer.json")
    embedded_corpus = _Place("training_data/curated_datasets/python_docs")
    puzzles = _Place("training_data/puzzles")

    @classmethod
    def find(cls, start: Path | None = None) -> Workspace:
        """The workspace of ``start`` (default: the current folder).

        ``HRM_LAB_ROOT`` if it is set, else the nearest folder from ``start`` upwards that holds ``artifacts/`` and
        ``training_data/``, else ``start``. Raises ConfigError if ``HRM_LAB_ROOT`` names a file.
        """
        chosen = os.environ.get("HRM_LAB_ROOT", "")
        if chosen:
            _check_text(chosen)
            root = Path(chosen).expanduser().absolute()
            if root.exists() and not root.is_dir():
                raise ConfigError(f"HRM_LAB_ROOT={chosen} is a file: set it to the workspace folder, or unset it")
            return cls(root)
        first = Path.cwd() if start is None else Path(start).absolute()
        for folder in (first, *first.parents):
            if (folder / "artifacts").is_dir() and (folder / "training_data").is_dir():
                return cls(folder)
        return cls(first)

    def resolve(self, path: str | Path) -> Path:
        """``path`` as an absolute path: ``~`` expanded, relative ones taken from the root. Raises ConfigError."""
        _check_text(path)
        try:
            return self.root.absolute() / Path(path).expanduser()
        except RuntimeError as problem:  # "~name" of a user that does not exist
            raise ConfigError(f"path {_shown(path)}: {problem}") from problem

    def run_dirs(self) -> list[Path]:
        """Every run folder under ``artifacts/`` (it holds a training_args.json), sorted by path.

        After them come those in the folders of :meth:`other_homes`. Not looked into: ``checkpoints`` and ``best`` of a
        run, folders whose name begins with a dot, symbolic links (one inside the workspace would show its run twice,
        one that leads out must not be followed), and what cannot be read.
        """
        return sorted(_find_runs(self.artifacts)) + sorted(run for home in self.other_homes() for run in _runs_in(home))

    def other_homes(self) -> list[Path]:
        """Folders of this workspace outside ``artifacts/`` in which runs have begun (``--bundle-dir``)."""
        from hrm_engine.store.files import readable_json

        names = readable_json(self.run_homes).get("folders")
        homes = []
        for name in names if isinstance(names, list) else ():
            with suppress(ConfigError, TypeError):
                home = inside(self.root, Path(name))
                if not home.is_relative_to(self.artifacts.resolve()):
                    homes.append(self.root.absolute() / name)
        return homes

    def add_home(self, folder: Path) -> bool:
        """Remember a folder in which a run begins; False for one outside the workspace, whose runs are not listed.

        Raises StorageError.
        """
        from hrm_engine.store.files import write_json

        real, root = folder.resolve(), self.root.resolve()
        if not real.is_relative_to(root):
            return False
        known = [home.relative_to(self.root.absolute()).as_posix() for home in self.other_homes()]
        name = real.relative_to(root).as_posix()
        if not real.is_relative_to(self.artifacts.resolve()) and name not in known:
            write_json(self.run_homes, {"schema_version": 1, "folders": [*known, name]})
        return True


def _runs_in(home: Path) -> Iterator[Path]:
    try:
        entries = list(home.iterdir())
    except OSError:
        return
    for entry in entries:
        if not entry.is_symlink() and not entry.name.startswith(".") and (entry / ARGS_FILE).is_file():
            yield entry


def _find_runs(folder: Path) -> Iterator[Path]:
    pending = [folder]
    while pending:
        current = pending.pop()
        try:
            with os.scandir(current) as listing:
                entries = list(listing)
        except OSError:
            continue
        files = {entry.name for entry in entries if entry.is_file(follow_symlinks=False)}
        if ARGS_FILE in files:
            with suppress(OSError):  # of a folder that may be listed and not entered nothing can be looked at
                (current / ARGS_FILE).stat()
                yield current
        skipped = (CHECKPOINTS_FOLDER, BEST_FOLDER) if files & _RUN_FILES else ()
        pending.extend(
            Path(entry.path)
            for entry in entries
            if entry.is_dir(follow_symlinks=False) and not entry.name.startswith(".") and entry.name not in skipped
        )


def _check_text(path: str | Path) -> None:
    text = str(path)
    if "\0" in text:
        raise ConfigError(f"path {_shown(path)} holds a NUL character: remove it")
    if any(len(os.fsencode(part)) > _MAX_PART_BYTES for part in Path(text).parts):
        raise ConfigError(f"path {_shown(path)} has a part longer than {_MAX_PART_BYTES} bytes: shorten it")


def _shown(value: object) -> str:
    text = ascii(str(value))
    return text if len(text) <= 120 else text[:117] + "...'"
