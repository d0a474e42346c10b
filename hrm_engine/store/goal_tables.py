"""The tables of ``artifacts/goals.sqlite``: goals, and the experts that serve them.

This module knows no registry: an expert is a text here; ``goals`` keeps the two together. The journal is SQLite's
default one and not WAL: between two commits the store is one file, which can be copied, and it works on network
folders; a writer waits for its turn. Every call opens and closes the file, so processes and threads may share it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hrm_engine.errors import ConfigError, HRMError, LockedError, NewerError, RegistryError, StorageError
from hrm_engine.store.clock import now_iso
from hrm_engine.store.files import storing

SCHEMA_VERSION = 1
BUSY_TIMEOUT_S = 30.0
MAX_TEXT = 2000
"""Characters of a goal's text, or of a pattern."""

# AUTOINCREMENT: the number of a removed goal is not given again, so an old log never names a new goal.
_TABLES = (
    "CREATE TABLE goals (id INTEGER PRIMARY KEY AUTOINCREMENT, text TEXT NOT NULL, created_ts TEXT NOT NULL, "
    "active INTEGER NOT NULL DEFAULT 1 CHECK (active IN (0, 1)))",
    "CREATE TABLE goal_experts (goal_id INTEGER NOT NULL REFERENCES goals(id) ON DELETE CASCADE, "
    "expert_id TEXT NOT NULL, PRIMARY KEY (goal_id, expert_id)) WITHOUT ROWID",
    "CREATE INDEX experts_goals ON goal_experts (expert_id)",
)
_COLUMNS = "id, text, created_ts, active"
_LINKED = "goals JOIN goal_experts ON goal_experts.goal_id = goals.id"
_GOALS_SHOWN = 20
_LARGEST_ID = 2**63 - 1
# A file of others can hold what never ends, or fills the memory: a call gives up after so much, which no goals need.
_MOST_ROWS = 100_000
_MOST_BYTES = 1 << 20
"""Of one value."""
_MOST_WORK = 300
"""Millions of steps of the database's own machine; some seconds."""
_STORAGE_CODES = {
    sqlite3.SQLITE_FULL: "the disk is full: free some space",
    sqlite3.SQLITE_READONLY: "it cannot be written: change its permissions, or those of its folder",
    sqlite3.SQLITE_PERM: "permission denied: change its permissions, or those of its folder",
    sqlite3.SQLITE_CANTOPEN: "it cannot be opened: see that it is a file and that its folder can be written",
    sqlite3.SQLITE_IOERR: "reading or writing failed: see that the disk is whole and not full",
}


@dataclass(frozen=True)
class Goal:
    """One goal; ``created_ts`` is an ISO time stamp in UTC. Inactive goals steer no routing."""

    id: int
    text: str
    created_ts: str
    active: bool


def check_goal_text(text: str, what: str = "the text of a goal") -> str:
    """``text`` without white space around it; ConfigError if nothing is left, it is too long, or has no UTF-8 form."""
    stripped = text.strip()
    if not stripped or len(stripped) > MAX_TEXT or "\0" in stripped:
        raise ConfigError(f"{what} must have 1 to {MAX_TEXT} characters, none of them NUL")
    try:
        stripped.encode()
    except UnicodeEncodeError:
        raise ConfigError(f"{what} is not valid Unicode: {stripped!a}") from None
    return stripped


