"""The page Disk without a browser: sums, the table, and what a confirmed deletion does."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest
from streamlit.testing.v1 import AppTest

from dashboard.app_pages.disk import DIALOGS
from dashboard.queries.disk import PLACES, places
from hrm_engine.store.disk_usage import disk_usage
from hrm_engine.store.locks import FolderLock
from hrm_engine.store.paths import Workspace
from tests.dashboard.clicks import confirm, labels, toasts
from tests.dashboard.reading import assert_clean, markup, texts
from tests.dashboard.run_folders import write_checkpoint, write_run

OpenApp = Callable[..., AppTest]
ID = "brains/actv1/large"


@pytest.fixture
def filled(lab: Workspace) -> Workspace:
    """A large run with three checkpoints, a small one, and an archived one."""
    large = write_run(lab.root, "large", last=20)
    for step in (5, 10, 15):
        write_checkpoint(large, step, 50_000)
    write_run(lab.root, "small", last=5, ago=timedelta(days=1))
    write_run(lab.root, "old-20260101T000000Z", last=5, folder="artifacts/brains/actv1/.archive")
    (lab.training_data / "text.txt").write_bytes(bytes(12_345))
    return lab


def test_an_empty_workspace(open_app: OpenApp, lab: Workspace) -> None:
    app = open_app("disk")
    assert_clean(app)
    assert "Nothing takes space here yet" in markup(app)


def test_sums_places_and_runs(open_app: OpenApp, filled: Workspace) -> None:
    app = open_app("disk")
    assert_clean(app)
    shown = {metric.label: metric.value for metric in app.metric}
    assert shown["Runs"] == "3"
    assert shown["In checkpoints"].endswith("kB")
    assert {"Training data", "12.3 kB", "Archived runs"} <= set(texts(app).splitlines())
    table = app.dataframe[0].value.set_index("id")
    assert table.index[0] == ID
    assert table.loc[ID, "checkpoints"] > 0.15
    assert list(table.index[table["archived"]]) == ["brains/actv1/.archive/old-20260101T000000Z"]
    assert sum(table["total"]) * 1e6 == pytest.approx(sum(run.total for run in disk_usage(filled).runs))
    assert labels(app) == {"Refresh"}
    app.text_input[0].input("small").run()
    assert list(app.dataframe[0].value["id"]) == ["brains/actv1/small"]
    app.text_input[0].input("nothing like it").run()
    assert "No run matches" in markup(app)


def ask(open_app: OpenApp, kind: str) -> AppTest:
    """The page with one of its dialogs open about the large run."""
    assert kind in DIALOGS
    app = open_app("disk")
    app.session_state["open_dialog"] = (kind, ID)
    app.run()
    assert_clean(app)
    return app


def test_old_checkpoints_are_deleted(open_app: OpenApp, filled: Workspace) -> None:
    app = confirm(ask(open_app, "checkpoints"))
    assert "old checkpoints are deleted" in toasts(app)
    assert [path.name for path in (filled.brains / "large" / "checkpoints").iterdir()] == ["step_00000015"]
    assert app.dataframe[0].value.set_index("id").loc[ID, "checkpoints"] < 0.06


def test_a_run_is_deleted(open_app: OpenApp, filled: Workspace) -> None:
    app = ask(open_app, "run")
    assert "This cannot be undone" in texts(app)
    app = confirm(app)
    assert "The run is deleted" in toasts(app)
    assert not (filled.brains / "large").exists()
    assert ID not in set(app.dataframe[0].value["id"])


def test_a_run_at_work_is_refused(open_app: OpenApp, filled: Workspace) -> None:
    app = ask(open_app, "run")
    with FolderLock(filled.brains / "large"):
        app = confirm(app)
        assert "is locked by process" in texts(app)
    assert (filled.brains / "large" / "metrics.jsonl").is_file()


def test_names_are_never_markup(open_app: OpenApp, lab: Workspace) -> None:
    write_run(lab.root, "b <img src=x> **bold**", last=5)
    app = open_app("disk")
    assert_clean(app)
    assert "<img" not in markup(app)


def test_every_place_has_a_title(filled: Workspace) -> None:
    assert PLACES.keys() == disk_usage(filled).places.keys()
    usage = disk_usage(filled)
    assert sum(places(usage).values()) == usage.total
    assert list(places(usage).values()) == sorted(usage.places.values(), reverse=True)[: len(places(usage))]
