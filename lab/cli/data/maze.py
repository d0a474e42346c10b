"""``lab data build-maze``: generated mazes, or the published CSV files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from cyclopts import Group, Parameter
from cyclopts.validators import Number

from hrm_engine.errors import ConfigError
from hrm_engine.store.paths import Workspace
from lab.cli.console import console, human_seconds, show_facts
from lab.cli.data.progress import progress_bar
from lab.cli.places import relative

_SIZE, _COUNT, _TEST_COUNT, _LOOPS, _ALL = 30, 1000, 1000, 0.02, 8
_ANY = Group("Dataset", sort_key=10)
_GENERATED = Group("Generated mazes", sort_key=11)
_FILES = Group("Mazes of CSV files", sort_key=12)
_AT_LEAST_1, _AT_LEAST_0 = Number(gte=1), Number(gte=0)


def build_maze(
    *,
    output_dir: Annotated[Path, Parameter(group=_ANY, help="Folder for the dataset; it must not exist yet.")],
    size: Annotated[
        int | None, Parameter(group=_ANY, help=f"Cells a side. Default: {_SIZE}, or that of the CSV files.")
    ] = None,
    test_count: Annotated[
        int | None,
        Parameter(
            group=_ANY,
            validator=_AT_LEAST_0,
            help=f"Mazes to evaluate on. Default: {_TEST_COUNT} generated ones; of CSV files none but --test-csv.",
        ),
    ] = None,
    num_aug: Annotated[
        int | None,
        Parameter(
            group=_ANY,
            validator=Number(gte=1, lte=_ALL),
            help="Orientations that each training maze is written in, itself included. Default: 1.",
        ),
    ] = None,
    aug: Annotated[
        bool, Parameter(group=_ANY, negative="", show_default=False, help=f"The same as --num-aug {_ALL}.")
    ] = False,
    seed: Annotated[int, Parameter(group=_ANY, help="Of everything that is drawn.")] = 42,
    replace: Annotated[
        bool,
        Parameter(group=_ANY, negative="", show_default=False, help="Replace the dataset that stands in the folder."),
    ] = False,
    count: Annotated[
        int | None,
        Parameter(group=_GENERATED, validator=_AT_LEAST_1, help=f"Mazes to train on. Default: {_COUNT}."),
    ] = None,
    min_path: Annotated[
        int | None,
        Parameter(
            group=_GENERATED,
            validator=_AT_LEAST_1,
            help="Least steps from start to goal; the published 30x30 mazes have more than 110. Default: the size.",
        ),
    ] = None,
    loops: Annotated[
        float | None,
        Parameter(
            group=_GENERATED,
            validator=Number(gte=0, lte=1),
            help=f"Share of the walls between corridors that are opened; 0: one way only. Default: {_LOOPS}.",
        ),
    ] = None,
    csv: Annotated[
        tuple[Path, ...],
        Parameter(
            group=_FILES,
            consume_multiple=True,
            negative="",
            show_default=False,
            help="Files to train on: source,question,answer,rating.",
        ),
    ] = (),
    test_csv: Annotated[
        tuple[Path, ...],
        Parameter(
            group=_FILES,
            consume_multiple=True,
            negative="",
            show_default=False,
            help="Files to evaluate on.",
        ),
    ] = (),
    subsample_size: Annotated[
        int | None, Parameter(group=_FILES, validator=_AT_LEAST_1, help="Draw so many training mazes. Default: all.")
    ] = None,
    skip_bad_records: Annotated[
        bool,
        Parameter(group=_FILES, negative="", show_default=False, help="Leave out and count rows that are no maze."),
    ] = False,
) -> int:
    """Build a maze dataset: labels are shortest paths, no training maze is a test maze in any orientation."""
    from hrm_engine.data.puzzles.maze import build

    given: dict[str, Any] = {"--count": count, "--min-path": min_path, "--loops": loops, "--test-count": test_count}
    given |= {"--test-csv": test_csv or None, "--subsample-size": subsample_size, "--num-aug": num_aug}
    given |= {"--skip-bad-records": skip_bad_records or None}
    if aug:
        _refuse(given, "--aug", "--num-aug")
        num_aug = _ALL
    workspace = Workspace.find()
    folder = workspace.resolve(output_dir)
    common: dict[str, Any] = {"seed": seed, "num_aug": num_aug or 1, "replace": replace}
    if csv:
        _refuse(given, "--csv", "--count", "--min-path", "--loops")
        if test_csv:
            _refuse(given, "--test-csv", "--test-count")
        report = build.build_from_csv(
            folder,
            csv=[workspace.resolve(file) for file in csv],
            test_csv=[workspace.resolve(file) for file in test_csv],
            test_count=test_count or 0,
            subsample_size=subsample_size,
            size=size,
            skip_bad=skip_bad_records,
            **common,
        )
    else:
        _refuse(given, "generated mazes", "--test-csv", "--subsample-size", "--skip-bad-records")
        with progress_bar("Mazes") as progress:
            report = build.build_generated(
                folder,
                size=_SIZE if size is None else size,
                count=_COUNT if count is None else count,
                test_count=_TEST_COUNT if test_count is None else test_count,
                min_path=min_path,
                loops=_LOOPS if loops is None else loops,
                progress=progress,
                **common,
            )
    if report.is_proxy:
        console().print("PROXY: results on this dataset are not comparable with published ones.", style="yellow")
    facts = [
        ("folder", relative(report.folder, workspace)),
        ("what", report.description),
        ("training", f"{report.num_train_mazes:,} mazes, {report.num_train_rows:,} rows with their orientations"),
        ("test", f"{report.num_test_mazes:,} mazes"),
        ("path, in steps", f"{report.shortest} to {report.longest}, mean {report.mean:.1f}"),
    ]
    if csv:
        facts += [
            ("left out", f"{report.num_left_out:,} training mazes that are test mazes"),
            ("several shortest paths", f"{report.num_several:,} mazes; the given path is the label"),
            ("bad rows", f"{report.num_skipped:,} skipped"),
        ]
    show_facts([*facts, ("time", human_seconds(report.seconds))])
    return 0


def _refuse(given: dict[str, Any], what: str, *flags: str) -> None:
    """A flag that would change nothing is refused. Raises ConfigError."""
    extra = [flag for flag in flags if given[flag] is not None]
    if extra:
        raise ConfigError(f"{' and '.join(extra)} cannot be used with {what}: leave out one or the other")
