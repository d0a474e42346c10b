"""The page of the disk: what takes the space, and what gives it back."""

from __future__ import annotations

import shlex
from pathlib import Path

import streamlit as st

from dashboard import formats
from dashboard.app_pages.changing import Dialogs, answer, ask_button, confirmation, open_dialog, tell
from dashboard.app_pages.parts import cards, choice_table, nothing_yet, plain, search_box, sentence
from dashboard.queries.disk import places, run_frame
from dashboard.resources import workspace
from hrm_engine.store.disk_usage import DiskUsage, RunUsage, disk_usage
from hrm_engine.store.paths import Workspace
from hrm_engine.store.runs import run_id

# A look at thousands of folders for each click of each session would be too much; a deletion looks anew.
_REMEMBERED_S = 30
_PARTS = ("weights", "checkpoints", "best", "metrics", "other")
_UNIT_BYTES = 1_000_000


@st.cache_data(ttl=_REMEMBERED_S, max_entries=4, show_spinner="Looking through the folders ...")
def looked_at(root: Path) -> DiskUsage:
    """What takes the space of the workspace at ``root``."""
    return disk_usage(Workspace(root))


def page() -> None:
    """Sums, the places, the runs, and what can be done about one of them."""
    with st.container(horizontal=True, vertical_alignment="bottom", horizontal_alignment="distribute"):
        st.title("Disk", anchor=False, width="content")
        if st.button("Refresh", key="look_again"):
            looked_at.clear()
    tell()
    taken = looked_at(workspace().root)
    card = cards(delta_color="off", delta_arrow="off")
    card("This workspace", formats.size(taken.total))
    card("Runs", formats.count(len(taken.runs)), help="Archived ones included")
    checkpoints = sum(run.checkpoints for run in taken.runs)
    card("In checkpoints", formats.size(checkpoints), help="Only resuming and forking need them")
    card("Free on the disk", formats.size(taken.disk_free), delta=f"of {formats.size(taken.disk_total)}")
    if not taken.total:
        nothing_yet("Nothing takes space here yet.", "`make demo` trains a small model.")
        return
    left, right = st.columns([3, 1], gap="medium")
    with right:
        place_lines(taken)
    with left:
        runs(taken)
    open_dialog(DIALOGS)


def place_lines(taken: DiskUsage) -> None:
    """Bytes by place, in plain lines."""
    st.subheader("Places", anchor=False)
    sizes = places(taken)
    for title, size in sizes.items():
        with st.container(horizontal=True, horizontal_alignment="distribute"):
            plain(title)
            plain(formats.size(size))
    if sizes.get("Leftovers of killed commands"):
        plain("The next copy, renaming, deletion or training beside leftovers puts them away.")


def runs(taken: DiskUsage) -> None:
    """The runs that match, largest first; what can be done about the ticked one stands below."""
    st.subheader("Runs", anchor=False)
    by_id = {run_id(run.path, workspace()): run for run in taken.runs}
    frame = run_frame(by_id, search_box("Name or folder", 300))
    if frame.empty:
        nothing_yet("No run matches.", "Shorten the search, or train one: `lab train actv1`.")
        return
    for part in ("total", *_PARTS):
        frame[part] = frame[part] / _UNIT_BYTES
    plain(f"{len(frame):,} of {len(taken.runs):,} runs · in MB · select a run to free space")
    make = st.column_config
    number = {name: make.NumberColumn(name.capitalize(), format="%,.1f", width="small") for name in _PARTS}
    columns = {
        "id": make.TextColumn("Folder below artifacts/"),
        "total": make.ProgressColumn(
            "Total", format="%,.1f", min_value=0, max_value=max(float(frame["total"].max()), 1e-6)
        ),
        "archived": make.CheckboxColumn("Archived", width="small"),
        **number,
        "checkpoints": make.NumberColumn("Checkpoints", format="%,.1f"),
        "metrics": make.NumberColumn("Metrics, log", format="%,.1f", width="small"),
    }
    name = choice_table(
        frame,
        [str(name) for name in frame["id"]],
        "disk",
        columns,
        "Runs with their size in megabytes, by what it is",
        most_rows=12,
        column_order=["id", "total", *_PARTS, "archived"],
    )
    if name is not None:
        remedies(name, by_id[name])


def remedies(name: str, run: RunUsage) -> None:
    """The commands that give space back, and the same as buttons."""
    with st.container(border=True):
        st.text(f"{name}: {formats.size(run.total)}")
        command = f"lab bundle delete {shlex.quote(f'artifacts/{name}')}"
        with st.container(horizontal=True):
            ask_button("Delete run", "run", name)
            if run.num_checkpoints > 1:  # the last one: it moves no other
                ask_button("Delete old checkpoints", "checkpoints", name)
        old = f"{command} --old-checkpoints\n" if run.num_checkpoints > 1 else ""
        st.code(f"{old}{command}", language=None)


def delete_checkpoints(run: str) -> None:
    """All checkpoints but the newest."""
    from hrm_engine.bundles.changing import delete_old_checkpoints

    delete_old_checkpoints(_folder(run), workspace=workspace())
    looked_at.clear()


def delete_run(run: str) -> None:
    """A whole run folder."""
    from hrm_engine.bundles.changing import delete_bundle, made_of

    st.text(f"{run} will be deleted with everything in it: weights, checkpoints, metrics. This cannot be undone.")
    if children := [folder.name for folder in made_of(_folder(run).resolve(), workspace())]:
        sentence(f"Made of it: {', '.join(children)}. They have their own weights", key="sentence_children")

    def change() -> None:
        delete_bundle(_folder(run), workspace=workspace())
        looked_at.clear()

    answer("Delete", change, "The run is deleted")


_CHECKPOINTS = confirmation(
    "Delete",
    "All checkpoints of {0} will be deleted but the newest whole one, from which it can still be resumed. The weights "
    "to use stay.",
    delete_checkpoints,
    "The old checkpoints are deleted",
)
DIALOGS: Dialogs = {
    "checkpoints": ("Delete old checkpoints", _CHECKPOINTS),
    "run": ("Delete run", delete_run),
}


def _folder(run: str) -> Path:
    return workspace().artifacts / run


if __name__ == "__main__":
    page()
