"""The expert registry, ``artifacts/experts/registry.json``, and the folders of the experts beside it.

Readers take no lock: the file is replaced as a whole. Whoever changes it holds a lock for the time from reading to
writing, so nothing is lost between processes or threads. The goals on the cards come from the goals' database whenever
the registry is read, and are brought up to date in the file whenever it is changed: the database is the truth.

    registry = ExpertRegistry(workspace)
    registry.add(ExpertCard(expert_id="poems", name="Poems"))
    with registry.changing() as content:  # several changes at once; written when the block ends well
        content.update("poems", total_activations=content.get("poems").total_activations + 512)
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

from hrm_engine.errors import ConfigError, NewerError, RegistryError
from hrm_engine.store.attached import listed_experts
from hrm_engine.store.expert_cards import ExpertCard, GoalLink, check_expert_id
from hrm_engine.store.expert_content import RegistryContent
from hrm_engine.store.files import clean_temporaries, new_folder, read_json, remove_entry, sha256_file, write_bytes
from hrm_engine.store.goal_tables import GoalTables
from hrm_engine.store.locks import HOLDER_FILE, LOCK_FILE, FolderLock, locked
from hrm_engine.store.paths import METADATA_FILE, Workspace, inside

WEIGHTS_FILE = "expert.safetensors"
EXPERT_METADATA_FILE = "metadata.json"

_LOCK_NAME = ".registry.lock"
_LOCK_TIMEOUT_S = 60.0


class ExpertRegistry:
    """The registry of one workspace. Every method reads the file anew; those that change it do so under its lock.

    All raise RegistryError: the file is damaged or from a newer version (it is then never overwritten), an expert does
    not exist (near matches are named), or a rule forbids the change. Those that change raise LockedError if the lock
    stays taken, and StorageError if the file cannot be written.
    """

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        self.path = workspace.expert_registry
        self._goals = GoalTables(workspace.goals, self.has_goals)

    def read(self) -> RegistryContent:
        """All cards as they are now."""
        content = self._read_file()
        content.set_goals(self._goal_links())
        return content

    def cards(self) -> list[ExpertCard]:
        """All cards, in the order of their addition."""
        return self.read().cards

    def get(self, expert_id: str) -> ExpertCard:
        """The card of one expert."""
        return self.read().get(expert_id)

    def has_goals(self) -> bool:
        """Whether some card has a goal that was in the database, as far as the file can be read."""
        try:
            cards = self._read_file().cards
        except RegistryError:
            return False
        return any(goal.id is not None for card in cards for goal in card.goals)

    @contextmanager
    def holding(self) -> Iterator[RegistryContent]:
        """Hold the lock and yield the content as the file has it; nothing is written."""
        lock_file = self.path.with_name(_LOCK_NAME)
        with locked(self.path, lock_file, timeout_s=_LOCK_TIMEOUT_S, cure="wait until it ends, or stop it"):
            clean_temporaries(self.path.parent, name=self.path.name)
            yield self._read_file()

    @contextmanager
    def changing(self) -> Iterator[RegistryContent]:
        """Hold the lock and yield the content; what has changed in it is written when the block ends without error.

        Not to be nested, nor mixed with other changes of this registry inside the block: they would wait for its end.
        """
        with self.holding() as content:
            before = content.to_json()
            for expert_id, text in content.take_waiting_goals():
                self._goals.add(text, expert_id, unless_there=True)
            content.set_goals(self._goal_links())
            yield content
            content.set_goals(self._goal_links())
            if content.to_json() != before:
                write_bytes(self.path, content.to_json())

    def add(self, card: ExpertCard, *, base_model: str | None = None) -> ExpertCard:
        """Add a card; ``base_model`` is recorded for the registry if none stands there yet."""
        with self.changing() as content:
            if base_model is not None:
                content.note_base_model(base_model)
            return content.add(card)

    def update(self, expert_id: str, /, **changes: Any) -> ExpertCard:
        """Change fields of a card, as after a training; id, goals and parents are refused.

        An expert with ``is_frozen`` gets neither gradient nor weight decay, and is not trained further; one without
        ``is_active`` is masked from routing.
        """
        with self.changing() as content:
            return content.update(expert_id, **changes)

    def set_parent(self, expert_id: str, parent_id: str | None) -> ExpertCard:
        """Hang an expert under another one, or under none; a cycle is refused."""
        with self.changing() as content:
            return content.set_parent(expert_id, parent_id)

    def delete(self, expert_id: str, *, reparent: bool = False) -> ExpertCard:
        """Remove a card, its links to goals and its folder; returns what the card was.

        Refused while it is attached to a bundle, while it is trained (LockedError), and while it has children, unless
        ``reparent`` hangs them under its own parent. A process that attaches experts should do so inside ``changing``,
        so that none is deleted meanwhile.
        """
        self.get(expert_id)
        folder = self.folder(expert_id)
        # The lock that a training of the expert would hold; a folder that does not exist is not made for it.
        with FolderLock(folder) if folder.is_dir() else nullcontext():
            with self.changing() as content:
                content.get(expert_id)
                if bundles := attached_to(expert_id, self.workspace):
                    shown = ", ".join(self.place(path) for path in bundles[:5]) + (", ..." if len(bundles) > 5 else "")
                    raise RegistryError(
                        f"expert {expert_id!r} is attached to {shown}: delete these bundles first, or keep the expert "
                        f"and switch it off with 'lab experts deactivate {expert_id}'"
                    )
                card = content.remove(expert_id, reparent=reparent)
                # Before the card: should the process die here, the deletion can be repeated.
                self._goals.forget_expert(expert_id)
            _empty(folder)
        with suppress(OSError):  # not empty: somebody has just begun to train a new expert of this id
            folder.rmdir()
        return card

    def export(self, expert_id: str, folder: Path) -> Path:
        """Copy the weights and their metadata to a new ``folder``, which is returned.

        Raises:
            RegistryError: the expert has no weights yet, or a file is missing or is not what was saved.
            ConfigError: ``folder`` exists; nothing is overwritten. StorageError: it cannot be written.
        """
        card = self.get(expert_id)
        weights = self.weights(expert_id)
        metadata = weights.parent / EXPERT_METADATA_FILE
        if not metadata.is_file():
            raise RegistryError(f"{metadata} is missing: train expert {expert_id!r} again")
        target = self.workspace.resolve(folder)
        if target.exists() or target.is_symlink():
            raise ConfigError(f"{target} exists: choose a folder that does not, nothing is overwritten")
        with new_folder(target) as temporary:
            shutil.copyfile(weights, temporary / WEIGHTS_FILE)
            shutil.copyfile(metadata, temporary / EXPERT_METADATA_FILE)
            if card.sha256 is not None and sha256_file(temporary / WEIGHTS_FILE) != card.sha256:
                raise RegistryError(
                    f"{weights} is not what was saved: its sha256 is not the one in the registry. Train the expert "
                    "again, or put back the file"
                )
        return target

    def folder(self, expert_id: str) -> Path:
        """``artifacts/experts/<id>`` of an id that need not exist; ConfigError if it is a link or no id."""
        check_expert_id(expert_id)
        folder = self.workspace.experts / expert_id
        if folder.is_symlink():
            raise ConfigError(f"{folder} is a link: an expert's folder must be one of this workspace")
        inside(self.workspace.root, folder.absolute())
        return folder

    def weights(self, expert_id: str) -> Path:
        """Path of an expert's weights, as its card says; RegistryError if it has none, or they are missing."""
        card = self.get(expert_id)
        if card.checkpoint_path is None:
            raise RegistryError(
                f"expert {expert_id!r} has no weights yet: train it with 'lab train actv1 --expert-id {expert_id}'"
            )
        path = inside(self.workspace.root, Path(card.checkpoint_path))
        if not path.is_file():
            raise RegistryError(f"the weights of expert {expert_id!r} are missing: {path} is not a file")
        return path

    def place(self, path: Path) -> str:
        """A path as a card's ``checkpoint_path`` holds it: from the workspace root. ConfigError if it leads out."""
        return inside(self.workspace.root, path.absolute()).relative_to(self.workspace.root.resolve()).as_posix()

    def _read_file(self) -> RegistryContent:
        if not self.path.exists() and not self.path.is_symlink():
            return RegistryContent.empty(self.path)
        try:
            return RegistryContent.parse(read_json(self.path, RegistryError), self.path)
        except NewerError:
            raise
        except RegistryError as problem:
            cure = "nothing was changed. Correct that, or put a copy of the file back"
            raise RegistryError(f"{problem}; {cure}") from problem

    def _goal_links(self) -> dict[str, list[GoalLink]]:
        links: dict[str, list[GoalLink]] = {}
        for expert_id, goal_id, text in self._goals.links():
            links.setdefault(expert_id, []).append(GoalLink(id=goal_id, text=text))
        return links


def attached_to(expert_id: str, workspace: Workspace) -> list[Path]:
    """The bundles of a workspace that an expert is attached to, as their ``metadata.json`` says, sorted by path.

    A bundle whose metadata cannot be read cannot be loaded either, and does not count.
    """
    return [
        folder
        for folder in workspace.run_dirs()
        if any(entry.expert_id == expert_id for entry in listed_experts(folder / METADATA_FILE))
    ]


def _empty(folder: Path) -> None:
    """Remove what is in a folder whose lock is held, the lock's file last. What cannot be removed is left."""
    if not folder.is_dir():
        return
    for entry in folder.iterdir():
        if entry.name in (LOCK_FILE, HOLDER_FILE):
            continue
        with suppress(OSError):
            remove_entry(entry)
    with suppress(OSError):  # Windows removes no file that is open, and the lock's is until it is released
        (folder / LOCK_FILE).unlink()
