"""Real trainings of a fraction of a second, for the tests of training, bundles and faults.

A run has 180,000 parameters, rows of 16 to 32 tokens and a vocabulary of 300; a step takes some milliseconds.
"""

from __future__ import annotations

import json
import os
import random
import select
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from filelock import FileLock

from hrm_engine.config import TextTrainConfig, build_config
from hrm_engine.starting.implant import create_implant
from hrm_engine.store.paths import Workspace
from hrm_engine.training import TrainResult, train

REPOSITORY = Path(__file__).parents[1]
WORDS = ("the", "a", "cat", "dog", "runs", "sleeps", "in", "house", "tree", "under", "over", "list", "value", "returns")
TEXT = "training_data/text.txt"
VOCABULARY = 300

SETTINGS: dict[str, Any] = {
    "dataset_file": TEXT,
    "hidden_size": 64,
    "use_moe": False,
    "num_heads": 2,
    "h_layers": 1,
    "l_layers": 1,
    "h_cycles": 1,
    "max_seq_len": 16,
    "batch_size": 2,
    "lr": 3e-3,
    "steps": 6,
    "eval_every": 3,
    "eval_batches": 1,
    "save_every": 2,
    "device": "cpu",
}

# What may differ between two runs that did the same: times, speeds, memory, and what tells of the interruption.
_TIMED = ("_s", "_per_s")
_SESSION_EVENTS = ("start", "resume", "checkpoint", "stop", "final", "system")


def text(num_documents: int = 40, seed: int = 0) -> str:
    """Documents of 10 to 50 words, separated by blank lines."""
    draw = random.Random(seed)
    documents = (" ".join(draw.choices(WORDS, k=draw.randint(10, 50))) for _ in range(num_documents))
    return "\n\n".join(documents) + "\n"


def make_source(folder: Path) -> Path:
    """A workspace with the text, a tokenizer and a base model of width 64, made once; returns its root."""
    if not folder.exists():
        (folder / "training_data").mkdir(parents=True)
        (folder / TEXT).write_text(text())
        create_implant(workspace=Workspace(folder), dataset_file=Path(TEXT), vocab_size=VOCABULARY, hidden_size=64)
    return folder


def made_once(tmp_path_factory: pytest.TempPathFactory, name: str, make: Callable[[Path], Path]) -> Path:
    """A folder that the first process of a test run makes, and the others find."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / name
    with FileLock(f"{folder}.lock"):
        return make(folder)


def with_base_model(workspace: Path, source: Path) -> Workspace:
    """The workspace, with the tiny base model where one belongs."""
    place = Workspace(workspace)
    base = source / "artifacts" / "hf_implant" / "base_model"
    shutil.copytree(base, place.base_model)
    return place


def with_small_corpus(workspace: Path) -> None:
    """Words in the place of the corpus that is built from Python's documentation, which takes seconds."""
    folder = Workspace(workspace).embedded_corpus
    folder.mkdir(parents=True)
    for seed, name in enumerate(("train", "validation")):
        lines = (json.dumps({"text": document}) for document in text(seed=seed).strip().split("\n\n"))
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf8")


_KEPT: dict[str, tuple[Path, TrainResult]] = {}
"""Trainings of this process, by all that decides them: a copy of the run folder, and the result."""


def kept_run(real: Callable[[], TrainResult], run_dir: Path, source: Path, *settings: object) -> TrainResult:
    """What ``real`` leaves in ``run_dir``, or a copy of what it left before with the same source and settings."""
    words = repr((run_dir.name, source, *settings))
    if words not in _KEPT:
        result = real()
        copy = source.with_name(f"kept-{os.getpid()}") / str(len(_KEPT))
        _KEPT[words] = (Path(shutil.copytree(run_dir, copy)), result)
        return result
    copy, result = _KEPT[words]
    return replace(result, run_dir=Path(shutil.copytree(copy, run_dir)))


