"""Routing of a run, from its ``expert_usage`` rows: one for a layer every so many steps.

A row counts if it has a step, a layer, and a list of token counts that are numbers from 0 on. A layer that stands
twice at a step counts as it was written last. Of more steps than a slider can show, evenly spread ones are kept.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dashboard.queries.filecache import FileCache
from hrm_engine.reading import open_regular
from hrm_engine.store.paths import METRICS_FILE
from hrm_engine.store.reader import MetricsReader
from hrm_engine.store.runs import printable

if TYPE_CHECKING:
    import pandas as pd

MAX_STEPS = 400
MAX_EXPERTS = 1024
_SEARCHED_BYTES = 2 << 20

_USAGE = """
WITH read AS (
    SELECT step::BIGINT AS step, seq, "row" ->> 'layer' AS layer,
           try_cast("row" -> 'token_counts' AS DOUBLE[]) AS tokens,
           try_cast("row" -> 'avg_routing_prob' AS DOUBLE[]) AS probabilities,
           try_cast("row" ->> 'dropped_tokens' AS DOUBLE) AS dropped,
           try_cast("row" ->> 'bias_rate' AS DOUBLE) AS bias_rate
    FROM metrics WHERE event = 'expert_usage' AND step BETWEEN 0 AND 9007199254740991),
good AS (
    SELECT *, list_sum(tokens) AS total FROM read
    WHERE layer <> '' AND len(tokens) BETWEEN 1 AND $max_experts
      AND len(list_filter(tokens, lambda n: coalesce(n BETWEEN 0 AND 9007199254740991, false))) = len(tokens)
    QUALIFY row_number() OVER (PARTITION BY step, layer ORDER BY seq DESC) = 1),
steps AS (
    SELECT step, row_number() OVER (ORDER BY step) AS place, count(*) OVER () AS number
    FROM (SELECT DISTINCT step FROM good)),
kept AS (
    SELECT good.*, number AS num_steps FROM good JOIN steps USING (step)
    WHERE place = number OR (place - 1) * $max_steps // number <> place * $max_steps // number)
"""
_CELLS = (
    _USAGE
    + """
SELECT step, layer, expert, tokens, CASE WHEN total > 0 THEN tokens / total END AS share,
       CASE WHEN isfinite(probability) THEN probability END AS probability
FROM (SELECT step, layer, total, generate_subscripts(tokens, 1) - 1 AS expert, unnest(tokens) AS tokens,
             unnest(list_resize(probabilities, len(tokens))) AS probability FROM kept)
ORDER BY step, layer, expert
"""
)
# -sum(p ln p) / ln N; a single expert has no entropy to speak of. The limit of p ln p at 0 is 0.
_LAYERS = (
    _USAGE
    + """
SELECT step, layer, len(tokens) AS num_experts, num_steps,
       CASE WHEN total > 0 AND len(tokens) > 1 THEN least(1.0, greatest(0.0,
           -list_sum(list_transform(tokens, lambda n: CASE WHEN n > 0 THEN n / total * ln(n / total) ELSE 0.0 END))
           / ln(len(tokens)))) END AS entropy,
       CASE WHEN total > 0 AND dropped >= 0 THEN least(dropped / total, 1.0) END AS dropped,
       CASE WHEN isfinite(bias_rate) THEN bias_rate END AS bias_rate
FROM kept ORDER BY step, layer
"""
)


@dataclass(frozen=True, eq=False)
class Routing:
    """Routing at each kept step. Shares are from 0 to 1.

    ``cells``: a row for each step, layer and expert: ``step, layer, expert, tokens, share, probability``.
    ``by_layer``: a row for each step and layer: ``step, layer, num_experts, entropy, dropped, bias_rate``; ``entropy``
    is that of the shares of tokens divided by its maximum, ``dropped`` the share of assignments that found an expert
    full. ``layers`` are names in their natural order, ``num_steps`` counts the steps that were left out too.
    """

    cells: pd.DataFrame
    by_layer: pd.DataFrame
    layers: tuple[str, ...]
    steps: tuple[int, ...]
    num_steps: int

    def at(self, step: int) -> pd.DataFrame:
        """The cells of one step."""
        return self.cells[self.cells["step"] == step]

    def of(self, layer: str) -> pd.DataFrame:
        """The cells of one layer."""
        return self.cells[self.cells["layer"] == layer]


def _names_usage(path: Path) -> bool:
    try:
        with open_regular(path, follow=False) as file:
            return b'"expert_usage"' in (file.read(_SEARCHED_BYTES) or b"")
    except OSError:
        return False


_USAGES: FileCache[bool] = FileCache(_names_usage, 1024)


def has_routing(run_dir: Path) -> bool:
    """Whether a run has written routing; only the first part of its metrics, where it begins, is searched."""
    return bool(_USAGES.get(run_dir / METRICS_FILE))


def routing(reader: MetricsReader) -> Routing:
    """The routing that stands in a metrics file, as far as it has been read."""
    limits = {"max_steps": MAX_STEPS, "max_experts": MAX_EXPERTS}
    cells, by_layer = (reader.query(sql, limits) for sql in (_CELLS, _LAYERS))
    for frame in (cells, by_layer):
        frame["layer"] = [printable(str(name)) for name in frame["layer"]]
    num_steps = int(by_layer.pop("num_steps").max()) if len(by_layer) else 0
    layers = sorted(set(by_layer["layer"]), key=_natural)
    steps = sorted({int(step) for step in by_layer["step"]})
    return Routing(cells, by_layer, tuple(layers), tuple(steps), num_steps)


def _natural(name: str) -> list[tuple[int, str]]:
    """``H.2`` before ``H.10``."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"([0-9]{1,9})", name)]
