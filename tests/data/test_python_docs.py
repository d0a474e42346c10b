"""The default corpus: made twice it is the same, of a sensible size, and split without overlap."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from hrm_engine.data.text.documents import read_documents
from hrm_engine.data.text.python_docs import BuildReport, build_python_docs, write_sample
from hrm_engine.errors import DataError, StorageError

ROOT = Path(__file__).resolve().parents[2]
NAMES = ("train.jsonl", "validation.jsonl", "dataset.json")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> BuildReport:
    return build_python_docs(tmp_path_factory.mktemp("corpus") / "python_docs")


@dataclass(frozen=True)
class OtherProcess:
    """What another process built, and the modules that building made it import."""

    folder: Path
    imported: list[str]


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> OtherProcess:
    folder = tmp_path_factory.mktemp("other") / "python_docs"
    code = (
        "import sys; from hrm_engine.data.text.python_docs import build_python_docs; before = set(sys.modules);"
        "build_python_docs(sys.argv[1]); print(*(set(sys.modules) - before))"
    )
    command = [sys.executable, "-c", code, str(folder)]
    environment = {**os.environ, "PYTHONHASHSEED": "12345"}
    done = subprocess.run(command, check=True, cwd=ROOT, env=environment, capture_output=True, text=True)
    return OtherProcess(folder, done.stdout.split())


def test_two_processes_write_the_same_bytes(built: BuildReport, other: OtherProcess) -> None:
    for name in NAMES:
        assert (other.folder / name).read_bytes() == (built.train_file.parent / name).read_bytes()
    assert sorted(file.name for file in other.folder.iterdir()) == sorted(NAMES)


def test_size_and_report(built: BuildReport) -> None:
    total = built.num_train_bytes + built.num_validation_bytes
    assert 2_000_000 <= total <= 4_000_000
    assert total == built.train_file.stat().st_size + built.validation_file.stat().st_size
    assert 0.02 < built.num_validation_documents / (built.num_train_documents + built.num_validation_documents) < 0.09
    assert built.num_unreadable_files == 0
    description = json.loads((built.train_file.parent / "dataset.json").read_text())
    assert description["python_version"] == platform.python_version()
    assert description["train"] == {"documents": built.num_train_documents, "bytes": built.num_train_bytes}
    assert description["licence"] == "PSF-2.0"


def test_documents_are_clean_distinct_and_say_where_they_come_from(built: BuildReport) -> None:
    records = []
    for file in (built.train_file, built.validation_file):
        records += [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    texts = [record["text"] for record in records]
    assert len(texts) == built.num_train_documents + built.num_validation_documents
    assert len({" ".join(text.split()) for text in texts}) == len(texts)
    assert min(map(len, texts)) >= 80
    for text in texts:
        assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\ud800-\udfff]", text)
        assert not re.search(r"[ \t]+$|\n{3}", text, re.MULTILINE)
        assert text == text.strip("\n")
    sources = {record["source"] for record in records}
    assert {"pydoc topic class", "module textwrap"} <= sources
    assert not [source for source in sources if re.match(r"module (test|idlelib|lib2to3|pip)\b", source)]
    whole = "\n".join(texts)
    for known in (
        "Serialize ``obj`` to a JSON formatted ``str``",
        "class argparse.ArgumentParser",
        "textwrap.dedent(text)",
    ):
        assert known in whole


def test_the_built_folder_reads_back_as_training_text(built: BuildReport) -> None:
    corpus = read_documents(built.train_file.parent)
    held_out = read_documents(built.validation_file)
    assert len(corpus.documents) == built.num_train_documents
    assert len(held_out.documents) == built.num_validation_documents
    assert not set(corpus.documents) & set(held_out.documents)
    assert corpus.num_replaced == 0


def test_nothing_of_the_library_is_imported(other: OtherProcess) -> None:
    # Reading a source needs the codec that it names; asking sysconfig where the sources lie needs its answers.
    needed = re.compile(r"pydoc_data(\.topics)?|encodings\.\w+|_codecs\w*|_multibytecodec|_sysconfig.*|_osx_support")
    assert not [module for module in other.imported if not needed.fullmatch(module)]
    assert "pydoc_data.topics" in other.imported


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match="file"):
        build_python_docs(tmp_path / "file" / "corpus")
    assert (tmp_path / "file").read_text() == "in the way"


class TestSamples:
    def test_the_choice_depends_on_documents_and_seed_alone(self, built: BuildReport, tmp_path: Path) -> None:
        texts = read_documents(built.train_file).documents
        first, again, other = (tmp_path / name for name in ("a.txt", "b.txt", "c.txt"))
        num = write_sample(first, texts, num_bytes=20_000, seed=0)
        write_sample(again, texts, num_bytes=20_000, seed=0)
        write_sample(other, texts, num_bytes=20_000, seed=1)
        assert first.read_bytes() == again.read_bytes() != other.read_bytes()
        chosen = read_documents(first).documents
        assert len(chosen) == num >= 4
        assert set(chosen) <= set(texts)
        with pytest.raises(DataError, match="small enough"):
            write_sample(first, texts, num_bytes=10, seed=0)

    def test_the_committed_samples_are_disjoint_and_of_their_size(self) -> None:
        sample, evaluation = (
            ROOT / "training_data" / "curated_datasets" / "test_sample.txt",
            ROOT / "training_data" / "eval_test_dataset.txt",
        )
        assert 60_000 <= sample.stat().st_size <= 100_000
        assert 8_000 <= evaluation.stat().st_size <= 12_000
        training, held_out = read_documents(sample), read_documents(evaluation)
        assert len(training.documents) >= 20
        assert len(held_out.documents) >= 5
        assert not set(training.documents) & set(held_out.documents)
        assert training.num_replaced == held_out.num_replaced == 0

    @pytest.mark.skipif(platform.python_version() != "3.11.7", reason="the samples were made with Python 3.11.7")
    def test_the_lines_in_the_readme_make_the_committed_samples(
        self, built: BuildReport, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        page = (ROOT / "training_data" / "README.md").read_text(encoding="utf-8")
        code = re.search(r"```python\n(.*?)```", page, re.DOTALL)
        assert code is not None
        monkeypatch.chdir(tmp_path)
        exec(compile(code[1], "training_data/README.md", "exec"), {})
        for name in ("curated_datasets/test_sample.txt", "eval_test_dataset.txt"):
            made, committed = (root / "training_data" / name for root in (tmp_path, ROOT))
            assert made.read_text(encoding="utf-8") == committed.read_text(encoding="utf-8")
