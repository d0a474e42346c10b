"""The table of trainings: one row for each kind. Whatever depends on the kind, outside of its task, asks here.

A kind of training is a row and a task (docs/add-a-kind.md). The row says by which configuration and command it is
started, where its runs lie and how they are shown; its name stands as ``kind`` in presets, checkpoints, bundles and
``start`` rows. Kinds that do not belong to the lab are registered by modules that ``HRM_LAB_KINDS`` names.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from importlib import import_module
from pathlib import Path
from typing import Any

from hrm_engine.config.base import Config
from hrm_engine.config.core import CoreConfig
from hrm_engine.config.expert import ExpertConfig, ExpertTrainConfig
from hrm_engine.config.puzzle import PuzzleTrainConfig
from hrm_engine.config.text import TextTrainConfig
from hrm_engine.config.training import RunConfig, TrainConfig
from hrm_engine.errors import ConfigError

MODULES = "HRM_LAB_KINDS"


@dataclass(frozen=True, kw_only=True)
class Words:
    """How runs of a kind are spoken of."""

    makes: str = "a model"
    """What it trains, in messages."""
    leaves: str = "bundle"
    """What a finished run folder is."""
    next_command: str = "lab bundle show {name}"
    """What one does with it; ``name`` is that of the run for other commands."""
    data: str = "{num_rows:,} rows"
    """The data, from fields of the ``start`` row."""
    speed: tuple[str, str] = ("rows_per_s", "rows/s")
    """Throughput: a field of the ``train`` rows, and its unit."""
    panels: str = "generic"
    """Which panels its runs have on the dashboard."""

    def data_of(self, row: Mapping[str, Any]) -> str:
        """The data of a ``start`` row; a dash where that does not say enough."""
        try:
            return self.data.format_map(row)
        except (KeyError, TypeError, ValueError):
            return "-"


@dataclass(frozen=True, kw_only=True)
class Kind:
    """One row."""

    config: type[TrainConfig]
    task: str
    """``module:Class`` of its task; imported when a training begins, for it loads torch."""
    network: type[Config]
    """What ``config.json`` of its bundles holds."""
    about: str
    """Help of its command: a line, and after an empty one what it needs and leaves."""
    words: Words = Words()
    check: str | None = None
    """``module:function`` that says what is wrong with a bundle beside its hashes, given its folder."""
    command: str = ""
    """Under ``lab train`` and ``lab estimate``; its name by default."""
    chosen_by: str | None = None
    """Setting of another kind's command that makes this kind of it."""
    marks: frozenset[str] = field(default_factory=frozenset)
    """Fields of rows that no other kind writes: they tell the kind of runs from before ``start`` rows named it."""

    @property
    def name(self) -> str:
        """The kind itself."""
        return self.config.kind

    @property
    def command_line(self) -> str:
        """The command that trains it."""
        return f"lab train {self.command or self.name}"

    @property
    def run(self) -> RunConfig:
        """Settings of its run folders as they are by default."""
        run: RunConfig = self.config.model_fields["run"].get_default(call_default_factory=True)
        return run

    @property
    def home(self) -> Path:
        """Where its run folders lie, from the root of the workspace."""
        return self.run.bundle_dir


