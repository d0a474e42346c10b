"""``lab bundle``: list, show and verify brains, and exchange them with transformers and the reference implementations.

``copy``, ``rename`` and ``delete`` take run folders of any kind but experts, which have commands of their own.
"""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, Parameter

from hrm_engine.config.exchange import ExportConfig, ImportConfig
from hrm_engine.store.files import read_json
from hrm_engine.store.paths import Workspace
from lab.cli.console import (
    confirmed,
    human_bytes,
    human_count,
    relative,
    say,
    show_done,
    show_facts,
    show_json,
    show_list,
    show_report,
    show_table,
)
from lab.cli.flags import config_flags
from lab.cli.parameters import Brain, Json, Yes, switch

_PARTS = ("metadata", "config", "training_args")
_SHOWN_CHILDREN = 5
_SHOWN_CHARS = 120

app = App(name="bundle", help="List, show, verify, copy, rename, delete, import and export brains.")

Run = Annotated[str, Parameter(name="NAME", help="Name or id of a run, or the path of its folder in this workspace.")]
New = Annotated[str, Parameter(name="NEW", help="The other name; one that exists is refused.")]


@app.command
def copy(
    name: Run,
    new: New,
    /,
    *,
    with_checkpoints: Annotated[bool, switch("Its checkpoints too, so that the copy can be resumed.")] = False,
) -> int:
    """Write a new brain with the files of a finished one, beside it; its metadata names the parent and its hash."""
    from hrm_engine.bundles.changing import copy_bundle

    workspace = Workspace.find()
    folder = copy_bundle(name, new, with_checkpoints=with_checkpoints, workspace=workspace)
    say(f"Copied {name} to {relative(folder, workspace)}.")
    return 0


@app.command
def rename(name: Run, new: New, /) -> int:
    """Give a run folder another name; its run id, history and checkpoints stay. Not while its training runs."""
    from hrm_engine.bundles.changing import find_changeable, made_of, rename_bundle

    workspace = Workspace.find()
    children = made_of(find_changeable(name, workspace), workspace)
    folder = rename_bundle(name, new, workspace=workspace)
    say(f"Renamed {name} to {relative(folder, workspace)}.")
    if children:
        names = _naming(children, workspace)
        say(f"{names} its old path as the origin; the recorded hash still identifies it.")
    return 0


@app.command
def delete(
    name: Run,
    /,
    *,
    old_checkpoints: Annotated[bool, switch("Only its checkpoints, the newest whole one excepted.")] = False,
    yes: Yes = False,
) -> int:
    """Delete a run folder and everything in it, for good. Not while its training runs."""
    from hrm_engine.bundles.changing import delete_bundle, delete_old_checkpoints, find_changeable, made_of
    from hrm_engine.store.disk_usage import folder_bytes

    workspace = Workspace.find()
    folder = find_changeable(name, workspace)
    place = relative(folder, workspace)
    if old_checkpoints:
        question = f"Delete all checkpoints of {place} but the newest?"
    else:
        question = f"Delete {place} ({human_bytes(folder_bytes(folder))}) for good?"
        if children := made_of(folder, workspace):
            say(
                f"{_naming(children, workspace)} it as the origin. Such a brain has weights of its own, but one whose "
                "training has not finished may need it to resume."
            )
    if not confirmed(question, yes=yes):
        say("Nothing was deleted.")
    elif old_checkpoints:
        deleted, num_bytes = delete_old_checkpoints(folder, workspace=workspace)
        names = ", ".join(path.name for path in deleted) or "none: there is no older one"
        say(f"Deleted checkpoints of {place}: {names}. {human_bytes(num_bytes)} are free again.")
    else:
        num_bytes = delete_bundle(folder, workspace=workspace)
        say(f"Deleted {place}. {human_bytes(num_bytes)} are free again.")
    return 0


@app.command(name="list")
def list_(*, json: Json = False) -> int:
    """All brains of the workspace, with their state and whether their files are whole."""
    from hrm_engine.bundles.listing import list_bundles
    from hrm_engine.store.runs import run_id

    workspace = Workspace.find()
    infos = list_bundles(workspace)
    columns = ("brain", "kind", "arch", "parameters", "step", "state", "size")
    rows = [
        (
            run_id(bundle.path, workspace),
            bundle.kind or "-",
            bundle.arch or "-",
            human_count(bundle.num_parameters) if bundle.num_parameters else "-",
            "-" if bundle.step is None else bundle.step,
            bundle.state + (f", problems: {len(bundle.problems)}" if bundle.problems else ""),
            human_bytes(bundle.bytes),
        )
        for bundle in infos
    ]
    none = f"No brains under {workspace.artifacts} yet; 'lab run quickstart' trains one."
    content = [asdict(bundle) for bundle in infos]
    return show_list(content, columns, rows, json=json, right=("parameters", "step", "size"), if_none=none)


