"""The default corpus: the documentation that every Python installation carries.

Two sources: the language and library topics of ``help()`` (`pydoc_data.topics`) and the docstrings of the standard
library, read from its source files without importing any of its modules. An entry is a module's own docstring, a class
with its methods, or a function; long entries are documents of their own, the short ones of a module are gathered.
Both sources are under the PSF licence.

The same Python gives the same bytes: documents are cleaned, de-duplicated and ordered by the hash of their text. That
order is also a shuffle, so a training that reads the file from its beginning sees all kinds of text at once.
"""

from __future__ import annotations

import ast
import gc
import hashlib
import inspect
import json
import os
import platform
import re
import sysconfig
import tokenize
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from hrm_engine.data.random import permutation
from hrm_engine.data.text.documents import split_holdout
from hrm_engine.data.text.readers import END_OF_TEXT
from hrm_engine.errors import DataError
from hrm_engine.store.files import ensure_writable, write_text

SCHEMA_VERSION = 1
LICENCE = "PSF-2.0"
_SKIPPED_FOLDERS = frozenset(
    {"__pycache__", "_bundled", "dist-packages", "idlelib", "lib2to3", "pydoc_data", "site-packages", "test", "tests"}
)
_MIN_CHARACTERS = 80  # shorter documents say nothing
_ALONE_CHARACTERS = 1_500  # an entry of this size is a document of its own, smaller ones of a module are gathered
_GATHERED_CHARACTERS = 4_000
# All control characters but the line feed; tabs are expanded first.
_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]")
_BLANK_LINES = re.compile(r"\n{3,}")


@dataclass(frozen=True)
class BuildReport:
    """Files that were written, and the Python whose documentation they hold."""

    train_file: Path
    validation_file: Path
    python_version: str
    num_train_documents: int
    num_validation_documents: int
    num_train_bytes: int
    num_validation_bytes: int
    num_duplicates: int
    num_unreadable_files: int


@dataclass(frozen=True)
class PythonDocument:
    """One document and the topic or module that it comes from."""

    text: str
    source: str


@dataclass(frozen=True)
class PythonDocuments:
    """All documents, the number of repeated texts that were left out, and the sources that could not be parsed."""

    documents: list[PythonDocument]
    num_duplicates: int
    unreadable_files: list[Path]


def build_python_docs(output_dir: str | Path, *, validation_fraction: float = 0.05) -> BuildReport:
    """Write ``train.jsonl``, ``validation.jsonl`` (fields ``text``, ``source``) and ``dataset.json``.

    Each file is replaced atomically, ``dataset.json`` last. Raises `DataError` if this Python carries no documentation,
    `StorageError` if the folder cannot be written.
    """
    folder = Path(output_dir)
    ensure_writable(folder)
    documentation = python_documents()
    sources = {document.text: document.source for document in documentation.documents}
    train, validation = split_holdout(list(sources), validation_fraction)
    train_file, validation_file = folder / "train.jsonl", folder / "validation.jsonl"
    num_bytes = {}
    for file, texts in ((validation_file, validation), (train_file, train)):
        lines = [json.dumps({"text": text, "source": sources[text]}, ensure_ascii=False) + "\n" for text in texts]
        content = "".join(lines)
        num_bytes[file] = len(content.encode())
        write_text(file, content)
    report = BuildReport(
        train_file=train_file,
        validation_file=validation_file,
        python_version=platform.python_version(),
        num_train_documents=len(train),
        num_validation_documents=len(validation),
        num_train_bytes=num_bytes[train_file],
        num_validation_bytes=num_bytes[validation_file],
        num_duplicates=documentation.num_duplicates,
        num_unreadable_files=len(documentation.unreadable_files),
    )
    description = {
        "schema_version": SCHEMA_VERSION,
        "name": "python_docs",
        "made_from": "pydoc_data.topics and the docstrings of the standard library",
        "licence": LICENCE,
        "python_version": report.python_version,
        "validation_fraction": validation_fraction,
        "train": {"documents": len(train), "bytes": report.num_train_bytes},
        "validation": {"documents": len(validation), "bytes": report.num_validation_bytes},
    }
    write_text(folder / "dataset.json", json.dumps(description, indent=2) + "\n")
    return report


def python_documents() -> PythonDocuments:
    """Cleaned documents without duplicates, ordered by the hash of their text. Raises `DataError` if there are none."""
    seen: set[str] = set()
    documents: list[PythonDocument] = []
    unreadable: list[Path] = []
    num_duplicates = 0
    is_collecting = gc.isenabled()
    gc.disable()  # syntax trees have no cycles, and the collector would look at all else again and again
    try:
        read = [*_topics(), *_docstrings(Path(sysconfig.get_path("stdlib")), seen, unreadable)]
    finally:
        if is_collecting:
            gc.enable()
    for document in read:
        if len(document.text) < _MIN_CHARACTERS:
            continue
        key = _key(document.text)
        if key in seen:
            num_duplicates += 1
            continue
        seen.add(key)
        documents.append(document)
    if len(documents) < 2:
        raise DataError(
            f"This Python ({platform.python_version()}) carries neither pydoc topics nor library sources; install the "
            "full standard library, or give a dataset of your own with --dataset-file."
        )
    documents.sort(key=lambda document: hashlib.sha256(document.text.encode()).digest())
    return PythonDocuments(documents, num_duplicates, unreadable)


