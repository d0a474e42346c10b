"""``lab data build-python-docs``: a text corpus that needs no network."""

from __future__ import annotations

from typing import Any

from hrm_engine.config import build_config
from hrm_engine.config.datasets import PythonDocsConfig
from hrm_engine.store.paths import Workspace
from lab.cli.flags import config_flags


@config_flags(PythonDocsConfig)
def build_python_docs(**given: Any) -> int:
    """Build a corpus from the documentation inside this Python installation; needs no network."""
    settings = build_config(PythonDocsConfig, overrides=given, typed=True)

    from hrm_engine.data.text.python_docs import build_python_docs as build
    from lab.cli.reports import show_report

    workspace = Workspace.find()
    show_report(build(workspace.resolve(settings.corpus.output_dir)), workspace)
    return 0
