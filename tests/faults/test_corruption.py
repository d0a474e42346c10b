"""Every file of every kind of folder with flipped bits, cut off, zeroed and empty, through everything that reads it.

What reads either works or ends in an error of ours; no file is changed by being read.
"""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from dashboard.queries import attachments, bundles, experts
from dashboard.queries.disk import places, run_frame
from dashboard.queries.folder import Checkpoints, log_tail, parameters
from dashboard.queries.metrics import RunMetrics
from dashboard.queries.overview import overview
from dashboard.queries.puzzles import evaluated_rows
from dashboard.queries.runs import RunIndex
from hrm_engine.bundles.experts import attach_expert
from hrm_engine.bundles.load import load_bundle
from hrm_engine.errors import HRMError
from hrm_engine.starting.implant import starting_point
from hrm_engine.store.disk_usage import disk_usage
from hrm_engine.store.experts import ExpertRegistry
from hrm_engine.store.goals import Goals
from hrm_engine.store.paths import Workspace
from lab.cli.app import main
from tests.lab.notebooks import write_notebook
from tests.tiny_experts import make_expert
from tests.tiny_puzzles import DATASET, PuzzleLab, puzzle_source
from tests.tiny_runs import Lab

__all__ = ["puzzle_source"]

BRAIN, SOLVER = "artifacts/brains/actv1/brain", "artifacts/runs/solver"
PUZZLE = "1030040000000210"


@dataclass(frozen=True)
class Kind:
    """One kind of folder: its files, and what reads them in a workspace; the last only once for each file."""

    files: tuple[str, ...]
    readers: tuple[Callable[[Path], object], ...]
    slow: tuple[Callable[[Path], object], ...] = ()
    sealed: str | None = None
    """Name of the bundle of which ``lab bundle verify`` must see every change, but to what a run writes on."""


def command(*words: str) -> Callable[[Path], object]:
    """A command line, which ends with an exit code of ours."""

    def run(root: Path) -> None:
        assert main(list(words)) in (0, 2, 5), words

    return run


def pages(folder: str) -> Callable[[Path], object]:
    """What the pages of a run and of all runs ask."""

    def ask(root: Path) -> None:
        workspace, run = Workspace(root), root / folder
        RunIndex(workspace).refresh().frame()
        metrics = RunMetrics(run)
        overview(run, metrics, parameters(run))
        parameters(run).frame("lr")
        for frame in (metrics.train(["loss"]), metrics.evaluation(), metrics.depths(), metrics.samples()):
            assert len(frame) < 1000
        metrics.incidents(), metrics.system(), metrics.routing(), metrics.notes()
        Checkpoints().of(run)
        log_tail(run / "run.log")
        evaluated_rows(run)
        runs = workspace.run_dirs()
        bundles.brains(runs, workspace), bundles.solvers(runs, workspace), attachments.by_expert(runs, workspace)
        usage = disk_usage(workspace)
        places(usage), run_frame({run.path.name: run for run in usage.runs})

    return ask


def expert_pages(root: Path) -> None:
    workspace = Workspace(root)
    with ours():
        cards = ExpertRegistry(workspace).cards()
        table = experts.ExpertTable(cards)
        table.find("a"), table.tree(), table.counts(())
        for card in cards:
            experts.card_fields(card), experts.losses(card)
            attachments.takers(card, workspace.run_dirs(), workspace)
    with ours():
        experts.goal_frame(experts.served_goals(Goals(workspace)))


def attached(root: Path) -> None:
    with ours():
        shutil.rmtree(attach_expert("poems", "brain", name="child", workspace=Workspace(root)))


def resumed(name: str) -> Callable[[Path], object]:
    """Going on with a run, in a copy of it: it changes what it goes on with."""

    def resume(root: Path) -> None:
        run = root / name
        whole = shutil.copytree(run, root / "whole", symlinks=True)
        try:
            assert main(["train", "actv1", "--resume", "--brain-name", run.name, "--steps", "7"]) in (0, 2, 5)
        finally:
            shutil.rmtree(run)
            whole.rename(run)

    return resume


def loaded(*places: str) -> Callable[[Path], object]:
    def load(root: Path) -> None:
        for place in places:
            with ours():
                load_bundle(root / place, workspace=Workspace(root))

    return load


def base_model(root: Path) -> None:
    workspace = Workspace(root)
    with ours():
        starting_point(str(workspace.base_model), hidden_size=64, workspace=workspace)


