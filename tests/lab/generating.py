"""A tiny brain, and ``lab generate`` with it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from hrm_engine.bundles.bundle import Bundle
from hrm_engine.bundles.load import load_bundle
from hrm_engine.store.paths import Workspace
from lab.cli.app import main
from tests.tiny_runs import Lab

Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, source: Path) -> Path:
    """The run folder of a tiny brain of up to three segments."""
    root = tmp_path_factory.mktemp("writer")
    (root / "artifacts").mkdir()
    (root / "training_data").mkdir()
    Lab(root, source).trained("writer", h_cycles=2, halt_max_steps=3, max_seq_len=32)
    return Workspace(root).brains / "writer"


@pytest.fixture
def brain(workspace: Path, trained: Path) -> Bundle:
    """The tiny brain in the test's own workspace."""
    found = Workspace(workspace)
    shutil.copytree(trained, found.brains / "writer")
    return load_bundle("writer", workspace=found)


def written(*words: object, code: int = 0) -> None:
    assert main(["generate", "--bundle", "writer", "--device", "cpu", *map(str, words)]) == code


def answers(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf8").splitlines()]
