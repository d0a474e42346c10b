from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hrm_engine.errors import ConfigError
from hrm_engine.store.paths import Workspace, check_name, inside

ALLOWED = re.compile(r"\A[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")


@given(st.text(max_size=80) | st.from_regex(ALLOWED))
@example("../x")
@example("/etc")
@example("a\\b")
@example("a\0b")
@example("%252e%252e")
@example("x" * 300)
@example("x" * 65)
@example("x" * 64)
@example("name\n")
@example("")
@example(".hidden")
@example("<script>")
@example("Ünïcode")
@example("٣")
def test_a_name_is_allowed_exactly_if_it_fits_the_pattern(name: str) -> None:
    if ALLOWED.match(name):
        assert check_name(name) == name
    else:
        with pytest.raises(ConfigError, match="brain name") as raised:
            check_name(name, "brain name")
        assert len(str(raised.value)) < 400
        assert str(raised.value).isascii()


@given(st.from_regex(ALLOWED))
def test_an_allowed_name_stays_in_its_folder(name: str) -> None:
    root = Path("/somewhere")
    assert inside(root, Path(check_name(name))).parent == root.resolve()


def test_inside_gives_the_resolved_path(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    assert inside(tmp_path, Path("a/../b")) == tmp_path.resolve() / "b"
    assert inside(tmp_path, tmp_path / "a" / "x") == tmp_path.resolve() / "a" / "x"
    assert inside(tmp_path, tmp_path) == tmp_path.resolve()


@pytest.mark.parametrize(
    "path", ["..", "a/../../x", "/etc/passwd", "../store-sibling", "a\0b", "x" * 300, "a/" + "ü" * 128]
)
def test_what_leads_out_is_refused(tmp_path: Path, path: str) -> None:
    root = tmp_path / "store"
    root.mkdir()
    with pytest.raises(ConfigError):
        inside(root, Path(path))


def test_links_are_followed_before_the_comparison(tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    root.mkdir()
    outside.mkdir()
    try:
        (root / "out").symlink_to(outside)
        (root / "in").symlink_to(root / "real")
        (root / "loop").symlink_to(root / "loop")
    except OSError:
        pytest.skip("this account may not make symbolic links")
    with pytest.raises(ConfigError, match="leads out"):
        inside(root, Path("out/model.safetensors"))
    assert inside(root, Path("in/x")) == root.resolve() / "real" / "x"
    with pytest.raises(ConfigError, match="cannot be resolved"):
        inside(root, Path("loop/x"))


def test_the_workspace_is_the_variable_else_the_nearest_parent_else_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HRM_LAB_ROOT", raising=False)
    deep = tmp_path / "lab" / "artifacts" / "runs"
    deep.mkdir(parents=True)
    assert Workspace.find(deep).root == deep
    (tmp_path / "lab" / "training_data").mkdir()
    assert Workspace.find(deep).root == tmp_path / "lab"
    monkeypatch.chdir(deep)
    assert Workspace.find().root == tmp_path / "lab"
    monkeypatch.setenv("HRM_LAB_ROOT", str(tmp_path / "elsewhere"))
    assert Workspace.find(deep).root == tmp_path / "elsewhere"
    monkeypatch.setenv("HRM_LAB_ROOT", "")
    assert Workspace.find(deep).root == tmp_path / "lab"
    (tmp_path / "file").write_text("x")
    monkeypatch.setenv("HRM_LAB_ROOT", str(tmp_path / "file"))
    with pytest.raises(ConfigError, match="HRM_LAB_ROOT"):
        Workspace.find()


def test_the_places_of_a_workspace(tmp_path: Path) -> None:
    space = Workspace(tmp_path)
    artifacts = tmp_path / "artifacts"
    assert space.brains == artifacts / "brains" / "actv1"
    assert space.runs == artifacts / "runs"
    assert space.notebooks == artifacts / "notebooks"
    assert space.experts == artifacts / "experts"
    assert space.agents == artifacts / "agent"
    assert space.base_model == artifacts / "hf_implant" / "base_model"
    assert space.tokenizer_file == artifacts / "hf_implant" / "tokenizers" / "tokenizer.json"
    assert list(tmp_path.iterdir()) == []


def test_relative_paths_are_taken_from_the_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("USERPROFILE", str(tmp_path / "home"))
    space = Workspace(tmp_path)
    assert space.resolve("training_data/x.txt") == tmp_path / "training_data" / "x.txt"
    assert space.resolve(tmp_path / "y") == tmp_path / "y"
    assert space.resolve("~/z") == tmp_path / "home" / "z"
    with pytest.raises(ConfigError, match="NUL"):
        space.resolve("a\0b")


def make_run(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "training_args.json").write_text("{}")
    return folder


def test_run_folders_are_found_wherever_they_lie(tmp_path: Path) -> None:
    space = Workspace(tmp_path)
    expected = [
        make_run(space.brains / "default"),
        make_run(space.brains / "best"),  # a run may have this name; the folder of a run of this name is another thing
        make_run(space.runs / "sudoku"),
        make_run(space.artifacts / "experts" / "e1" / "inner"),
        make_run(space.runs / 'odd <script>"quotes\'" 😀'),
    ]
    make_run(space.brains / "default" / "checkpoints" / "step_00000001")
    make_run(space.brains / "default" / "best")
    make_run(space.brains / ".archive" / "old-20260101T000000Z")
    crashed = space.runs / "crashed"
    make_run(crashed / "checkpoints" / "step_00000001")
    (crashed / "metrics.jsonl").write_text("")
    assert space.run_dirs() == sorted(expected)
    assert Workspace(tmp_path / "nothing").run_dirs() == []


def test_links_are_no_run_folders(tmp_path: Path) -> None:
    space = Workspace(tmp_path / "lab")
    real = make_run(space.brains / "default")
    outside = make_run(tmp_path / "outside")
    sly = space.brains / "sly"
    sly.mkdir()
    try:
        (space.brains / "out").symlink_to(outside)
        (space.brains / "twice").symlink_to(real)
        (space.brains / "up").symlink_to(space.artifacts)
        (sly / "training_args.json").symlink_to(outside / "training_args.json")
    except OSError:
        pytest.skip("this account may not make symbolic links")
    assert space.run_dirs() == [real]


@pytest.mark.skipif(sys.platform == "win32", reason="undecodable names exist on POSIX only")
def test_an_undecodable_name_hides_no_other_run(tmp_path: Path) -> None:
    space = Workspace(tmp_path)
    real = make_run(space.brains / "default")
    odd = os.fsencode(space.brains) + b"/bad\xff"
    os.mkdir(odd)  # noqa: PTH102
    assert real in space.run_dirs()


def test_a_folder_that_may_not_be_entered_is_no_run(tmp_path: Path) -> None:
    for name, mode in (("open", 0o755), ("listed", 0o444), ("closed", 0o000)):
        folder = tmp_path / "artifacts" / "runs" / name
        folder.mkdir(parents=True)
        (folder / "training_args.json").write_text("{}")
        folder.chmod(mode)
    code = "import sys, pathlib, hrm_engine.store.paths as p; w = p.Workspace(pathlib.Path(sys.argv[1]))"
    command = [sys.executable, "-c", f"{code}; print([run.name for run in w.run_dirs()])", str(tmp_path)]
    if os.geteuid() == 0:  # who reads everything, unless told not to
        if shutil.which("setpriv") is None:
            pytest.skip("needs setpriv to be less than root")
        rights = "-dac_override,-dac_read_search"
        command = ["setpriv", f"--bounding-set={rights}", f"--inh-caps={rights}", *command]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    for folder in (tmp_path / "artifacts" / "runs").iterdir():
        folder.chmod(0o755)
    assert (done.stdout, done.stderr) == ("['open']\n", "")
