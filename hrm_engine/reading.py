"""JSON and YAML that others wrote: whatever a file holds, reading it ends with its value or with an error of ours.

Only regular files are read, up to a limit of size. A key that stands twice is refused, since one of its two values
would be lost; half of a surrogate pair, which no file can hold, becomes U+FFFD.
"""

from __future__ import annotations

import errno
import json
import os
import re
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BufferedReader, FileIO, TextIOWrapper
from pathlib import Path
from typing import Any, Literal

import yaml

from hrm_engine.errors import HRMError

JSON_LIMIT = 256 << 20
"""Most bytes of a JSON file; a large tokenizer has 30 MB."""
POINTER = b"version https://git-lfs.github.com/spec/"
LINK = "it is a link, and none is followed out of a run folder: put the file itself in its place, or remove the link"
YAML_LIMIT = 1 << 20
YAML_NODES = 100_000
"""Most values in a YAML file, each alias counted as what it stands for."""

_PACKED = {
    b"\x1f\x8b": "a gzip file",
    b"BZh9": "a bzip2 file",
    b"\xfd7zXZ": "an xz file",
    b"\x28\xb5\x2f\xfd": "a zstd file",
    b"7z\xbc\xaf": "a 7-Zip archive",
    b"PK\x03\x04": "a zip archive",
    b"%PDF-1": "a PDF",
    b"PAR1\x15": "a parquet file",
}
_LONGEST_REASON = 400
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\]:\n]')
_SURROGATE = re.compile("[\ud800-\udc7f\udd00-\udfff]")
"""Halves of pairs, but for those that stand for bytes of file names which are no UTF-8 (PEP 383)."""


def open_regular(path: Path, mode: Literal["rb", "ab", "a+b", "r+b"] = "rb", *, follow: bool = True) -> FileIO:
    """Open a regular file, unbuffered, and nothing else: a pipe without a writer would be waited for without end.

    Args:
        follow: False for the files of a run folder, which somebody else may have packed: a link in the place of one
            could lead anywhere, and is refused.

    Raises OSError, whose words go into a message.
    """

    def opener(name: str, flags: int) -> int:
        if not follow and os.path.islink(name):  # noqa: PTH114  -- where the system itself cannot refuse it
            raise OSError(errno.ELOOP, LINK)
        more = getattr(os, "O_NONBLOCK", 0) | (0 if follow else getattr(os, "O_NOFOLLOW", 0))
        descriptor = os.open(name, flags | more, 0o666)
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            return descriptor
        os.close(descriptor)
        raise OSError(errno.EINVAL, "it is no regular file")

    return open(path, mode, buffering=0, opener=opener)


def open_text(path: Path, error: type[HRMError], encoding: str = "utf-8-sig", errors: str = "strict") -> TextIOWrapper:
    """Open a regular file of text, with its line ends as they are. Raises OSError, and ``error`` for what is packed."""
    file = BufferedReader(open_regular(path))
    try:
        refuse_packed(path, file.peek(64), error)
    except BaseException:
        file.close()
        raise
    return TextIOWrapper(file, encoding=encoding, errors=errors, newline="")


def read_regular(path: Path, error: type[HRMError], *, limit: int) -> bytes:
    """The content of a regular file of at most ``limit`` bytes. Raises ``error``, with the file, for all else."""
    try:
        with BufferedReader(open_regular(path)) as file:
            about = os.fstat(file.fileno())
            if about.st_size > limit:
                raise error(f"{path} has {about.st_size:,} bytes; at most {limit:,} are read of such a file")
            content = file.read(about.st_size)
    except FileNotFoundError as problem:
        raise error(f"{path} does not exist") from problem
    except (OSError, ValueError) as problem:
        if getattr(problem, "errno", None) == errno.EINVAL:
            raise error(f"{path} is no regular file") from problem
        raise error(f"cannot read {path}: {getattr(problem, 'strerror', None) or problem}") from problem
    refuse_pointer(path, content, error)
    return content


def refuse_pointer(path: Path, beginning: bytes, error: type[HRMError]) -> None:
    """Raise ``error`` where a file is what Git LFS leaves in the place of one that was not fetched."""
    if beginning.startswith(POINTER):
        raise error(f"{path} is a pointer of Git LFS, not the file itself: fetch that with 'git lfs pull'")


def refuse_packed(path: Path, beginning: bytes, error: type[HRMError]) -> None:
    """Raise ``error`` where a file of text is packed, of another kind, or not fetched."""
    refuse_pointer(path, beginning, error)
    if packed := next((name for magic, name in _PACKED.items() if beginning.startswith(magic)), None):
        raise error(f"{path} is {packed}, not text. Unpack or convert it first.")


@contextmanager
def told_by(library: Callable[[str], HRMError]) -> Iterator[None]:
    """Raise what ``library`` makes of one line for whatever another library raises on a file of others.

    Such libraries check little and fail in many ways; those in Rust panic, with what is no ``Exception``.
    """
    try:
        yield
    except (HRMError, MemoryError, KeyboardInterrupt, SystemExit):
        raise
    except BaseException as problem:
        if type(problem).__name__ == "OutOfMemoryError":  # of torch, which is not loaded here
            raise
        words = " ".join(str(problem).split()) or type(problem).__name__
        raise library(words if len(words) <= _LONGEST_REASON else words[:_LONGEST_REASON] + " ...") from problem


