"""``lab implant``: the tokenizer and the base model that trainings start from by default."""

from __future__ import annotations

from typing import Any

from hrm_engine.config import build_config
from hrm_engine.config.datasets import ImplantConfig
from hrm_engine.store.paths import Workspace
from lab.cli.flags import config_flags


@config_flags(ImplantConfig)
def implant(**given: Any) -> int:
    """Train a byte-level BPE tokenizer and write the base model folder, the default of --model."""
    settings = build_config(ImplantConfig, overrides=given, typed=True)

    from hrm_engine.starting.implant import create_implant
    from lab.cli.reports import show_report

    workspace = Workspace.find()
    show_report(create_implant(workspace=workspace, settings=settings), workspace)
    return 0
