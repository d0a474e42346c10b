"""``lab doctor``: one line for each thing, and what to do about it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lab.cli import doctor
from lab.cli.app import main


def test_a_working_installation_passes(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["ok"] is True
    checks = {check["name"]: check for check in report["checks"]}
    assert {"python", "torch", "device", "arithmetic", "threads", "bitsandbytes", "chromium", "artifacts/"} <= set(
        checks
    )
    assert checks["workspace"]["found"] == f"{workspace} (HRM_LAB_ROOT)"
    assert all(check["advice"] for check in checks.values() if check["state"] == "problem")


def test_the_table_names_every_check(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 0
    shown = capsys.readouterr().out
    assert "Everything the lab needs is here." in shown
    for name in ("python", "torch", "device", "workspace"):
        assert f" {name} " in shown


def test_a_folder_that_cannot_be_written_is_a_problem(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (workspace / "artifacts").rmdir()
    (workspace / "artifacts").write_text("a file in the folder's place")
    assert main(["doctor"]) == 2
    shown = capsys.readouterr().out
    assert "problem" in shown
    assert "artifacts" in shown
    assert "keep the lab from working" in shown


def test_a_workspace_that_is_a_file_is_a_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("HRM_LAB_ROOT", str(tmp_path / "file"))
    assert main(["doctor", "--json"]) == 2
    checks = json.loads(capsys.readouterr().out)["checks"]
    assert [check["name"] for check in checks if check["state"] == "problem"] == ["workspace"]


def test_a_missing_package_comes_with_its_install_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "PACKAGES", ("torch", "no-such-package"))
    missing = [check for check in doctor.examine() if check.name == "no-such-package"]
    assert [check.state for check in missing] == ["problem"]
    assert missing[0].advice.endswith("/constraints.txt no-such-package")


@pytest.mark.parametrize(
    ("threads", "cores", "busy", "told"),
    [
        (2, 2, 0.0, ""),
        (2, 2, 0.4, ""),
        (1, 2, 2.0, ""),  # one thread has nobody to wait for
        (1, 1, 1.0, ""),
        (4, 2, 0.0, "more threads than cores are slower: set OMP_NUM_THREADS=2"),
        (2, 2, 1.0, "other work keeps 1.0 cores busy: OMP_NUM_THREADS=1 is"),
        (2, 2, 2.0, "other work keeps 2.0 cores busy: OMP_NUM_THREADS=1 is"),
        (16, 16, 5.6, "other work keeps 5.6 cores busy: OMP_NUM_THREADS=10 is"),
    ],
)
def test_threads_that_would_wait_for_each_other_are_told(threads: int, cores: int, busy: float, told: str) -> None:
    found = doctor.thread_advice(threads, cores, busy=busy)
    assert found.startswith(told)
    assert bool(found) == bool(told)
