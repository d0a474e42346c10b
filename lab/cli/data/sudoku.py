"""``lab data build-sudoku``: generated puzzles, the published CSV files, or the hard proxy."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Group, Parameter
from cyclopts.validators import Number

from hrm_engine.errors import ConfigError
from hrm_engine.store.paths import Workspace
from lab.cli.console import console, human_seconds, show_facts
from lab.cli.data.progress import progress_bar
from lab.cli.places import relative

_SIZE, _COUNT, _TEST_COUNT, _SEED = 9, 1000, 500, 42
_ANY = Group("Dataset", sort_key=10)
_GENERATED = Group("Generated puzzles", sort_key=11)
_FILES = Group("Puzzles of CSV files", sort_key=12)
_AT_LEAST_1, _AT_LEAST_0 = Number(gte=1), Number(gte=0)

Flag = Parameter(group=_ANY, negative="", show_default=False)


def build_sudoku(
    *,
    output_dir: Annotated[Path, Parameter(group=_ANY, help="Folder for the dataset; it must not exist yet.")],
    size: Annotated[
        Literal[4, 6, 9] | None,
        Parameter(group=_ANY, help=f"Rows of a board. Default: {_SIZE}, or that of the CSV file."),
    ] = None,
    test_count: Annotated[
        int | None,
        Parameter(
            group=_ANY,
            validator=_AT_LEAST_1,
            help=f"Puzzles to evaluate on. Default: {_TEST_COUNT}, or all of --test-csv.",
        ),
    ] = None,
    min_difficulty: Annotated[
        int | None,
        Parameter(
            group=_ANY,
            validator=_AT_LEAST_0,
            help="Leave out puzzles with a lower rating (the guesses that a search needs).",
        ),
    ] = None,
    num_aug: Annotated[
        int,
        Parameter(group=_ANY, validator=_AT_LEAST_0, help="Variants by symmetry of each training puzzle, beside it."),
    ] = 0,
    seed: Annotated[int | None, Parameter(group=_ANY, help=f"Of everything that is drawn. Default: {_SEED}.")] = None,
    replace: Annotated[bool, Flag, Parameter(help="Replace the dataset that stands in the folder.")] = False,
    count: Annotated[
        int | None,
        Parameter(group=_GENERATED, validator=_AT_LEAST_1, help=f"Puzzles to train on. Default: {_COUNT}."),
    ] = None,
    blanks: Annotated[
        int | None,
        Parameter(
            group=_GENERATED, validator=_AT_LEAST_1, help="Blank cells of each. Default: until no given can be spared."
        ),
    ] = None,
    hard_proxy: Annotated[
        bool,
        Flag,
        Parameter(
            group=_GENERATED,
            help="The frozen set sudoku-hard-proxy: 1,000 and 10,000 of the hardest of a million. It stands in for "
            "the published data; takes minutes.",
        ),
    ] = False,
    csv: Annotated[
        Path | None, Parameter(group=_FILES, help="Puzzles to train on: source,question,answer,rating.")
    ] = None,
    test_csv: Annotated[Path | None, Parameter(group=_FILES, help="Puzzles to evaluate on.")] = None,
    subsample_size: Annotated[
        int | None, Parameter(group=_FILES, validator=_AT_LEAST_1, help="Draw so many training puzzles. Default: all.")
    ] = None,
) -> int:
    """Build a Sudoku dataset: every puzzle has one solution, no training puzzle is a test puzzle."""
    from hrm_engine.data.puzzles.sudoku import build

    given: dict[str, Any] = {"--count": count, "--blanks": blanks, "--hard-proxy": hard_proxy or None}
    given |= {"--csv": csv, "--test-csv": test_csv, "--subsample-size": subsample_size, "--size": size}
    given |= {"--test-count": test_count, "--min-difficulty": min_difficulty, "--seed": seed}
    workspace = Workspace.find()
    folder = workspace.resolve(output_dir)
    common: dict[str, Any] = {"seed": _SEED if seed is None else seed, "num_aug": num_aug, "replace": replace}
    with progress_bar("Sudoku") as progress:
        common["progress"] = progress
        if csv is not None:
            _refuse(given, "--csv", "--count", "--blanks", "--hard-proxy")
            report = build.build_from_csv(
                folder,
                workspace.resolve(csv),
                test_csv=None if test_csv is None else workspace.resolve(test_csv),
                test_count=test_count,
                size=size,
                subsample_size=subsample_size,
                min_difficulty=min_difficulty or 0,
                **common,
            )
        elif hard_proxy:
            fixed = ("--count", "--blanks", "--size", "--test-count", "--min-difficulty")
            files = ("--test-csv", "--subsample-size")
            _refuse(given, "--hard-proxy", *fixed, *files, *(() if num_aug else ("--seed",)))
            report = build.build_hard_proxy(folder, workers=os.cpu_count() or 1, **common)
        else:
            _refuse(given, "generated puzzles", "--test-csv", "--subsample-size")
            report = build.build_generated(
                folder,
                size=size or _SIZE,
                count=count or _COUNT,
                test_count=test_count or _TEST_COUNT,
                blanks=blanks,
                min_difficulty=min_difficulty or 0,
                workers=os.cpu_count() or 1,
                **common,
            )
    if report.is_proxy:
        console().print("PROXY: results on this dataset are not comparable with published ones.", style="yellow")
    show_facts(
        [
            ("folder", relative(report.folder, workspace)),
            ("what", report.description),
            ("training", f"{report.num_train_puzzles:,} puzzles, {report.num_train_rows:,} rows with their variants"),
            ("test", f"{report.num_test_puzzles:,} puzzles"),
            ("guesses, training", _span(report.train_ratings)),
            ("guesses, test", _span(report.test_ratings)),
            ("left out", f"{report.num_left_out:,} training puzzles that are test puzzles"),
            ("time", human_seconds(report.seconds)),
        ]
    )
    return 0


def _refuse(given: dict[str, Any], what: str, *flags: str) -> None:
    """A flag that would change nothing is refused. Raises ConfigError."""
    extra = [flag for flag in flags if given[flag] is not None]
    if extra:
        raise ConfigError(f"{' and '.join(extra)} cannot be used with {what}: leave out one or the other")


def _span(ratings: tuple[int, int, int]) -> str:
    smallest, median, greatest = ratings
    return f"{smallest:,} to {greatest:,}, median {median:,}"
