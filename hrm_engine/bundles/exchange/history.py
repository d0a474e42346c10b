"""Origin of an imported bundle: the files of a run that has finished elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from hrm_engine.bundles.save import seal_bundle
from hrm_engine.store.clock import now_iso
from hrm_engine.store.files import sha256_file, write_json
from hrm_engine.store.paths import ARGS_FILE
from hrm_engine.store.processes import library_version
from hrm_engine.store.status import RunStatus, write_status

ARGS_SCHEMA = 1


def write_history(
    folder: Path,
    kind: str,
    source: Mapping[str, str],
    origin: Mapping[str, Any],
    their_parameters: Mapping[str, Any],
    command_line: list[str] | None,
    files: list[str],
) -> None:
    """Write its arguments, its state, and last the list of files.

    Args:
        source: path or hub id, and what tells its version: ``sha256`` or ``revision``.
        origin: what an export needs to give back the same; ``imported`` in the metadata.
        files: the weights, which are there already.
    """
    number = Path(source["path"]).name.removeprefix("step_")
    step = int(number) if number.isdecimal() else 0
    write_json(
        folder / ARGS_FILE,
        {
            "schema_version": ARGS_SCHEMA,
            "kind": kind,
            "command_line": command_line,
            "imported_from": source["path"],
            # not "parameters": those are of a training of ours, which --resume could continue
            "their_parameters": their_parameters,
        },
    )
    write_status(folder, RunStatus.of_this_process("finished", step, f"imported from {source['path']}"))
    now = now_iso()
    facts = {
        "run_id": f"import-{source.get('sha256', sha256_file(folder / files[0]))[:12]}",
        "created": now,
        "updated": now,
        "step": step,
        "weights": {"which": "imported", "step": step},
        "parent": dict(source),
        "imported": dict(origin),
        "code_version": library_version("hrm-lab"),
        "library_versions": {"torch": torch.__version__},
    }
    seal_bundle(folder, kind, files, facts)
