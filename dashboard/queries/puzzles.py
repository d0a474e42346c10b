"""Results of the full evaluation of a puzzle run for every row of the test split, read with SQL.

``evaluation/rows.jsonl`` has a line for each row: ``row, exact, cell_accuracy, exact_when_halting, segments,
confidence, loss`` and, where puzzles are rated, ``rating``. Lines that are torn or no JSON are counted and skipped.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from dashboard.queries.filecache import FileCache

if TYPE_CHECKING:
    import duckdb
    import pandas as pd

ROWS_FILE = Path("evaluation") / "rows.jsonl"
MOST_GROUPS = 12
"""Difficulties up to which each has a bar of its own; more are put into groups of about equally many puzzles."""
MAX_FAILURES = 200
CONFIDENCE_BINS = 10
_KEPT_FILES = 4

_COLUMNS = {
    "row": "BIGINT",
    "exact": "BOOLEAN",
    "cell_accuracy": "DOUBLE",
    "exact_when_halting": "BOOLEAN",
    "segments": "BIGINT",
    "confidence": "DOUBLE",
    "loss": "DOUBLE",
    "rating": "DOUBLE",
}
_LOAD = """
CREATE TABLE lines AS
SELECT * FROM read_json($path, format = 'newline_delimited', columns = $columns, ignore_errors = true)
"""
# A row counts if it has what every figure needs; a line that is no row has come as one of NULLs.
_KEEP = """
CREATE TABLE good AS
SELECT * REPLACE (CASE WHEN isfinite(rating) THEN rating END AS rating)
FROM lines WHERE row IS NOT NULL AND exact IS NOT NULL
"""
_DISTINCT = "SELECT count(DISTINCT rating) AS number FROM good"
_BY_RATING = """
WITH rated AS (SELECT * FROM good WHERE rating IS NOT NULL),
edges AS (SELECT list_sort(list_distinct(quantile_disc(rating, $shares))) AS upper FROM rated),
grouped AS (SELECT rated.*, CASE WHEN $single THEN rating
            ELSE list_min(list_filter(upper, lambda edge: edge >= rating)) END AS bucket FROM rated, edges)
SELECT min(rating) AS lowest, max(rating) AS highest, count(*) AS count, avg(exact::DOUBLE) AS exact,
       avg(exact_when_halting::DOUBLE) AS exact_when_halting, avg(cell_accuracy) AS cell_accuracy,
       avg(segments) AS segments
FROM grouped GROUP BY bucket ORDER BY lowest
"""
_SEGMENTS = """
SELECT segments, count(*) AS count, sum(exact_when_halting::INTEGER)::BIGINT AS exact
FROM good WHERE segments IS NOT NULL GROUP BY segments ORDER BY segments
"""
_CALIBRATION = """
SELECT least(floor(confidence * $bins), $bins - 1)::INTEGER AS bin, count(*) AS count,
       avg(confidence) AS confidence, avg(exact::DOUBLE) AS exact
FROM good WHERE confidence BETWEEN 0 AND 1 GROUP BY bin ORDER BY bin
"""
_FAILURES = """
SELECT row, rating, cell_accuracy, segments, confidence, loss
FROM good WHERE NOT exact ORDER BY rating DESC NULLS LAST, loss DESC NULLS LAST, row LIMIT $limit
"""
_SUMMARY = """
SELECT count(*) AS rows, sum((NOT exact)::INTEGER)::BIGINT AS failures, count(rating) AS rated FROM good
"""


class EvaluatedRows:
    """The rows of one file as it was when it was read. Each question is answered once."""

    def __init__(self, path: Path) -> None:
        import duckdb

        with duckdb.connect() as memory:
            try:
                memory.execute(_LOAD, {"path": _literal(path), "columns": _COLUMNS})
            except duckdb.Error:
                # Not text at all, or gone in the meantime: the same as a file without rows.
                memory.execute(f"CREATE TABLE lines ({', '.join(f'{name} {kind}' for name, kind in _COLUMNS.items())})")
            self._ask(memory)

    def _ask(self, memory: duckdb.DuckDBPyConnection) -> None:
        def frame(sql: str, **parameters: object) -> pd.DataFrame:
            return memory.execute(sql, parameters).df()

        memory.execute(_KEEP)
        summary = frame(_SUMMARY).iloc[0]
        self.num_rows = int(summary["rows"])
        self.num_failures = int(summary["failures"]) if self.num_rows else 0
        """Puzzles whose last answer is wrong somewhere."""
        self.skipped_lines = int(frame("SELECT count(*) AS lines FROM lines").iloc[0]["lines"]) - self.num_rows
        self.is_rated = bool(summary["rated"])
        single = bool(frame(_DISTINCT).iloc[0]["number"] <= MOST_GROUPS)
        shares = [(number + 1) / MOST_GROUPS for number in range(MOST_GROUPS)]
        self.by_rating = frame(_BY_RATING, shares=shares, single=single)
        self.by_segments = frame(_SEGMENTS)
        self.calibration = frame(_CALIBRATION, bins=CONFIDENCE_BINS)
        self.failures = frame(_FAILURES, limit=MAX_FAILURES)


_EVALUATIONS: FileCache[EvaluatedRows] = FileCache(EvaluatedRows, _KEPT_FILES)


def evaluated_rows(run_dir: Path) -> EvaluatedRows | None:
    """The last full evaluation of a run; None if there is none."""
    return _EVALUATIONS.get(run_dir / ROWS_FILE)


def group_names(by_rating: pd.DataFrame) -> list[str]:
    """A name for each group of difficulties: ``3``, or ``4 to 7``."""
    names = []
    for lowest, highest in zip(by_rating["lowest"], by_rating["highest"], strict=True):
        names.append(f"{lowest:g}" if lowest == highest else f"{lowest:g} to {highest:g}")
    return names


def _literal(path: Path) -> str:
    """A path that DuckDB takes for one file, whatever characters it has that would stand for others."""
    return "".join(f"[{character}]" if character in "*?[" else character for character in str(path))