ours = lambda: suppress(HRMError)  # noqa: E731
LISTED = command("bundle", "list")
READ = (
    command("generate", "--bundle", "brain", "--prompt", "the", "--max-new-tokens", "1"),
    command("logs", "brain"),
    loaded(f"{BRAIN}/checkpoints/step_00000006", f"{BRAIN}/best"),
    resumed(BRAIN),
)
KINDS: dict[str, Kind] = {
    "run": Kind(
        files=(f"{BRAIN}/*",),
        readers=(pages(BRAIN), LISTED, command("bundle", "show", "brain")),
        slow=(*READ, command("eval", "text", "--bundle", "brain", "--max-rows", "1")),
        sealed="brain",
    ),
    "parts of a run": Kind(
        files=(f"{BRAIN}/best/*", f"{BRAIN}/checkpoints/step_00000006/*"),
        readers=(LISTED,),
        slow=(pages(BRAIN), *READ),
        sealed="brain",
    ),
    "solver": Kind(
        files=(f"{SOLVER}/*.json", f"{SOLVER}/*.safetensors", f"{SOLVER}/evaluation/*"),
        readers=(LISTED, command("bundle", "show", "solver")),
        slow=(pages(SOLVER), command("solve", "--bundle", "solver", "--puzzle", PUZZLE)),
        sealed="solver",
    ),
    "experts": Kind(
        files=("artifacts/experts/registry.json", "artifacts/experts/poems/*", "artifacts/goals.sqlite"),
        readers=(expert_pages, command("experts", "list"), command("experts", "show", "poems")),
        slow=(attached, command("goals", "list", "--all"), command("goals", "list-for-expert", "poems")),
    ),
    "base model": Kind(files=("artifacts/hf_implant/base_model/*",), readers=(base_model,)),
    "puzzles": Kind(
        files=(f"{DATASET}/test/*", f"{DATASET}/*.json"),
        readers=(command("data", "show", DATASET), command("solve", "--bundle", "solver", "--index", "0")),
    ),
    "recipes": Kind(
        files=("recipe.yaml", "notebook.ipynb"),
        readers=(command("recipes", "show", "recipe.yaml"), command("recipes", "show", "notebook.ipynb")),
    ),
}
WRITTEN_ON = ("status.json", "metrics.jsonl", "run.log", "rows.jsonl", "summary.json", ".lock", ".lock.json")


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory, source: Path, puzzle_source: Path) -> Path:
    """A workspace with something of every kind."""
    root = tmp_path_factory.mktemp("everything")
    (root / "training_data").mkdir()
    workspace = Workspace(root)
    shutil.copytree(source / "artifacts" / "hf_implant" / "base_model", workspace.base_model)
    Lab(root, source).trained("brain")
    PuzzleLab(root, puzzle_source).trained("solver")
    inner = json.loads((root / BRAIN / "config.json").read_text())["intermediate_size"]
    make_expert(workspace, "poems", inner=inner)
    goals = Goals(workspace)
    goals.add("Rhyme", expert_id="poems")
    goals.add("Rest")
    write_notebook(root / "notebook.ipynb", "print(steps)", parameters="steps: int = 3\n")
    recipe = "title: a\ndescription: b\nnotebook: notebook.ipynb\nparameters: {steps: 5}\n"
    (root / "recipe.yaml").write_text(recipe)
    return root


def odd(content: bytes, draw: random.Random) -> bytes:
    """JSON in which one value, at whatever depth, is something that nobody expects there."""
    value = json.loads(content)
    places: list[tuple[Any, Any]] = []
    pending = [value]
    while pending:
        inner = pending.pop()
        keys = list(inner) if isinstance(inner, dict) else range(len(inner)) if isinstance(inner, list) else ()
        places += [(inner, key) for key in keys]
        pending += [inner[key] for key in keys]
    if not places:
        return b"null"
    where, key = draw.choice(places)
    where[key] = draw.choice([None, [], {}, -1, 10**30, 1e300, True, "x", [None], {"a": [1]}, "\udc80"])
    return json.dumps(value).encode()


def damaged(content: bytes, draw: random.Random, *, is_json: bool) -> Iterator[bytes]:
    """Two flipped bits, each by itself; the rest lost; a block of zeros; nothing; odd values in JSON."""
    for _ in range(2 if content else 0):
        flipped = bytearray(content)
        flipped[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
        yield bytes(flipped)
    at = draw.randrange(len(content) + 1)
    yield content[:at]
    yield content[:at] + bytes(min(4096, len(content) - at)) + content[at + 4096 :]
    yield b""
    for _ in range(3 * is_json):
        yield odd(content, draw)


def everything_in(root: Path) -> Mapping[str, bytes]:
    paths = (path for path in root.rglob("*") if path.is_file() and not path.name.startswith("."))
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in paths}


@pytest.mark.parametrize("name", KINDS)
def test_damage_ends_in_a_sentence_and_changes_nothing(
    everything: Path, name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HRM_LAB_ROOT", str(everything))
    kind = KINDS[name]
    files = sorted({path for pattern in kind.files for path in everything.glob(pattern) if path.is_file()})
    assert len(files) > 1
    for file in files:
        whole = file.read_bytes()
        place = file.relative_to(everything).as_posix()
        for number, content in enumerate(damaged(whole, random.Random(place), is_json=file.suffix == ".json")):
            file.write_bytes(content)
            before = everything_in(everything)
            for reader in (*kind.readers, *kind.slow * (number == 0)):
                reader(everything)
            if kind.sealed:
                is_seen = main(["bundle", "verify", kind.sealed]) == 2
                assert is_seen or file.name in WRITTEN_ON or content == whole, (place, number)
            assert everything_in(everything) == before, (place, number)
        file.write_bytes(whole)
    assert "Traceback" not in capsys.readouterr().err