@app.command
def show(name: Brain, /, *, json: Json = False) -> int:
    """One brain: configuration, origin, last measurements."""
    from hrm_engine.bundles.core_config import attached_experts
    from hrm_engine.store.runs import find_run

    workspace = Workspace.find()
    folder = find_run(name, workspace)
    attached = attached_experts(folder)
    content = {part: read_json(folder / f"{part}.json") for part in _PARTS if (folder / f"{part}.json").is_file()}
    if json:
        show_json({"path": str(folder), **content})
        return 0
    show_facts([("folder", relative(folder, workspace))])
    for part, fields in content.items():
        say(f"\n{part}.json")
        # The hashes are for 'verify'.
        show_facts(_lines({name: value for name, value in fields.items() if name not in ("files", "experts")}), "  ")
    if attached:
        say("\nattached experts")
        rows = [(entry.expert_id, entry.layer, entry.column, entry.sha256[:12]) for entry in attached]
        show_table(("expert", "layer", "column", "sha256"), rows, right=("column",))
    return 0


@app.command
def verify(name: Brain, /, *, json: Json = False) -> int:
    """Compare every file of a brain with its recorded hash; exit code 2 if something is wrong."""
    from hrm_engine.bundles.listing import verify_bundle
    from hrm_engine.store.runs import find_run

    workspace = Workspace.find()
    folder = find_run(name, workspace)
    problems = verify_bundle(folder)
    text = "\n".join(problems) or f"{relative(folder, workspace)}: every file is as it was saved."
    show_done(text, {"path": str(folder), "valid": not problems, "problems": problems}, json=json)
    return 2 if problems else 0


@app.command(name="import")
@config_flags(ImportConfig)
def import_(
    path: Annotated[
        str, Parameter(help="Checkpoint, a state dict written by torch.save; with --format hf a folder or hub id.")
    ],
    /,
    settings: ImportConfig,
    *,
    json: Json = False,
) -> int:
    """Make a brain of a model of transformers, or of a checkpoint of a reference implementation, with equal logits."""
    from hrm_engine.bundles.exchange.hf_import import import_model
    from hrm_engine.bundles.exchange.importing import import_checkpoint

    workspace = Workspace.find()
    if settings.format == "hf":
        report = import_model(path, name=settings.name, workspace=workspace, command_line=sys.argv)
        return show_report(report, workspace, json=json)
    place, kind = Path(path), settings.format
    checkpoint = import_checkpoint(place, kind, workspace=workspace, settings=settings, command_line=sys.argv)
    return show_report(checkpoint, workspace, json=json)


@app.command
@config_flags(ExportConfig)
def export(
    name: Brain,
    path: Annotated[Path, Parameter(help="Checkpoint to write; with --format hf a new folder.")],
    /,
    settings: ExportConfig,
    *,
    json: Json = False,
) -> int:
    """Write a text brain as a folder for transformers, or a solver as a checkpoint of a reference implementation."""
    from hrm_engine.bundles.exchange.exporting import export_checkpoint
    from hrm_engine.bundles.exchange.hf_export import export_folder

    workspace = Workspace.find()
    if settings.format == "hf":
        report = export_folder(name, path, workspace=workspace, segments=settings.segments)
        return show_report(report, workspace, json=json)
    checkpoint = export_checkpoint(name, settings.format, path, workspace=workspace, settings=settings)
    return show_report(checkpoint, workspace, json=json)


def _naming(children: list[Path], workspace: Workspace) -> str:
    names = ", ".join(relative(child, workspace) for child in children[:_SHOWN_CHILDREN])
    more = f" and {len(children) - _SHOWN_CHILDREN} more" if len(children) > _SHOWN_CHILDREN else ""
    return f"{names}{more} {'names' if len(children) == 1 else 'name'}"


def _lines(value: dict[str, Any], prefix: str = "") -> list[tuple[str, object]]:
    """Nested content as lines; long texts and lists are shortened (--json has them in full)."""
    lines: list[tuple[str, object]] = []
    for key, inner in value.items():
        if isinstance(inner, dict) and inner:
            lines += _lines(inner, f"{prefix}{key}.")
        else:
            text = str(inner)
            shown = text if len(text) <= _SHOWN_CHARS else text[: _SHOWN_CHARS - 3] + "..."
            lines.append((prefix + key, shown))
    return lines
