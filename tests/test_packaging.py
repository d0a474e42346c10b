"""The declared dependencies are the imported ones, and the pins are what the tests run with."""

from __future__ import annotations

import ast
import re
import sys
import sysconfig
import tomllib
from importlib import metadata
from pathlib import Path

import pytest

from hrm_engine import errors

ROOT = Path(__file__).parents[1]
OURS = {"hrm_engine", "lab", "dashboard", "aios"}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf8"))["project"]

# What is imported under another name than it is installed under.
INSTALLED_AS = {
    "bs4": "beautifulsoup4",
    "charset_normalizer": "charset-normalizer",
    "huggingface_hub": "huggingface-hub",
    "jupyter_client": "jupyter-client",
    "pytorch_optimizer": "pytorch-optimizer",
    "yaml": "pyyaml",
}
# Needed without an import of ours: JupyterLab is started as a program, and the progress bars that transformers draws in
# notebooks are widgets.
WITHOUT_IMPORT = {"jupyterlab", "ipywidgets"}
# pydantic's interface is partly made of these, and _typeshed is there for type checkers only.
NOT_INSTALLED_BY_US = {"pydantic_core", "annotated_types", "_typeshed"}


def requirement_name(requirement: str) -> str:
    match = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert match, requirement
    return re.sub(r"[-_.]+", "-", match[0]).lower()


def imported_packages() -> dict[str, str]:
    """Top-level packages imported anywhere in our code, each with one file that does."""
    found: dict[str, str] = {}
    sources = [path for package in OURS for path in (ROOT / package).rglob("*.py")]
    for path in sources:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf8"))):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                names = [node.module]
            else:
                continue
            for name in names:
                found.setdefault(name.partition(".")[0], str(path.relative_to(ROOT)))
    return {name: place for name, place in found.items() if name not in OURS and name not in sys.stdlib_module_names}


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf8").splitlines()
    pairs = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {requirement_name(name): version for name, version in pairs}


def test_every_import_is_declared_and_every_declared_dependency_is_used() -> None:
    extras = [part for name, part in PROJECT["optional-dependencies"].items() if name != "test"]
    declared = {requirement_name(name) for part in (PROJECT["dependencies"], *extras) for name in part}
    imported = {
        INSTALLED_AS.get(name, name): place
        for name, place in imported_packages().items()
        if name not in NOT_INSTALLED_BY_US
    }
    undeclared = {name: place for name, place in imported.items() if name not in declared}
    unused = declared - imported.keys() - WITHOUT_IMPORT
    assert undeclared == {}
    assert unused == set()


def test_every_declared_dependency_is_pinned() -> None:
    extras = PROJECT["optional-dependencies"].values()
    declared = [*PROJECT["dependencies"], *(requirement for extra in extras for requirement in extra)]
    assert {requirement_name(requirement) for requirement in declared} - pins().keys() == set()


def test_pins_are_the_installed_versions() -> None:
    # Only the environment's own folder: importing setuptools adds its private copies of some libraries to sys.path.
    folders = sorted({sysconfig.get_path("purelib"), sysconfig.get_path("platlib")})
    installed = {
        requirement_name(found.metadata["Name"]): found.version.partition("+")[0]
        for found in metadata.distributions(path=folders)
    }
    ours = {"hrm-lab", "pip", "wheel"}
    # CUDA libraries come with torch's CUDA build, which pins them itself; other systems have packages of their own.
    unpinned = {name for name in installed.keys() - pins().keys() - ours if not name.startswith(("nvidia-", "cuda-"))}
    differing = {name: (pin, installed[name]) for name, pin in pins().items() if installed.get(name, pin) != pin}
    assert differing == {}
    if sys.platform == "linux" and sys.version_info[:2] == (3, 11):
        assert unpinned - {"triton"} == set()


def test_data_files_are_part_of_the_package() -> None:
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf8"))["tool"]["setuptools"]["package-data"]
    for package in OURS:
        listed = {path for pattern in packages.get(package, ()) for path in (ROOT / package).glob(pattern)}
        present = {
            path
            for path in (ROOT / package).rglob("*")
            if path.is_file() and path.suffix != ".py" and path.parent.name != "__pycache__"  # what numba compiled, too
        }
        assert listed == present, package
        assert listed or package not in packages


def test_the_command_that_adds_a_package_fits_the_installation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert errors.install_command("wandb") == f"{sys.executable} -m pip install -c {ROOT / 'constraints.txt'} wandb"
    checkout = tmp_path / "my lab"
    (checkout / "hrm_engine").mkdir(parents=True)
    monkeypatch.setattr(errors, "__file__", str(checkout / "hrm_engine" / "errors.py"))
    monkeypatch.setattr(sys, "executable", "/usr/bin/python3")
    assert errors.install_command("wandb") == "/usr/bin/python3 -m pip install wandb"
    (checkout / "constraints.txt").touch()
    assert errors.install_command("wandb") == f'/usr/bin/python3 -m pip install -c "{checkout}/constraints.txt" wandb'


def test_no_message_installs_this_project_from_elsewhere() -> None:
    """It is in no package index: a name with an extra there would be somebody else's."""
    sources = [path for package in OURS for path in (ROOT / package).rglob("*.py")]
    assert [path for path in sources if "pip install" in path.read_text(encoding="utf8")] == []