def write_sample(path: str | Path, documents: list[str], *, num_bytes: int, seed: int) -> int:
    """Write some of the documents as a ``.txt`` dataset of about ``num_bytes`` bytes; returns how many.

    The choice depends on the documents and the seed alone. Documents that would be more than a quarter of the sample
    are left out, so that even a small sample has several.
    """
    chosen: list[str] = []
    size = 0
    for number in permutation(seed, "sample", 0, len(documents)):
        document = documents[number]
        length = len(document.encode())
        if length <= num_bytes // 4 and size + length <= num_bytes:
            chosen.append(document)
            size += length
    if not chosen:
        raise DataError(f"No document is small enough for a sample of {num_bytes} bytes.")
    write_text(Path(path), f"\n{END_OF_TEXT}\n".join(chosen) + "\n")
    return len(chosen)


def _topics() -> Iterator[PythonDocument]:
    try:
        from pydoc_data.topics import topics
    except ImportError:  # some distributions package the topics separately
        return
    for name in sorted(topics):
        yield PythonDocument(_clean(topics[name]), f"pydoc topic {name}")


def _docstrings(library: Path, seen: set[str], unreadable: list[Path]) -> Iterator[PythonDocument]:
    inside: list[Path] = []
    for root, folders, names in os.walk(library):
        folders[:] = set(folders) - _SKIPPED_FOLDERS  # most files of an installation lie in these
        inside += [Path(root, name).relative_to(library) for name in names if name.endswith(".py")]
    for file in sorted(inside, key=Path.as_posix):
        parts = file.with_suffix("").parts
        module = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        yield from _module_documents(library / file, module, seen, unreadable)


def _module_documents(file: Path, module: str, seen: set[str], unreadable: list[Path]) -> Iterator[PythonDocument]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # old escapes in other people's sources
            with tokenize.open(file) as source:
                tree = ast.parse(source.read())
    except (SyntaxError, ValueError, OSError):  # deliberately broken samples lie in some installations
        unreadable.append(file)
        return
    gathered: list[str] = []
    for entry in _module_entries(tree, module, seen):
        if len(entry) >= _ALONE_CHARACTERS:
            yield PythonDocument(entry, f"module {module}")
            continue
        if gathered and sum(map(len, gathered)) + len(entry) > _GATHERED_CHARACTERS:
            yield PythonDocument("\n\n".join(gathered), f"module {module}")
            gathered = []
        gathered.append(entry)
    if gathered:
        yield PythonDocument("\n\n".join(gathered), f"module {module}")


def _module_entries(tree: ast.Module, module: str, seen: set[str]) -> Iterator[str]:
    own = _new_docstring(tree, seen)
    if own:
        yield f"{module}\n\n{own}"
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            entry = "\n\n".join(_class_entries(node, module, seen))
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            entry = _function_entry(node, module, seen)
        else:
            continue
        if entry:
            yield entry


def _class_entries(node: ast.ClassDef, prefix: str, seen: set[str]) -> Iterator[str]:
    name = f"{prefix}.{node.name}"
    own = _new_docstring(node, seen)
    if own:
        bases = ", ".join(ast.unparse(base) for base in node.bases)
        yield f"class {name}({bases})\n{_indented(own)}" if bases else f"class {name}\n{_indented(own)}"
    for child in node.body:
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            entry = _function_entry(child, node.name, seen)
            if entry:
                yield entry
        elif isinstance(child, ast.ClassDef):
            yield from _class_entries(child, name, seen)


def _function_entry(node: ast.FunctionDef | ast.AsyncFunctionDef, prefix: str, seen: set[str]) -> str:
    own = _new_docstring(node, seen)
    if not own:
        return ""
    word = "async " if isinstance(node, ast.AsyncFunctionDef) else ""
    return f"{word}{prefix}.{node.name}({ast.unparse(node.args)})\n{_indented(own)}"


def _new_docstring(node: ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef, seen: set[str]) -> str:
    """The node's docstring, cleaned; empty if there is none or the same words stood somewhere before."""
    raw = ast.get_docstring(node, clean=False)
    text = _clean(raw) if raw else ""
    key = _key(text)
    if not text or key in seen:
        return ""
    seen.add(key)
    return text


def _clean(text: str) -> str:
    text = inspect.cleandoc(text.expandtabs())
    text = _CONTROL.sub("", text.replace("\r\n", "\n"))
    text = "\n".join(line.rstrip() for line in text.split("\n"))
    # JSON and UTF-8 files cannot hold halves of surrogate pairs, which some docstrings spell as escapes.
    text = text.encode("utf-8", "replace").decode()
    return _BLANK_LINES.sub("\n\n", text).strip("\n")


def _key(text: str) -> str:
    return " ".join(text.split())


def _indented(text: str) -> str:
    return "\n".join(f"    {line}" if line else "" for line in text.split("\n"))
