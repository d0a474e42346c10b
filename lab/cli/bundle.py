"""``lab bundle``: list, show and verify brains."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, Parameter

from hrm_engine.store.files import read_json
from hrm_engine.store.paths import Workspace
from lab.cli.console import console, human_bytes, human_count, printable, show_facts, show_json, show_table
from lab.cli.places import relative

_PARTS = ("metadata", "config", "training_args")

app = App(name="bundle", help="List, show and verify brains.")

Json = Annotated[bool, Parameter(negative="", show_default=False, help="Write JSON instead.")]
Name = Annotated[str, Parameter(help="Name of a brain, or the path of its folder.")]


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

    workspace = Workspace.find()
    folder = find_run(name, workspace)
    content = {part: read_json(folder / f"{part}.json") for part in _PARTS if (folder / f"{part}.json").is_file()}
    if json:
        show_json({"path": str(folder), **content})
        return 0
    show_facts([("folder", relative(folder, workspace))])
    for part, fields in content.items():
        # The hashes are for 'verify'.
        told = {name: value for name, value in fields.items() if name != "files"}
        console().print(f"\n{part}.json")
        show_facts(_lines(told), indent="  ")
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
