"""Reading metrics.jsonl while it grows, with DuckDB inside.

Each whole line that is a JSON object becomes one row of an in-memory table: its event, run and step as columns, and the
line itself. Fields are taken out of the lines when they are asked for. So a new field, a missing one, or one that
changes its type costs nothing and loses nothing, and twelve thousand names cost no more than twelve. Measured on 2
cores: 10,000 rows of 330 bytes are read in 35 ms, a field of them is bucketed in 9 ms.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hrm_engine.errors import ConfigError
from hrm_engine.reading import open_regular
from hrm_engine.store.metric_table import ENVELOPE
from hrm_engine.store.paths import METRICS_FILE
from hrm_engine.store.tail import LineTail

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection
    from pandas import DataFrame  # type: ignore[import-untyped]

NO_EVENT = "unknown"
"""Event name of rows that have none."""
QUERY_ROWS = 100_000
QUERY_S = 10.0

_TABLE = """
CREATE TABLE lines (seq BIGINT, event VARCHAR, run_id VARCHAR, step DOUBLE, line VARCHAR);
CREATE VIEW metrics AS
SELECT seq, try_cast(line ->> '/ts' AS TIMESTAMP) AS ts, run_id, event, step, line::JSON AS "row" FROM lines
"""
# The test of json_valid stands in a CASE because the two halves of an AND may be tried in any order.
_INGEST = """
INSERT INTO lines
SELECT $base + i, coalesce(v[1], $no_event), coalesce(v[2], ''), CASE WHEN isfinite(s) THEN s END, line
FROM (SELECT *, try_cast(v[3] AS DOUBLE) AS s FROM (
    SELECT i, line, json_extract_string(line, ['/event', '/run_id', '/step']) AS v
    FROM (SELECT unnest(parts) AS line, generate_subscripts(parts, 1) AS i
          FROM (SELECT string_split($text, chr(10)) AS parts))
    WHERE CASE WHEN json_valid(line) THEN json_type(line) = 'OBJECT' ELSE false END))
"""
_FORGET_OVERTAKEN = """
DELETE FROM lines USING (
    SELECT seq, run_id, step FROM lines WHERE seq >= $base AND event = 'resume' AND step IS NOT NULL) AS resume
WHERE lines.run_id = resume.run_id AND lines.seq < resume.seq AND lines.step > resume.step
"""
# A line as a map: parsed once, however many fields it has. Rows seen by an earlier call are not looked at again.
_NUMERIC_NAMES = """
SELECT DISTINCT entry.key
FROM (SELECT unnest(map_entries(json_transform(line, '"MAP(VARCHAR,JSON)"'))) AS entry
      FROM lines WHERE event = $event AND seq > $upto)
WHERE json_type(entry.value) IN ('DOUBLE', 'BIGINT', 'UBIGINT') AND NOT list_contains($common, entry.key)
"""
_SERIES = """
WITH points AS (
    SELECT i, seq, x, value, dense_rank() OVER (PARTITION BY i ORDER BY x) AS place
    FROM (SELECT generate_subscripts(v, 1) AS i, seq, x, try_cast(unnest(v) AS DOUBLE) AS value
          FROM (SELECT seq, {x} AS x, json_extract_string(line, $fields) AS v
                FROM lines WHERE event = $event))
    WHERE isfinite(value) AND isfinite(x)),
sizes AS (SELECT i, max(place) AS places FROM points GROUP BY i)
SELECT $names[i] AS name, max(x) AS x, min(value) AS min, max(value) AS max,
       arg_max(value, {{'x': x, 'seq': seq}}) AS last, count(*) AS count
