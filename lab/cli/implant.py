"""``lab implant``: the tokenizer and the base model that trainings start from by default."""

from __future__ import annotations

from hrm_engine.config.datasets import ImplantConfig
from hrm_engine.store.paths import Workspace
from lab.cli.console import can_ask, confirmed, relative, say, show_report
from lab.cli.flags import config_flags


@config_flags(ImplantConfig)
def implant(settings: ImplantConfig) -> int:
    """Train a byte-level BPE tokenizer and write the base model folder, the default of --model."""
    from hrm_engine.starting.implant import create_implant, implant_exists

    workspace = Workspace.find()
    if not settings.replace and implant_exists(workspace) and can_ask():
        place = relative(workspace.base_model, workspace)
        if not confirmed(f"Replace {place}? Experts and runs that were trained on it lose their base.", yes=False):
            say("Nothing was replaced.")
            return 0
        settings = settings.model_copy(update={"replace": True})
    return show_report(create_implant(workspace=workspace, settings=settings), workspace)
