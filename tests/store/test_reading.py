"""JSON and YAML that others wrote end in a value or in one sentence of ours."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from hrm_engine.errors import DataError
from hrm_engine.reading import load_json, load_yaml, parse_json, parse_yaml, read_regular

BOMB = b"a: &a [x,x,x,x,x,x,x,x,x]\n" + b"".join(
    b"%c: &%c [%s]\n" % (name, name, b",".join([b"*%c" % (name - 1)] * 9)) for name in b"bcdefghi"
)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (b'\xef\xbb\xbf{"a": [1, null]}', {"a": [1, None]}),
        (b'{"a": "\\ud83d\\ude00"}', {"a": "\U0001f600"}),
        (b'{"\\ud800": ["\\uDC00x"]}', {"\ufffd": ["\ufffdx"]}),
        (b'{"path": "\\udcff.txt"}', {"path": "\udcff.txt"}),
        (b'{"a": {"b": 1}, "b": {"a": 2}}', {"a": {"b": 1}, "b": {"a": 2}}),
    ],
)
def test_json(text: bytes, value: object) -> None:
    assert parse_json(text, "f.json", DataError) == value


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b'{\n"run": 1,\n "x": {"run": 3},\n"run": 2}', r"^f\.json, line 4: 'run' stands twice \(line 2\)$"),
        (b'{"a": {"b:\\"": 1,\n"b:\\"": 2}}', r"^f\.json, line 2: 'b:\"' stands twice \(line 1\)$"),
        (b'{"a": 1,\n,}', r"^f\.json, line 2, column 1: not valid JSON"),
        (b'{"a":\n"\xff"}', r"^f\.json, line 2: not valid UTF-8"),
        (b"[" * 100_000, r"^f\.json: not usable JSON \(nested too deep\)$"),
        (b"9" * 6000, r"^f\.json: not usable JSON \(Exceeds the limit"),
        (b"", r"^f\.json, line 1, column 1: not valid JSON"),
    ],
    ids=["twice", "twice within", "comma", "utf-8", "deep", "digits", "empty"],
)
def test_json_that_is_none(text: bytes, message: str) -> None:
    with pytest.raises(DataError, match=message):
        parse_json(text, "f.json", DataError)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (b"run: {steps: 3}\nmoe: {steps: 4}\n", {"run": {"steps": 3}, "moe": {"steps": 4}}),
        (b"a: &a {x: 1}\nb: {<<: *a, x: 2}\nc: *a\n", {"a": {"x": 1}, "b": {"x": 2}, "c": {"x": 1}}),
        (b"", None),
        (b"1: a\n'1': b\n", {1: "a", "1": "b"}),
    ],
)
def test_yaml(text: bytes, value: object) -> None:
    assert parse_yaml(text, "f.yaml", DataError) == value


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"data: {a: 1}\nrun: {a: 1}\n\nrun: {b: 2}\n", r"^f\.yaml, line 4: run stands twice \(line 2\)$"),
        (b"run:\n  a: 1\n  a: 2\n", r"^f\.yaml, line 3: a stands twice \(line 2\)$"),
        (
            b"x: !!python/object/apply:os.system [true]\n",
            r"^f\.yaml, line 1: not plain YAML \(could not determine a constructor",
        ),
        (b"a: [1\nb: 2\n", r"^f\.yaml, line 2: "),
        (b"a: \x00\n", r"^f\.yaml: not plain YAML"),
        (b"a: \xff\n", r"^f\.yaml: not plain YAML"),
        (BOMB, r"^f\.yaml, line \d: not plain YAML \(more than 100,000 values\)$"),
        (b"a: &a [*a]\n", r"^f\.yaml, line 1: not plain YAML \(a value that is part of itself\)$"),
        (b"[" * 5000, r"^f\.yaml: not usable YAML \(nested too deep\)$"),
        (b"a: " + b"9" * 6000, r"^f\.yaml: not plain YAML \(Exceeds the limit"),
        (b"? [1, 2]\n: a\n", r"^f\.yaml, line 1: "),
        (b"a: 1\n---\nb: 2\n", r"^f\.yaml, line 2: "),
    ],
    ids=["twice", "twice within", "tag", "bracket", "nul", "utf-8", "bomb", "itself", "deep", "digits", "key", "two"],
)
def test_yaml_that_is_not_plain(text: bytes, message: str) -> None:
    with pytest.raises(DataError, match=message):
        parse_yaml(text, "f.yaml", DataError)


def test_only_regular_files_of_a_sane_size_are_read(tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(bytes(11))
    os.mkfifo(tmp_path / "pipe")
    cases: dict[str, Any] = {
        "large": "has 11 bytes; at most 10 are read",
        "pipe": "is no regular file",
        "missing": "does not exist",
        ".": "is no regular file",
        "a\0b": "cannot read",
    }
    for name, message in cases.items():
        with pytest.raises(DataError, match=message):
            read_regular(tmp_path / name, DataError, limit=10)
    with pytest.raises(DataError, match="zero is no regular file"):
        load_json(Path("/dev/zero"), DataError)
    (tmp_path / "link").symlink_to(tmp_path / "large")
    assert read_regular(tmp_path / "link", DataError, limit=11) == bytes(11)
    (tmp_path / "f.yaml").write_text("a: 1\n")
    assert load_yaml(tmp_path / "f.yaml", DataError) == {"a": 1}
