"""Weights of an earlier model as the beginning of a new one (``--student-init``)."""

from __future__ import annotations

from pathlib import Path

from hrm_engine.bundles.listing import find_run, folder_problems, parent_record
from hrm_engine.bundles.weights import check_shapes, load_file, load_tensors
from hrm_engine.errors import BundleError
from hrm_engine.models.core import RecurrentCore
from hrm_engine.store.paths import Workspace


def load_student(model: RecurrentCore, source: Path, workspace: Workspace) -> dict[str, str]:
    """Copy the weights of a bundle folder or a safetensors file into ``model``; returns where they came from.

    Raises:
        BundleError: nothing there, damaged, or weights that do not fit; the message names them.
    """
    path = workspace.resolve(source)
    if path.is_file():
        tensors = load_file(path)
    else:
        path = find_run(path, workspace)
        if damage := folder_problems(path):
            raise BundleError(f"--student-init {path} cannot be loaded: {'; '.join(damage)}")
        tensors = load_tensors(path, "model")
    wanted = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    problems = check_shapes({name: tuple(t.shape) for name, t in tensors.items()}, wanted, where=path)
    if problems:
        has_experts = any(".router." in name for name in tensors)
        hint = ""
        if has_experts != bool(model.routers):
            hint = "; it has experts: leave out --no-moe" if has_experts else "; it has no experts: add --no-moe"
        raise BundleError("--student-init does not fit this model: " + "; ".join(problems) + hint)
    model.load_state_dict(tensors)
    return parent_record(path)
