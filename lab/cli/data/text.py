"""``lab data build-python-docs``: a text corpus that needs no network."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from hrm_engine.store.paths import Workspace

PYTHON_DOCS = Path("training_data/curated_datasets/python_docs")


def build_python_docs(
    *,
    output_dir: Annotated[Path, Parameter(help="Folder for train.jsonl and validation.jsonl.")] = PYTHON_DOCS,
) -> int:
    """Build a corpus from the documentation inside this Python installation; needs no network."""
    from hrm_engine.data.text.python_docs import build_python_docs as build
    from lab.cli.reports import show_report

    workspace = Workspace.find()
    show_report(build(workspace.resolve(output_dir)), workspace)
    return 0