class Lab:
    """A workspace with a small text, and trainings in it.

    ``tokenizer`` is a folder for ``--model`` that has only a tokenizer: it spares the import of transformers.
    """

    def __init__(self, root: Path, source: Path) -> None:
        self.root = root
        self.source = source
        self.tokenizer = source / "artifacts" / "hf_implant" / "tokenizers"
        self.workspace = Workspace(root)
        self.text = root / TEXT
        shutil.copy(source / TEXT, self.text)

    def settings(self, **changed: Any) -> dict[str, Any]:
        """The settings of a tiny run, by leaf name."""
        return {**SETTINGS, "model": str(self.tokenizer), **changed}

    def config(self, **changed: Any) -> TextTrainConfig:
        """The same as a configuration."""
        return build_config(TextTrainConfig, overrides=self.settings(**changed))

    def run_dir(self, name: str) -> Path:
        """Where a run of that name lies."""
        return self.workspace.brains / name

    def output(self) -> str:
        """The end of what commands in processes of their own have printed."""
        return (self.root / "log").read_text(encoding="utf8")[-2000:]

    def train(self, name: str | None = None, **changed: Any) -> TrainResult:
        """A run from beginning to end."""
        return train(self.config(brain_name=name, **changed), workspace=self.workspace)

    def trained(self, name: str, **changed: Any) -> TrainResult:
        """The same, trained once in a process and copied: for what begins with a run that has ended."""
        return self._kept(lambda: self.train(name, **changed), name, None, changed)

    def resume(self, name: str | None = None, *, interrupt_at: int | None = None, **given: Any) -> TrainResult:
        """Continue a run; ``given`` are flags on the command line."""
        options = {key: given.pop(key) for key in ("allow_changed_data", "take_over", "observer") if key in given}
        return train(
            self.config(brain_name=name),
            resume=True,
            given=given,
            workspace=self.workspace,
            **({"observer": interrupter(interrupt_at)} if interrupt_at is not None else {}),
            **options,
        )

    def interrupted(self, name: str, at_step: int, **changed: Any) -> TrainResult:
        """A run that is told to stop by SIGTERM in the middle of step ``at_step``; with the usual settings a copy."""

        def real() -> TrainResult:
            config = self.config(brain_name=name, **changed)
            return train(config, workspace=self.workspace, observer=interrupter(at_step))

        return real() if changed else self._kept(real, name, at_step, changed)

    def _kept(self, real: Callable[[], TrainResult], name: str, *settings: object) -> TrainResult:
        return kept_run(real, self.run_dir(name), self.source, self.text.read_bytes(), *settings)


def interrupter(at_step: int) -> Any:
    """An observer that sends this process SIGTERM when the row of a step is written."""

    def observe(row: Mapping[str, Any]) -> None:
        if row["event"] == "train" and row["step"] == at_step:
            signal.raise_signal(signal.SIGTERM)

    return observe


def rows(run_dir: Path) -> list[dict[str, Any]]:
    """All rows of a run's metrics."""
    return [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text(encoding="utf8").splitlines()]


def row_of(run_dir: Path, event: str) -> dict[str, Any]:
    """The last row of an event."""
    return [row for row in rows(run_dir) if row["event"] == event][-1]


def lasting_rows(run_dir: Path) -> list[dict[str, Any]]:
    """The rows that count, as the contract compares them: overtaken ones dropped, without times, speeds and memory."""
    kept: list[dict[str, Any]] = []
    for row in rows(run_dir):
        if row["event"] == "resume":
            kept = [earlier for earlier in kept if earlier["step"] <= row["step"]]
        if row["event"] in _SESSION_EVENTS:
            continue
        plain = {
            key: value
            for key, value in row.items()
            if key not in ("ts", "run_id") and not key.endswith(_TIMED) and not key.startswith("memory_")
        }
        # without a checkpoint a run begins again, and what was measured at step 0 is measured again
        if plain not in kept:
            kept.append(plain)
    return kept