TEXT = Kind(
    config=TextTrainConfig,
    task="hrm_engine.training.tasks.text:TextTask",
    network=CoreConfig,
    about="""Train a causal text model that thinks in segments (ACTv1).

    --dataset-file FILE or --config text-small is all it needs; flags go on top of
    a preset, and the value "none" takes back what the preset says. It leaves a
    run folder, artifacts/brains/actv1/NAME, that every other command can use.
    """,
    words=Words(
        makes="a text brain",
        next_command='lab generate --bundle {name} --prompt "The list"',
        data="{num_rows:,} rows from {num_documents:,} documents",
        speed=("tokens_per_s", "tokens/s"),
        panels="text",
    ),
    check="hrm_engine.bundles.checking:text_problems",
    marks=frozenset({"num_documents", "perplexity"}),
)
PUZZLE = Kind(
    config=PuzzleTrainConfig,
    task="hrm_engine.training.tasks.puzzle:PuzzleTask",
    network=CoreConfig,
    about="""Train a solver of Sudoku, mazes or ARC grids that decides itself how long it thinks.

    --data-path FOLDER or --config sudoku-4x4 is all it needs (lab data build-sudoku
    makes a dataset). It leaves a run folder, artifacts/runs/NAME, that lab solve
    and every other command can use.
    """,
    words=Words(
        makes="a solver of puzzles",
        next_command="lab solve --bundle {name} --trace",
        data="{num_groups:,} puzzles, {num_rows:,} rows; {num_test_rows:,} to test on",
        speed=("row_segments_per_s", "row segments/s"),
        panels="puzzle",
    ),
    check="hrm_engine.bundles.checking:puzzle_problems",
    marks=frozenset({"num_groups", "exact_accuracy"}),
)
EXPERT = Kind(
    config=ExpertTrainConfig,
    task="hrm_engine.training.tasks.expert:ExpertTask",
    network=ExpertConfig,
    about="Train one expert on a frozen base.",
    words=replace(
        TEXT.words, makes="an expert", leaves="expert", next_command="lab experts attach {name} --bundle NAME"
    ),
    check="hrm_engine.bundles.checking:expert_problems",
    command=TEXT.name,
    chosen_by="expert_id",
)

_TABLE: dict[str, Kind] = {}
_LOADED: set[str] = set()


def register(kind: Kind) -> None:
    """Add a row. Raises ValueError where its name or its command is that of another one."""
    for other in _TABLE.values():
        if other.name == kind.name and other.task != kind.task:
            raise ValueError(f"the kind {kind.name!r} is registered already, with the task {other.task}")
        starts_both = other.name != kind.name and other.chosen_by == kind.chosen_by
        if starts_both and other.command_line == kind.command_line:
            raise ValueError(f"{kind.command_line} trains the kind {other.name!r} already: give {kind.name!r} another")
    _TABLE[kind.name] = kind


for _row in (TEXT, PUZZLE, EXPERT):
    register(_row)


def table() -> dict[str, Kind]:
    """All kinds by name, those of the modules in ``HRM_LAB_KINDS`` included.

    Raises ConfigError where such a module cannot be imported.
    """
    for module in os.environ.get(MODULES, "").split(","):
        if (name := module.strip()) and name not in _LOADED:
            try:
                import_module(name)
            except ImportError as problem:
                raise ConfigError(f"{MODULES}={name}: this module cannot be imported: {problem}") from problem
            _LOADED.add(name)
    return dict(_TABLE)


def commands() -> list[Kind]:
    """The kinds that have a command of their own."""
    return [kind for kind in table().values() if kind.chosen_by is None]


def chosen(kind: Kind, given: Mapping[str, Any]) -> Kind:
    """The kind that a command means with these settings: its own, or one that a setting of it chooses."""
    others = (other for other in table().values() if other.command == kind.name and other.chosen_by)
    return next((other for other in others if given.get(str(other.chosen_by)) is not None), kind)


def of(config: TrainConfig | type[TrainConfig]) -> Kind:
    """The row of a configuration."""
    return table()[config.kind]


def named(name: object) -> Kind | None:
    """The row of that name; None for one that this process does not know."""
    return table().get(name) if isinstance(name, str) else None


def of_row(row: Mapping[str, Any]) -> Kind | None:
    """The kind that a row of metrics names; of older rows, the one whose fields it has."""
    if "kind" in row:
        return named(row["kind"])
    return next((kind for kind in table().values() if not kind.marks.isdisjoint(row)), None)


def words_of(kind: Kind | None) -> Words:
    """The words of a kind; general ones for one that is not known."""
    return Words() if kind is None else kind.words