def load_json(path: Path, error: type[HRMError], *, limit: int = JSON_LIMIT) -> Any:
    """The value in a JSON file. Raises ``error``, with file and line."""
    return parse_json(read_regular(path, error, limit=limit), str(path), error)


def load_yaml(path: Path, error: type[HRMError]) -> Any:
    """The value in a YAML file; tags that build objects are refused. Raises ``error``, with file and line."""
    return parse_yaml(read_regular(path, error, limit=YAML_LIMIT), str(path), error)


def parse_json(data: bytes | str, where: str, error: type[HRMError]) -> Any:
    """The value of a JSON text in UTF-8. Raises ``error`` for anything else; its message begins with ``where``."""
    try:
        text = data.decode("utf-8-sig") if isinstance(data, bytes) else data
    except UnicodeDecodeError as problem:
        line = bytes(data).count(b"\n", 0, problem.start) + 1
        raise error(f"{where}, line {line}: not valid UTF-8, the file is damaged") from problem
    try:
        value = json.loads(text, object_pairs_hook=object_of)
    except _TwiceError as problem:
        first, second = _lines_of_twice(text, problem.key)
        raise error(f"{where}, line {second}: {problem.key!r} stands twice (line {first})") from problem
    except json.JSONDecodeError as problem:
        place = f"{where}, line {problem.lineno}, column {problem.colno}"
        raise error(f"{place}: not valid JSON ({problem.msg})") from problem
    except RecursionError as problem:
        raise error(f"{where}: not usable JSON (nested too deep)") from problem
    except ValueError as problem:  # a number of thousands of digits
        raise error(f"{where}: not usable JSON ({problem})") from problem
    return _without_surrogates(value) if "\\ud" in text or "\\uD" in text else value


def parse_yaml(data: bytes, where: str, error: type[HRMError]) -> Any:
    """The value of a YAML text. Raises ``error`` for anything else; its message begins with ``where``."""
    try:
        loader = _Loader(data)
        node = loader.get_single_node()
        if node is None:
            return None
        _count(node, {})
        return loader.construct_document(node)
    except yaml.MarkedYAMLError as problem:
        line = "" if problem.problem_mark is None else f", line {problem.problem_mark.line + 1}"
        why = problem.problem or problem.context
        raise error(
            f"{where}{line}: {why if isinstance(problem, _TwiceInYamlError) else f'not plain YAML ({why})'}"
        ) from problem
    except RecursionError as problem:
        raise error(f"{where}: not usable YAML (nested too deep)") from problem
    except (yaml.YAMLError, ValueError) as problem:
        raise error(f"{where}: not plain YAML ({' '.join(str(problem).split())})") from problem


class _TwiceError(ValueError):
    def __init__(self, key: str) -> None:
        super().__init__(f"{key[:40]!r} stands twice")
        self.key = key


def object_of(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object of its pairs, for ``object_pairs_hook``. Raises ValueError for a key that stands twice."""
    value = dict(pairs)
    if len(value) < len(pairs):
        seen = set[str]()
        raise _TwiceError(next(key for key, _ in pairs if key in seen or seen.add(key)))
    return value


def _lines_of_twice(text: str, key: str) -> tuple[int, int]:
    """The lines where ``key`` stands twice in one object of a JSON text; what comes behind may be damaged."""
    line, before, open_objects = 1, "", [dict[str, int]()]
    for token in _TOKEN.findall(text):
        if token == "\n":
            line += 1
            continue
        if token in "{[":
            open_objects.append({})
        elif token in "}]":
            open_objects.pop()
        elif token == ":" and json.loads(before) == key:
            if key in open_objects[-1]:
                return open_objects[-1][key], line
            open_objects[-1][key] = line
        before = token
    return line, line


def _without_surrogates(value: Any) -> Any:
    if isinstance(value, str):
        return _SURROGATE.sub("\ufffd", value)
    if isinstance(value, list):
        return [_without_surrogates(inner) for inner in value]
    if isinstance(value, dict):
        return {_without_surrogates(key): _without_surrogates(inner) for key, inner in value.items()}
    return value


class _TwiceInYamlError(yaml.MarkedYAMLError):
    pass


class _Loader(yaml.SafeLoader):
    """Refuses a key that stands twice, with both lines."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        lines: dict[Any, int] = {}
        for key, _ in node.value:
            word = (key.tag, key.value) if isinstance(key, yaml.ScalarNode) else id(key)
            if word in lines:
                twice = f"{key.value} stands twice (line {lines[word]})"
                raise _TwiceInYamlError(problem=twice, problem_mark=key.start_mark)
            lines[word] = key.start_mark.line + 1
        return super().construct_mapping(node, deep)


def _count(node: yaml.Node, counts: dict[int, int | None]) -> int:
    """How many values a node stands for; aliases are one node that several others have."""
    known = counts.get(id(node), 0)
    if known is None:
        raise yaml.MarkedYAMLError(problem="a value that is part of itself", problem_mark=node.start_mark)
    if not known:
        counts[id(node)] = None
        known = 1 + sum(_count(inner, counts) for inner in _inner(node))
        if known > YAML_NODES:
            raise yaml.MarkedYAMLError(problem=f"more than {YAML_NODES:,} values", problem_mark=node.start_mark)
        counts[id(node)] = known
    return known


def _inner(node: yaml.Node) -> Iterator[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        for pair in node.value:
            yield from pair
    elif isinstance(node, yaml.SequenceNode):
        yield from node.value
