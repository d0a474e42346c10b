"""``lab bundle``: list, show and verify brains; exchange them with transformers and the reference implementations."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, Parameter

from hrm_engine.config import build_config
from hrm_engine.config.exchange import ExportConfig, ImportConfig
from hrm_engine.store.files import read_json
from hrm_engine.store.paths import Workspace
from lab.cli import bundle_changes
from lab.cli.console import console, human_bytes, human_count, printable, show_facts, show_json, show_table
from lab.cli.flags import config_flags
from lab.cli.parameters import Json
from lab.cli.places import relative

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

_PARTS = ("metadata", "config", "training_args")

app = App(name="bundle", help="List, show, verify, copy, rename, delete, import and export brains.")
app.command(bundle_changes.copy)
app.command(bundle_changes.rename)
app.command(bundle_changes.delete)

Name = Annotated[str, Parameter(help="Name or id of a brain, or the path of its folder.")]


@app.command(name="list")
def list_(*, json: Json = False) -> int:
    """All brains of the workspace, with their state and whether their files are whole."""
    from hrm_engine.bundles.listing import list_bundles

    workspace = Workspace.find()
    infos = list_bundles(workspace)
    if json:
        show_json([asdict(bundle) for bundle in infos])
    elif not infos:
        console().print(f"No brains under {workspace.artifacts} yet; 'lab run quickstart' trains one.")
    else:
        columns = ("name", "kind", "architecture", "parameters", "step", "state", "size", "problems", "folder")
        rows = [
            (
                bundle.name,
                bundle.kind or "-",
                bundle.arch or "-",
                human_count(bundle.num_parameters) if bundle.num_parameters else "-",
                "-" if bundle.step is None else bundle.step,
                bundle.state,
                human_bytes(bundle.bytes),
                len(bundle.problems) or "none",
                relative(bundle.path, workspace),
            )
            for bundle in infos
        ]
        show_table(columns, rows, right=("parameters", "step", "size"))
    return 0


@app.command
def show(name: Name, /, *, json: Json = False) -> int:
    """One brain: configuration, origin, last measurements."""
    from hrm_engine.bundles.attached import attached_experts
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
        # The hashes are for 'verify'.
        shown = {name: value for name, value in fields.items() if name not in ("files", "experts")}
        console().print(f"\n{part}.json")
        show_facts(_lines(shown), indent="  ")
    if attached:
        console().print("\nattached experts")
        columns = ("expert", "layer", "column", "sha256")
        rows = [(entry.expert_id, entry.layer, entry.column, entry.sha256[:12]) for entry in attached]
        show_table(columns, rows, right=("column",))
    return 0


@app.command
def verify(name: Name, /, *, json: Json = False) -> int:
    """Compare every file of a brain with its recorded hash; exit code 2 if something is wrong."""
    from hrm_engine.bundles.listing import verify_bundle
    from hrm_engine.store.runs import find_run

    workspace = Workspace.find()
    folder = find_run(name, workspace)
    problems = verify_bundle(folder)
    if json:
        show_json({"path": str(folder), "valid": not problems, "problems": problems})
    elif problems:
        for problem in problems:
            console().print(printable(problem))
    else:
        console().print(f"{relative(folder, workspace)}: every file is as it was saved.")
    return 2 if problems else 0


@app.command(name="import")
@config_flags(ImportConfig)
def import_(
    path: Annotated[
        str, Parameter(help="Checkpoint, a state dict written by torch.save; with --format hf a folder or hub id.")
    ],
    /,
    *,
    json: Json = False,
    **given: Any,
) -> int:
    """Make a brain of a model of transformers, or of a checkpoint of a reference implementation, with equal logits."""
    source = build_config(ImportConfig, overrides=given, typed=True)

    from hrm_engine.bundles.exchange.hf_import import import_model
    from hrm_engine.bundles.exchange.importing import import_checkpoint

    workspace = Workspace.find()
    if source.format == "hf":
        return _report(
            import_model(path, name=source.name, workspace=workspace, command_line=sys.argv), workspace, json
        )
    report = import_checkpoint(
        Path(path),
        source.format,
        name=source.name,
        workspace=workspace,
        data_path=source.data_path,
        model_config=source.config_file,
        sizes=source.sizes,
        command_line=sys.argv,
    )
    return _report(report, workspace, json)


@app.command
@config_flags(ExportConfig)
def export(
    name: Name,
    path: Annotated[Path, Parameter(help="Checkpoint to write; with --format hf a new folder.")],
    /,
    *,
    json: Json = False,
    **given: Any,
) -> int:
    """Write a text brain as a folder for transformers, or a solver as a checkpoint of a reference implementation."""
    target = build_config(ExportConfig, overrides=given, typed=True)

    from hrm_engine.bundles.exchange.exporting import export_checkpoint
    from hrm_engine.bundles.exchange.hf_export import export_folder

    workspace = Workspace.find()
    if target.format == "hf":
        return _report(export_folder(name, path, workspace=workspace, segments=target.segments), workspace, json)
    report = export_checkpoint(
        name,
        target.format,
        path,
        workspace=workspace,
        forward_dtype=target.forward_dtype,
        is_compiled=target.compiled,
    )
    return _report(report, workspace, json)


def _report(report: DataclassInstance, workspace: Workspace, as_json: bool) -> int:
    from lab.cli.reports import show_report

    if as_json:
        show_json({field: str(value) if isinstance(value, Path) else value for field, value in asdict(report).items()})
    else:
        show_report(report, workspace)
    return 0


def _lines(value: dict[str, Any], prefix: str = "") -> list[tuple[str, object]]:
    """Nested content as lines; long texts and lists are shortened (--json has them in full)."""
    lines: list[tuple[str, object]] = []
    for key, inner in value.items():
        if isinstance(inner, dict) and inner:
            lines += _lines(inner, f"{prefix}{key}.")
        else:
            text = str(Path(inner) if isinstance(inner, Path) else inner)
            lines.append((printable(prefix + key), text if len(text) <= 120 else text[:117] + "..."))
    return lines
