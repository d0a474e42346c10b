"""``lab implant``: the tokenizer and the base model that trainings start from by default."""

from __future__ import annotations

from hrm_engine.config.datasets import ImplantConfig
from hrm_engine.store.paths import Workspace
from lab.cli.console import show_report
from lab.cli.flags import config_flags


@config_flags(ImplantConfig)
def implant(settings: ImplantConfig) -> int:
    """Train a byte-level BPE tokenizer and write the base model folder, the default of --model."""
    from hrm_engine.starting.implant import create_implant

    workspace = Workspace.find()
    return show_report(create_implant(workspace=workspace, settings=settings), workspace)