def final_files(run_dir: Path) -> dict[str, bytes]:
    """Everything that two equal runs must have in common at their end, byte by byte."""
    newest = max((run_dir / "checkpoints").glob("step_*"))
    wanted = ("model.safetensors", "config.json", "tokenizer.json", "puzzle.json")
    found = [name for name in wanted if (run_dir / name).exists()]
    states = [name for name in ("optimizer.safetensors", "task.safetensors") if (newest / name).exists()]
    paths = [run_dir / name for name in found] + [newest / name for name in (*found, *states)]
    paths += [path for path in sorted((run_dir / "best").glob("*")) if path.name != "MANIFEST.json"]
    content = {path.relative_to(run_dir).as_posix(): path.read_bytes() for path in paths}
    state = json.loads((newest / "state.json").read_text())
    timeless = {key: value for key, value in state["state"].items() if key not in ("trained_s", "created")}
    content["state"] = json.dumps([timeless, state["dataset_fingerprint"]]).encode()
    return content


def assert_same_end(one: Path, other: Path) -> None:
    """Two runs ended in bit-identical weights, optimizer state, order, best weights and rows."""
    expected, found = final_files(one), final_files(other)
    assert list(found) == list(expected)
    assert [name for name in expected if found[name] != expected[name]] == []
    assert lasting_rows(other) == lasting_rows(one)


class Child:
    """One command line of ``lab`` in a process of its own."""

    def __init__(self, server: Forks, pid: int, log: Path) -> None:
        self._server = server
        self.pid = pid
        self.log = log

    def send(self, number: int) -> None:
        """Send it a signal."""
        os.kill(self.pid, number)

    def wait(self) -> int:
        """Its exit code; negative is the signal that ended it."""
        code = self._server.ask({"wait": self.pid}, give_up_on=self.pid)
        self._server.running.discard(self.pid)
        return code


class Forks:
    """The fork server, started at its first use."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self.running: set[int] = set()

    def start(
        self, root: Path, *argv: object, watch: Path | None = None, kill_at: int | None = None, log: str = "log"
    ) -> Child:
        """Begin a command in the workspace ``root``; its output goes to ``root/log``, see ``fork_server._watch``."""
        request = {
            "argv": [str(word) for word in argv],
            "root": str(root),
            "log": str(root / log),
            "watch": None if watch is None else str(watch),
            "kill_at": kill_at,
            "marks": str(root / "marks"),
        }
        child = Child(self, self.ask(request), root / log)
        self.running.add(child.pid)
        return child

    def run(self, root: Path, *argv: object, **options: Any) -> int:
        """Run a command to its end; the exit code."""
        return self.start(root, *argv, **options).wait()

    def ask(self, request: Mapping[str, Any], *, give_up_on: int | None = None) -> int:
        """One request and its answer; a process that takes more than two minutes is killed."""
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.fork_server"],
                cwd=REPOSITORY,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(request).encode() + b"\n")
        self._process.stdin.flush()
        if give_up_on is not None and not select.select([self._process.stdout], [], [], 120)[0]:
            os.kill(give_up_on, signal.SIGKILL)
        return int(json.loads(self._process.stdout.readline()))

    def close(self) -> None:
        """End the server, and what tests that failed have left running."""
        for pid in self.running:
            os.kill(pid, signal.SIGKILL)
        if self._process is not None:
            self._process.communicate()


def flags(settings: Mapping[str, Any]) -> list[str]:
    """Settings as they stand on a command line."""
    words: list[str] = []
    for name, value in settings.items():
        flag = name.replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{flag}" if value else f"--no-{flag}")
        else:
            words += [f"--{flag}", str(value)]
    return words


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Tiny tensors get slower with more threads, and their number decides the last bits."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Root of a workspace with text, tokenizer and base model that all processes share and no test changes."""
    return made_once(tmp_path_factory, "tiny-source", make_source)


@pytest.fixture
def lab(workspace: Path, source: Path) -> Lab:
    """The test's own workspace, with a text to train on."""
    return Lab(workspace, source)


@pytest.fixture(scope="session")
def forks() -> Iterator[Forks]:
    """Runs command lines of ``lab`` in processes of their own."""
    if not hasattr(os, "fork"):
        pytest.skip("this system cannot fork")
    server = Forks()
    yield server
    server.close()


def files(folder: Path) -> dict[str, bytes]:
    """Everything in a run folder."""
    found = (path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}
