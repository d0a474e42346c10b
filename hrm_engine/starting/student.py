"""Weights of an earlier model as the beginning of a new one (``--student-init``).

Weights mean something in the network that they were trained in only, and not all of it shows in their shapes. A text
bundle therefore brings its settings and its tokenizer along: flags that were not given follow it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hrm_engine.bundles.core_config import read_core_config
from hrm_engine.bundles.listing import folder_problems, parent_record
from hrm_engine.bundles.weights import check_finite, check_shapes, load_file, load_tensors
from hrm_engine.config import CoreConfig, TextTrainConfig
from hrm_engine.config.core import inner_width
from hrm_engine.config.kinds import TEXT
from hrm_engine.errors import BundleError
from hrm_engine.models.core import RecurrentCore
from hrm_engine.store.paths import Workspace
from hrm_engine.store.runs import find_run

_NO_FLAG = ("intermediate_size", "head_width", "norm_eps", "initial_z_l", "rope_theta", "embedding_scale", "prefix_lm")
"""Settings of a network that no flag gives, or only roughly (an inner width by its expansion)."""
_FLAGS = (
    *("arch", "h_layers", "h_cycles", "l_cycles", "hidden_size", "num_heads", "attention_gate", "window_size"),
    *("pos_encodings", "halt_max_steps"),
)
"""Settings that have the names of their flags."""
_FIXED = ("arch", "hidden_size", "h_layers", "num_heads", "pos_encodings")
"""Settings that weights depend on; a message that names their flags says more than a list of tensors."""
_HALT_HEAD = "halt_head."
_SHOWN = 4
"""Tensors that do not fit, in a message."""


def student_source(source: Path | None, workspace: Workspace) -> Path | None:
    """The weights file or folder that ``--student-init`` means: a path as it is, the name of a run as its folder.

    Raises BundleError where there is nothing.
    """
    if source is None or workspace.resolve(source).exists():
        return source
    folder = find_run(str(source), workspace)
    return folder.relative_to(workspace.root) if folder.is_relative_to(workspace.root) else folder


def student_bundle(source: Path | None, workspace: Workspace) -> Path | None:
    """The folder of a bundle or checkpoint that ``--student-init`` names; None for a file, which has weights alone.

    Raises BundleError where there is nothing.
    """
    if source is None or workspace.resolve(source).is_file():
        return None
    return find_run(workspace.resolve(source), workspace)


def _student(source: Path | None, workspace: Workspace) -> tuple[Path, CoreConfig] | None:
    folder = student_bundle(source, workspace)
    return None if folder is None else (folder, read_core_config(folder, kind=TEXT.name, error=BundleError))


def student_config(config: TextTrainConfig, workspace: Workspace) -> TextTrainConfig:
    """The configuration in which what was not given is as in the bundle of ``--student-init``.

    Raises:
        BundleError: no such bundle, or of another kind; or something was given with which its weights mean nothing.
    """
    source = student_source(config.start.student_init, workspace)
    if (bundle := _student(source, workspace)) is None:
        return config
    folder, student = bundle
    network, moe, start = config.network, config.moe, config.start
    given = {name for name in network.model_fields_set if getattr(network, name) is not None}
    fixed = {name: getattr(student, name) for name in _FIXED if name in given}
    conflicts = [
        f"--{name.replace('_', '-')} is {value} in {folder}"
        for name, value in fixed.items()
        if getattr(network, name) != value
    ]
    # Other trainers have inner widths that no expansion gives; then the default stands for the student's.
    has_expansion = student.intermediate_size % 256 == 0
    is_chosen = has_expansion or network.expansion != type(network).model_fields["expansion"].default
    inner = inner_width(student.hidden_size, network.expansion)
    if "expansion" in given and is_chosen and inner != student.intermediate_size:
        conflicts.append(f"--expansion {network.expansion}: the inner width of {folder} is {student.intermediate_size}")
    if conflicts:
        raise BundleError(
            f"--student-init does not fit this model: {'; '.join(conflicts)}. Leave out what follows it anyway"
        )
    followed: dict[str, Any] = {name: getattr(student, name) for name in _FLAGS}
    followed["l_layers"] = student.l_layers if student.l_cycles else 0
    if has_expansion:
        followed["expansion"] = 1.5 * student.intermediate_size / student.hidden_size
    settings = {name: value for name, value in followed.items() if name not in given}
    experts: dict[str, Any] = {"use_moe": student.feed_forward == "moe"}
    if student.num_experts:
        experts |= {"num_experts": student.num_experts, "num_experts_per_tok": student.experts_per_token}
    experts = {name: value for name, value in experts.items() if name not in moe.model_fields_set}
    model = start.model if "model" in start.model_fields_set else str(folder)
    changes = {
        "network": type(network).model_validate({**network.model_dump(include=given), **settings}),
        "moe": type(moe).model_validate({**moe.model_dump(include=moe.model_fields_set), **experts}),
        "start": start.model_copy(update={"model": model, "student_init": source}),
    }
    return config.model_copy(update=changes)


def student_core(core: CoreConfig, source: Path | None, workspace: Workspace) -> CoreConfig:
    """The settings of a new network with those of the bundle that it starts from which no flag says.

    Raises BundleError: the new one has more tokens than the bundle.
    """
    if (bundle := _student(source, workspace)) is None:
        return core
    folder, student = bundle
    if core.vocab_size > student.vocab_size:
        raise BundleError(
            f"--student-init {folder} has {student.vocab_size} tokens and the tokenizer of --model {core.vocab_size}; "
            "leave --model out: a bundle brings its own"
        )
    of_student = {name: getattr(student, name) for name in ("vocab_size", *_NO_FLAG)}
    return CoreConfig.model_validate({**core.model_dump(), **of_student})


def student_notes(core: CoreConfig, source: Path | None, workspace: Workspace) -> list[str]:
    """Notes on what ``--student-init`` gives, and on parts of a bundle that mean something else in such a network."""
    if source is None:
        return []
    taken = f"the weights are those of {workspace.resolve(source)}, token embeddings and output head included"
    if (bundle := _student(source, workspace)) is None:
        return [f"{taken}; a file of weights names no tokens, so they mean those of the tokenizer of --model"]
    (folder, student), notes = bundle, [taken]
    before = student.halt_max_steps
    if before == 1 < core.halt_max_steps:
        notes.append(f"{folder} was trained with one segment: the halting head begins anew, undecided everywhere")
    if before > 1 == core.halt_max_steps:
        notes.append(f"with one segment there is nothing to decide: the halting head of {folder} is left out")
    if core.prefix_lm:
        notes.append(
            "this model reads a prompt as a prefix whose tokens all see each other: training here is causal, and the "
            "new brain goes on to read prompts so"
        )
    return notes


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
    own = model.state_dict()
    if model.config.halting == "token":  # it reads the states and shapes nothing, so the rest means the same without
        tensors = {name: tensor for name, tensor in tensors.items() if not name.startswith(_HALT_HEAD) or name in own}
        tensors = {**{name: tensor for name, tensor in own.items() if name.startswith(_HALT_HEAD)}, **tensors}
    if problems := check_shapes(tensors, own, where=path):
        has_experts = any(".router." in name for name in tensors)
        hint = ""
        if has_experts != bool(model.routers):
            hint = "; it has experts: leave out --no-moe" if has_experts else "; it has no experts: add --no-moe"
        more = f"; and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
        raise BundleError("--student-init does not fit this model: " + "; ".join(problems[:_SHOWN]) + more + hint)
    check_finite(tensors, where=path)
    model.load_state_dict(tensors)
    return parent_record(path)