class GoalTables:
    """Reads and transactions on one database file; it is created by the first addition.

    Every method raises RegistryError if the file is damaged, from a newer version, or no goals store; LockedError if
    another process keeps it locked; StorageError if it cannot be read or written. It is never replaced.

    Args:
        is_lost: says, where no goals are stored, whether there were some.
    """

    def __init__(self, path: Path, is_lost: Callable[[], bool] = lambda: False) -> None:
        self.path = Path(path)
        self._is_lost = is_lost

    def list_goals(self, *, active_only: bool = True) -> list[Goal]:
        """Goals by id; by default the active ones."""
        return self._goals("goals WHERE active = 1" if active_only else "goals")

    def get(self, goal_id: int) -> Goal:
        """One goal; RegistryError lists what exists if it does not."""
        if 0 < goal_id <= _LARGEST_ID:
            for goal in self._goals("goals WHERE id = ?", goal_id):
                return goal
        goals = self.list_goals(active_only=False)
        shown = ", ".join(f"{goal.id} ({_short(goal.text)})" for goal in goals[:_GOALS_SHOWN])
        more = ", ..." if len(goals) > _GOALS_SHOWN else ""
        raise RegistryError(f"there is no goal {goal_id} in {self.path}. Goals: {shown + more or 'none yet'}")

    def matching(self, pattern: str) -> list[Goal]:
        """Goals whose text fits an SQL pattern: '%' stands for any text, '_' for one character, case is ignored."""
        return self._goals("goals WHERE text LIKE ?", check_goal_text(pattern, "a pattern"))

    def list_for_expert(self, expert_id: str) -> list[Goal]:
        """The goals that an expert serves, inactive ones included, by id."""
        return self._goals(f"{_LINKED} WHERE expert_id = ?", expert_id)

    def get_expert(self, goal_id: int) -> list[str]:
        """Ids of the experts that serve a goal, sorted; RegistryError if there is no such goal."""
        self.get(goal_id)
        rows = self._read("SELECT expert_id FROM goal_experts WHERE goal_id = ? ORDER BY expert_id", goal_id)
        return [expert_id for (expert_id,) in rows]

    def links(self) -> list[tuple[str, int, str]]:
        """Expert, id and text of the goal of every link, by expert and goal."""
        rows = self._read(f"SELECT expert_id, id, text FROM {_LINKED} ORDER BY expert_id, id")
        if not all(list(map(type, row)) == [str, int, str] for row in rows):
            raise RegistryError(self._damaged("an id or text is none"))
        return rows

    def active_experts(self) -> set[str]:
        """Ids of the experts that serve at least one active goal."""
        return {row[0] for row in self._read(f"SELECT DISTINCT expert_id FROM {_LINKED} WHERE active = 1")}

    def add(self, text: str, expert_id: str | None = None, *, unless_there: bool = False) -> Goal:
        """Add an active goal, and a link if an expert is named.

        With ``unless_there`` the oldest goal of the same text is taken if there is one, as a repeated training needs.
        """
        text = check_goal_text(text)
        with self._writing(create=True) as connection:
            row = None
            if unless_there:
                row = connection.execute(f"SELECT {_COLUMNS} FROM goals WHERE text = ? ORDER BY id", (text,)).fetchone()
            if row is None:
                sql = f"INSERT INTO goals (text, created_ts) VALUES (?, ?) RETURNING {_COLUMNS}"
                row = connection.execute(sql, (text, now_iso())).fetchone()
            if expert_id is not None:
                connection.execute("INSERT OR IGNORE INTO goal_experts VALUES (?, ?)", (row[0], expert_id))
        return self._goal(row)

    def fill(self, goals: Iterable[tuple[int, str]], links: Iterable[tuple[int, str]]) -> None:
        """Store goals with their numbers, and links (goal, expert), where there are none yet."""
        with self._writing(create=True) as connection:
            now = now_iso()
            rows = [(goal_id, text, now) for goal_id, text in goals]
            connection.executemany("INSERT INTO goals (id, text, created_ts) VALUES (?, ?, ?)", rows)
            connection.executemany("INSERT INTO goal_experts VALUES (?, ?)", links)

    def set_active(self, goal_id: int, active: bool) -> Goal:
        """Let a goal steer routing, or keep it and its links and let it steer nothing."""
        self.get(goal_id)
        self._change("UPDATE goals SET active = ? WHERE id = ?", int(active), goal_id)
        return self.get(goal_id)

    def remove(self, goal_id: int) -> Goal:
        """Remove a goal and its links; returns what it was."""
        goal = self.get(goal_id)
        self._change("DELETE FROM goals WHERE id = ?", goal_id)
        return goal

    def remove_like(self, pattern: str) -> list[Goal]:
        """Remove the goals that :meth:`matching` gives; returns them."""
        if goals := self.matching(pattern):
            self._change("DELETE FROM goals WHERE text LIKE ?", check_goal_text(pattern, "a pattern"))
        return goals

    def link_expert(self, goal_id: int, expert_id: str) -> None:
        """Let an expert serve a goal; without effect if it does already."""
        self.get(goal_id)
        self._change("INSERT OR IGNORE INTO goal_experts VALUES (?, ?)", goal_id, expert_id)

    def unlink_expert(self, goal_id: int, expert_id: str) -> None:
        """End that an expert serves a goal; refused if it does not."""
        serving = self.get_expert(goal_id)
        if expert_id not in serving:
            raise RegistryError(
                f"expert {expert_id!r} does not serve goal {goal_id}. Its experts: {', '.join(serving) or 'none'}"
            )
        self._change("DELETE FROM goal_experts WHERE goal_id = ? AND expert_id = ?", goal_id, expert_id)

    def forget_expert(self, expert_id: str) -> None:
        """Take away all links of an expert."""
        if self.list_for_expert(expert_id):
            self._change("DELETE FROM goal_experts WHERE expert_id = ?", expert_id)

    def _change(self, sql: str, *values: int | str) -> None:
        with self._writing() as connection:
            connection.execute(sql, values)

    def _goals(self, source: str, *values: int | str) -> list[Goal]:
        return [self._goal(row) for row in self._read(f"SELECT {_COLUMNS} FROM {source} ORDER BY id", *values)]

    def _goal(self, row: tuple[Any, ...]) -> Goal:
        if list(map(type, row)) != [int, str, str, int]:
            raise RegistryError(self._damaged("a goal has values of other types"))
        return Goal(id=row[0], text=row[1], created_ts=row[2], active=bool(row[3]))

    def _read(self, sql: str, *values: int | str) -> list[tuple[Any, ...]]:
        if not self.path.exists():
            self._check_lost("is missing")
            return []
        with self._opened("rw", "BEGIN") as (connection, is_new):
            if is_new:
                return []
            rows = connection.execute(sql, values).fetchmany(_MOST_ROWS + 1)
        if len(rows) > _MOST_ROWS:
            raise RegistryError(self._damaged(f"it holds more than {_MOST_ROWS:,} rows"))
        return rows

    def _check_lost(self, how: str) -> None:
        if self._is_lost():
            raise RegistryError(
                f"{self.path} {how}, and experts have goals that stood there; nothing was changed. Put a copy of it "
                "back, or make it again of the experts' cards: lab goals restore"
            )

    @contextmanager
    def _writing(self, *, create: bool = False) -> Iterator[sqlite3.Connection]:
        if create:
            if not self.path.exists():
                self._check_lost("is missing")
            with storing(self.path):
                self.path.parent.mkdir(parents=True, exist_ok=True)
        with self._opened("rwc" if create else "rw", "BEGIN IMMEDIATE") as (connection, is_new):
            try:
                if is_new:
                    for table in _TABLES:
                        connection.execute(table)
                    connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                with suppress(sqlite3.Error):  # the first problem is the one to tell; closing rolls back as well
                    connection.execute("ROLLBACK")
                raise

    @contextmanager
    def _opened(self, mode: str, begin: str) -> Iterator[tuple[sqlite3.Connection, bool]]:
        """A checked connection, and whether the file holds nothing yet."""
        if self.path.exists() and not self.path.is_file():
            raise StorageError(f"{self.path} is no regular file: move it away")
        try:
            address = f"{self.path.absolute().as_uri()}?mode={mode}"
            connection = sqlite3.connect(address, uri=True, timeout=BUSY_TIMEOUT_S, isolation_level=None)
            with closing(connection):
                connection.execute("PRAGMA foreign_keys = ON")
                _confine(connection)
                connection.execute(begin)  # also for reading: version and rows are then of one moment
                yield connection, self._check_schema(connection)
        except sqlite3.Error as problem:
            raise self._explained(problem) from problem

    def _check_schema(self, connection: sqlite3.Connection) -> bool:
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if version > SCHEMA_VERSION:
            raise NewerError(
                f"{self.path} has version {version}, this version of HRM Lab reads up to {SCHEMA_VERSION}: "
                "it was written by a newer one; update HRM Lab to use it"
            )
        rows = connection.execute("SELECT sql FROM sqlite_master WHERE name NOT LIKE 'sqlite_%'").fetchmany(100)
        tables = {sql for (sql,) in rows}
        if version == 0 and not tables:
            self._check_lost("is empty")
            return True
        if version != SCHEMA_VERSION:
            raise RegistryError(
                f"{self.path} is a database, but not one of goals: move it away"
                + ("; 'lab goals restore' then makes it again of the experts' cards" if self._is_lost() else "")
            )
        if tables != set(_TABLES):  # also views and triggers, which would run within our own statements
            raise RegistryError(self._damaged("its tables are not those of goals"))
        problem = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        if problem != "ok":
            raise RegistryError(self._damaged(problem))
        return False

    def _explained(self, problem: sqlite3.Error) -> HRMError:
        code = getattr(problem, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF  # the rest of it tells variants apart
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            return LockedError(f"{self.path} has been locked by another process for {BUSY_TIMEOUT_S:.0f} s: stop it")
        if code in _STORAGE_CODES:
            return StorageError(f"{self.path}: {_STORAGE_CODES[code]} ({problem})")
        return RegistryError(self._damaged(problem))

    def _damaged(self, problem: object) -> str:
        return (
            f"{self.path} is damaged ({problem}); nothing was changed. Put a copy of it back, or make it again of the "
            "experts' cards: lab goals restore"
        )


def _confine(connection: sqlite3.Connection) -> None:
    """Let a file that others have made do nothing but hold rows, and only so much."""
    connection.execute("PRAGMA trusted_schema = OFF")
    connection.execute("PRAGMA cell_size_check = ON")
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _MOST_BYTES)
    steps = iter(range(_MOST_WORK))
    connection.set_progress_handler(lambda: next(steps, None) is None, 1_000_000)


def _short(text: str) -> str:
    return text if len(text) <= 40 else text[:37] + "..."