FROM points JOIN sizes USING (i)
GROUP BY i, CASE WHEN places <= $max_points THEN place ELSE (place - 1) * $max_points // places END
ORDER BY i, x
"""


@dataclass(frozen=True)
class RefreshResult:
    """Result of one look at the file.

    ``new_rows`` and ``skipped_lines`` (not JSON objects) count this look only. ``replaced``: the file is another one or
    was cut, what was known before is forgotten. ``missing``: the file is not there or cannot be read, what was known
    before is kept. ``message`` says it in one sentence.
    """

    new_rows: int = 0
    skipped_lines: int = 0
    replaced: bool = False
    missing: bool = False
    message: str = ""


def read_metrics(run_dir: Path) -> MetricsReader:
    """The metrics of a run folder as they stand now."""
    reader = MetricsReader(run_dir / METRICS_FILE)
    reader.refresh()
    return reader


class MetricsReader:
    """The metrics of one file, as far as they have been read. Safe to use from several threads.

    Nothing is read before the first ``refresh``. Tolerated: a torn last line (left for the next look), lines that are
    not JSON objects (counted), a byte order mark, missing and new fields, fields that change their type, steps that
    come twice or go backwards. After a row ``resume`` with step k, earlier rows of the same run with a larger step are
    gone.

    The database is in memory and cannot reach any file: lines come in as parameters. ``memory_limit`` (``"2GB"``)
    bounds it; the default is the database's own, 80 % of the machine's memory.
    """

    def __init__(self, path: Path, *, memory_limit: str | None = None) -> None:
        import duckdb

        config: dict[str, str | bool | int | float | list[str]] = {
            "threads": min(4, os.cpu_count() or 1),
            "enable_external_access": False,
            "python_enable_replacements": False,
            "lock_configuration": True,
        }
        if memory_limit is not None:
            config["memory_limit"] = memory_limit
        self.path = Path(path)
        self.skipped_lines = 0
        self._mutex = threading.RLock()
        self._tail = LineTail(self.path)
        self._next_seq = 0
        self._names: dict[str, tuple[set[str], int]] = {}
        self._connection = duckdb.connect(":memory:", config=config)
        self._connection.execute(_TABLE)

    def refresh(self) -> RefreshResult:
        """Read what has come since the last look; only new bytes are parsed. Never raises for the state of the file."""
        import duckdb

        new_rows, skipped_before, replaced = 0, self.skipped_lines, False
        with self._mutex:
            try:
                with BufferedReader(open_regular(self.path, follow=False)) as file:
                    replaced = self._tail.begin(file)
                    if replaced:
                        self._fetch("DELETE FROM lines")
                        self._names.clear()
                        self.skipped_lines = skipped_before = 0
                    overlong_before = self._tail.overlong_lines
                    for block in self._tail.blocks(file):
                        new_rows += self._ingest(block)
                    self.skipped_lines += self._tail.overlong_lines - overlong_before
            except FileNotFoundError:
                return RefreshResult(missing=True, message=f"{self.path} does not exist (any more)")
            except (OSError, ValueError) as problem:  # ValueError: a NUL in the path
                reason = problem.strerror if isinstance(problem, OSError) else str(problem)
                return RefreshResult(missing=True, message=f"{self.path} cannot be read: {reason}")
            except duckdb.OutOfMemoryException:
                return RefreshResult(new_rows, missing=True, message=f"{self.path} does not fit in memory")
            skipped = self.skipped_lines - skipped_before
        message = f"{self.path} was replaced or cut; it was read again from its beginning" if replaced else ""
        return RefreshResult(new_rows, skipped, replaced, message=message)

    @property
    def events(self) -> list[str]:
        """Names of the events in the file, in the order of their first appearance."""
        rows = self._fetch("SELECT event FROM lines GROUP BY event ORDER BY min(seq)")
        return [event for (event,) in rows]

    def names(self, event: str = "train") -> list[str]:
        """Names of the fields of an event that hold a number in some row, sorted; not those that every row has."""
        with self._mutex:
            known, upto = self._names.get(event, (set(), 0))
            rows = self._fetch(_NUMERIC_NAMES, event=event, upto=upto, common=list(ENVELOPE))
            known.update(name for (name,) in rows)
            self._names[event] = (known, self._next_seq)
            return sorted(known)

    def series(
        self, names: str | Sequence[str], event: str = "train", x: str = "step", max_points: int = 2000
    ) -> DataFrame:
        """Curves of numeric fields: columns ``name, x, min, max, last, count``, one row per bucket, sorted by x.

        ``x`` is ``"step"``, ``"ts"`` (the column is then a UTC time stamp) or any numeric field. A field with at most
        ``max_points`` different x has one bucket for each; otherwise its x are divided into ``max_points`` buckets of
        equally many. ``x`` of a bucket is its largest, ``last`` the value there (the newest, if x came twice). Values
        that are no finite numbers are left out. Raises ConfigError if ``max_points`` is below 1.
        """
        import pandas

        if max_points < 1:
            raise ConfigError(f"max_points is {max_points}: use 1 or more")
        chosen = list(dict.fromkeys([names] if isinstance(names, str) else names))
        position = "step"
        if x == "ts":
            position = "epoch_us(try_cast(line ->> '/ts' AS TIMESTAMP))::DOUBLE"
        elif x != "step":
            position = "try_cast(json_extract_string(line, $x) AS DOUBLE)"
        parameters: dict[str, Any] = {
            "event": event,
            "fields": [_pointer(name) for name in chosen] or [""],
            "names": chosen or [""],
            "max_points": max_points,
        }
        if "$x" in position:
            parameters["x"] = _pointer(x)
        with self._mutex:
            frame = self._connection.execute(_SERIES.format(x=position), parameters).df()
        if x == "ts":
            frame["x"] = pandas.to_datetime(frame["x"].astype("int64"), unit="us", utc=True)
        return frame

    def rows(self, event: str, n: int = 1000) -> DataFrame:
        """The last ``n`` rows of an event as written, oldest first: a column per field, lists and dicts as they are."""
        import pandas

        sql = "SELECT line FROM lines WHERE event = $event ORDER BY seq DESC LIMIT $n"
        matches = self._fetch(sql, event=event, n=max(0, n))
        return pandas.DataFrame([_parse(line) for (line,) in reversed(matches)])

    def query(
        self,
        sql: str,
        params: Sequence[Any] | Mapping[str, Any] | None = None,
        *,
        max_rows: int = QUERY_ROWS,
        timeout_s: float = QUERY_S,
    ) -> DataFrame:
        """The result of one SELECT over the table ``metrics(seq, ts, run_id, event, step, row)``.

        ``row`` is the line as JSON: ``row->>'loss'``. Values belong in ``params``. No file can be reached, and
        ``refresh`` does not wait for a query. Raises ConfigError for anything but one SELECT, for more than
        ``max_rows`` rows or ``timeout_s`` seconds, and with the database's message if it fails.
        """
        import duckdb

        with self._mutex:
            cursor = self._connection.cursor()
        watch = threading.Timer(timeout_s, cursor.interrupt)
        watch.start()
        try:
            statements = cursor.extract_statements(sql)
            if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
                raise ConfigError("the query must be one single SELECT statement")
            cursor.execute(statements[0], params)
            return _at_most(max_rows, cursor)
        except duckdb.InterruptException as problem:
            raise ConfigError(f"the query took more than {timeout_s:g} s and was ended") from problem
        except duckdb.Error as problem:
            raise ConfigError(f"the query failed: {problem}") from problem
        finally:
            watch.cancel()
            cursor.close()

    def _ingest(self, block: bytes) -> int:
        text = block.decode("utf-8", errors="replace")
        base = self._next_seq
        connection = self._connection
        connection.begin()
        try:
            parameters = {"base": base, "text": text, "no_event": NO_EVENT}
            inserted = connection.execute(_INGEST, parameters).fetchall()[0][0]
            if '"resume"' in text:
                connection.execute(_FORGET_OVERTAKEN, {"base": base})
                self._names.clear()
            connection.commit()
        except BaseException:
            connection.rollback()
            raise
        lines = text.split("\n")
        self._next_seq += len(lines)
        self.skipped_lines += sum(1 for line in lines if line and not line.isspace()) - inserted
        return int(inserted)

    def _fetch(self, sql: str, **parameters: Any) -> list[tuple[Any, ...]]:
        with self._mutex:
            return self._connection.execute(sql, parameters).fetchall()


def _at_most(max_rows: int, cursor: DuckDBPyConnection) -> DataFrame:
    """The result that a cursor holds, read piece by piece. Raises ConfigError where it has more rows."""
    import pandas

    parts = [cursor.fetch_df_chunk()]
    num_rows = len(parts[0])
    while len(parts[-1]):
        if num_rows > max_rows:
            raise ConfigError(f"the query gives more than {max_rows:,} rows: summarise them, or end it with a LIMIT")
        parts.append(cursor.fetch_df_chunk())
        num_rows += len(parts[-1])
    return pandas.concat(parts[:-1] or parts, ignore_index=True)


def _pointer(name: str) -> str:
    """The JSON pointer (RFC 6901) of a field, whatever characters its name has."""
    return "/" + name.replace("~", "~0").replace("/", "~1")


def _parse(line: str) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):  # DuckDB reads some lines that Python does not: show them as they are
        return {"row": line}
    return value if isinstance(value, dict) else {"row": line}
