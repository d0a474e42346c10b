"""``lab bundle``: list, show and verify brains; exchange them with transformers and the reference implementations."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import App, Parameter

from hrm_engine.errors import ConfigError
from hrm_engine.store.files import read_json
from hrm_engine.store.paths import Workspace
from lab.cli import bundle_changes
from lab.cli.console import console, human_bytes, human_count, printable, show_facts, show_json, show_table
from lab.cli.places import relative

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

_PARTS = ("metadata", "config", "training_args")

app = App(name="bundle", help="List, show, verify, copy, rename, delete, import and export brains.")
app.command(bundle_changes.copy)
app.command(bundle_changes.rename)
app.command(bundle_changes.delete)

Json = Annotated[bool, Parameter(negative="", show_default=False, help="Write JSON instead.")]
Name = Annotated[str, Parameter(help="Name of a brain, or the path of its folder.")]
Format = Annotated[
    Literal["sapient-hrm", "trm", "hf"],
    Parameter(
        name="--format",
        help="Whose: sapientinc/HRM or TRM (SamsungSAILMontreal), solvers; hf: hrm_text in transformers.",
    ),
]


@app.command(name="list")
def list_(*, json: Json = False) -> int:
    """All brains of the workspace, with their state and whether their files are whole."""
    from hrm_engine.bundles import list_bundles

    workspace = Workspace.find()
    found = list_bundles(workspace)
    if json:
        show_json([asdict(bundle) for bundle in found])
    elif not found:
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
            for bundle in found
        ]
        show_table(columns, rows, right=("parameters", "step", "size"))
    return 0


@app.command
def show(name: Name, /, *, json: Json = False) -> int:
    """One brain: configuration, origin, last measurements."""
    from hrm_engine.bundles import find_run
    from hrm_engine.bundles.experts import attached_experts

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
        told = {name: value for name, value in fields.items() if name not in ("files", "experts")}
        console().print(f"\n{part}.json")
        show_facts(_lines(told), indent="  ")
    if attached:
        console().print("\nattached experts")
        columns = ("expert", "layer", "column", "sha256")
        rows = [(entry.expert_id, entry.layer, entry.column, entry.sha256[:12]) for entry in attached]
        show_table(columns, rows, right=("column",))
    return 0


@app.command
def verify(name: Name, /, *, json: Json = False) -> int:
    """Compare every file of a brain with its recorded hash; exit code 2 if something is wrong."""
    from hrm_engine.bundles import find_run, verify_bundle

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
def import_(
    path: Annotated[
        str, Parameter(help="Checkpoint, a state dict written by torch.save; with --format hf a folder or hub id.")
    ],
    /,
    *,
    kind: Format,
    name: Annotated[
        str, Parameter(help="Name of the new brain: in artifacts/runs, a text brain in artifacts/brains/actv1.")
    ],
    data_path: Annotated[Path | None, Parameter(help="Dataset that it was trained on.")] = None,
    model_config: Annotated[
        Path | None, Parameter(help="Its configuration. Default: all_config.yaml beside the checkpoint.")
    ] = None,
    seq_len: Annotated[int | None, Parameter(help="Cells of a row, where there is no dataset.")] = None,
    num_heads: Annotated[int | None, Parameter(help="Attention heads. Default: its configuration, else 8.")] = None,
    h_cycles: Annotated[
        int | None, Parameter(help="High-level cycles. Default: its configuration, else 2; trm 3.")
    ] = None,
    l_cycles: Annotated[
        int | None, Parameter(help="Low-level calls in a cycle. Default: its configuration, else 2; trm 6.")
    ] = None,
    halt_max_steps: Annotated[int | None, Parameter(help="Segments. Default: its configuration, else 16.")] = None,
    puzzle_tokens: Annotated[
        int | None, Parameter(help="Positions of trm's puzzle embedding. Default: its configuration, else 16.")
    ] = None,
    pos_encodings: Annotated[
        Literal["rope", "learned", "none"] | None,
        Parameter(help="Position encoding. Default: its weights or configuration, else rope."),
    ] = None,
    json: Json = False,
) -> int:
    """Make a brain of a model of transformers, or of a checkpoint of a reference implementation, with equal logits."""
    from hrm_engine.bundles.exchange import Told, import_checkpoint, import_model

    workspace = Workspace.find()
    sizes = {
        "seq_len": seq_len,
        "num_heads": num_heads,
        "h_cycles": h_cycles,
        "l_cycles": l_cycles,
        "halt_max_steps": halt_max_steps,
        "puzzle_tokens": puzzle_tokens,
        "pos_encodings": pos_encodings,
    }
    if kind == "hf":
        _refuse({"data_path": data_path, "model_config": model_config, **sizes}, "hf: its folder says that itself")
        return _report(import_model(path, name=name, workspace=workspace, command_line=sys.argv), workspace, json)
    report = import_checkpoint(
        Path(path),
        kind,
        name=name,
        workspace=workspace,
        data_path=data_path,
        model_config=model_config,
        told=Told(**sizes),
        command_line=sys.argv,
    )
    return _report(report, workspace, json)


@app.command
def export(
    name: Name,
    path: Annotated[Path, Parameter(help="Checkpoint to write; with --format hf a new folder.")],
    /,
    *,
    kind: Format,
    forward_dtype: Annotated[
        Literal["bfloat16", "float16", "float32"] | None,
        Parameter(help="What theirs computes in. Default: as it was when imported, else bfloat16."),
    ] = None,
    compiled: Annotated[
        bool | None, Parameter(help="Names as of a compiled network. Default: as they were when imported, else yes.")
    ] = None,
    segments: Annotated[
        int | None, Parameter(help="hf: depth at which the brain is read. Needed where it has more than one.")
    ] = None,
    json: Json = False,
) -> int:
    """Write a text brain as a folder for transformers, or a solver as a checkpoint of a reference implementation."""
    from hrm_engine.bundles.exchange import export_checkpoint, export_folder

    workspace = Workspace.find()
    if kind == "hf":
        _refuse({"forward_dtype": forward_dtype, "compiled": compiled}, "hf: transformers decides that when it loads")
        return _report(export_folder(name, path, workspace=workspace, segments=segments), workspace, json)
    _refuse({"segments": segments}, f"{kind}, which knows segments itself")
    report = export_checkpoint(name, kind, path, workspace=workspace, forward_dtype=forward_dtype, is_compiled=compiled)
    return _report(report, workspace, json)


def _refuse(options: dict[str, object], kind: str) -> None:
    """Options that mean nothing for a format are no silent extra."""
    given = [f"--{name.replace('_', '-')}" for name, value in options.items() if value is not None]
    if given:
        raise ConfigError(f"{', '.join(given)}: not with --format {kind}")


def _report(report: DataclassInstance, workspace: Workspace, as_json: bool) -> int:
    from lab.cli.reports import show_report

    if as_json:
        show_json({field: str(value) if isinstance(value, Path) else value for field, value in asdict(report).items()})
    else:
        show_report(report, workspace)
    return 0


def _lines(value: dict[str, Any], prefix: str = "") -> list[tuple[str, object]]:
    """Nested content as lines; long texts and lists are shortened (--json has them in full)."""
    found: list[tuple[str, object]] = []
    for key, inner in value.items():
        if isinstance(inner, dict) and inner:
            found += _lines(inner, f"{prefix}{key}.")
        else:
            text = str(Path(inner) if isinstance(inner, Path) else inner)
            found.append((printable(prefix + key), text if len(text) <= 120 else text[:117] + "..."))
    return found
