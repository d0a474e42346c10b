"""Imports go down the layers only, and what must start quickly loads nothing heavy."""

from __future__ import annotations

import graphlib
import json
import subprocess
import sys
from pathlib import Path

import grimp
import pytest

ROOT = Path(__file__).parents[1]
HEAVY = {"torch", "transformers", "tokenizers", "safetensors", "streamlit", "duckdb", "pandas", "plotly", "papermill"}

# Imports the named package and every module below it, then says which packages are loaded.
PROBE = """
import importlib, json, pkgutil, sys
package = importlib.import_module(sys.argv[1])
if sys.argv[2] == "deep":
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        importlib.import_module(module.name)
print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules})))
"""


def test_layer_contracts_hold() -> None:
    linter = Path(sys.executable).with_name("lint-imports")
    result = subprocess.run([linter, "--no-cache"], cwd=ROOT, capture_output=True, text=True, encoding="utf8")
    assert result.returncode == 0, result.stdout + result.stderr


def test_modules_import_each_other_in_no_circle() -> None:
    """Imports inside functions and those for types alone count as well."""
    graph = grimp.build_graph("hrm_engine", "lab", "dashboard", cache_dir=None)
    imports = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    assert len(imports) > 200
    graphlib.TopologicalSorter(imports).prepare()  # CycleError names the circle


@pytest.mark.parametrize(
    ("package", "depth"),
    [
        ("hrm_engine", "root"),
        ("hrm_engine.config", "deep"),
        ("hrm_engine.store", "deep"),
        ("dashboard", "root"),
        ("dashboard.queries", "deep"),
        ("lab", "root"),
        ("lab.cli", "deep"),
    ],
)
def test_import_is_light(package: str, depth: str) -> None:
    command = [sys.executable, "-c", PROBE, package, depth]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = set(json.loads(result.stdout))
    assert package.partition(".")[0] in loaded
    assert loaded & HEAVY == set()
