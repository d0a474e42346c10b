"""``lab bundle copy|rename|delete``: run folders of any kind but experts, which have commands of their own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from hrm_engine.store.paths import Workspace
from lab.cli.console import confirmed, console, human_bytes, printable
from lab.cli.parameters import Yes
from lab.cli.places import relative

Run = Annotated[str, Parameter(name="NAME", help="Name or id of a run, or the path of its folder in this workspace.")]
New = Annotated[str, Parameter(name="NEW", help="The other name; one that exists is refused.")]
_SHOWN = 5


def copy(
    name: Run,
    new: New,
    /,
    *,
    with_checkpoints: Annotated[
        bool,
        Parameter(negative="", show_default=False, help="Its checkpoints too, so that the copy can be resumed."),
    ] = False,
) -> int:
    """Write a new brain with the files of a finished one, beside it; its metadata names the parent and its hash."""
    from hrm_engine.bundles.changing import copy_bundle

    workspace = Workspace.find()
    folder = copy_bundle(name, new, with_checkpoints=with_checkpoints, workspace=workspace)
    console().print(f"{printable(name)} is copied to {printable(relative(folder, workspace))}.")
    return 0


def rename(name: Run, new: New, /) -> int:
    """Give a run folder another name; its run id, history and checkpoints stay. A running training refuses."""
    from hrm_engine.bundles.changing import find_changeable, made_of, rename_bundle

    workspace = Workspace.find()
    children = made_of(find_changeable(name, workspace), workspace)
    folder = rename_bundle(name, new, workspace=workspace)
    console().print(f"{printable(name)} is {printable(relative(folder, workspace))} now.")
    if children:
        names = _told(children, workspace)
        console().print(
            f"{names} its old path as where they came from; the hash there still tells that it is this one."
        )
    return 0


def delete(
    name: Run,
    /,
    *,
    old_checkpoints: Annotated[
        bool,
        Parameter(negative="", show_default=False, help="Only its checkpoints, the newest whole one excepted."),
    ] = False,
    yes: Yes = False,
) -> int:
    """Delete a run folder with all that is in it, for good. A running training refuses."""
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
            console().print(
                f"{_told(children, workspace)} it as where they came from. They have their own weights, but one that "
                "was not finished may need it to be resumed."
            )
    if not confirmed(question, yes=yes):
        console().print("Nothing was deleted.")
    elif old_checkpoints:
        gone, num_bytes = delete_old_checkpoints(folder, workspace=workspace)
        names = ", ".join(path.name for path in gone) or "none: there is no older one"
        console().print(f"Deleted checkpoints of {printable(place)}: {names}. {human_bytes(num_bytes)} are free again.")
    else:
        num_bytes = delete_bundle(folder, workspace=workspace)
        console().print(f"{printable(place)} is deleted. {human_bytes(num_bytes)} are free again.")
    return 0


def _told(children: list[Path], workspace: Workspace) -> str:
    names = ", ".join(relative(child, workspace) for child in children[:_SHOWN])
    more = f" and {len(children) - _SHOWN} more" if len(children) > _SHOWN else ""
    return printable(f"{names}{more} {'names' if len(children) == 1 else 'name'}")
