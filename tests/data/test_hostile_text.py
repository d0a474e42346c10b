"""Files of text that are odd, damaged or made to do harm: documents or one sentence, and never anything else."""

from __future__ import annotations

import encodings.aliases
import os
import random
import sys
from pathlib import Path

import pytest

from hrm_engine.config.text_files import TextFilesConfig
from hrm_engine.data.text.documents import Corpus, read_documents
from hrm_engine.errors import DataError

SUFFIXES = (".txt", ".csv", ".json", ".jsonl")
ODD = {
    "deep": b"[" * 100_000,
    "deep objects": b'{"text":' * 20_000,
    "deep but closed": b'{"text": ' + b"[" * 5_000 + b"]" * 5_000 + b"}",
    "6,000 digits": b'{"text": ' + b"1" * 6_000 + b"}",
    "infinite": b'{"text": 1e999}',
    "half a pair": b'{"text": "a\\ud800b"}',
    "a half as bytes": b'{"text": "a\xed\xa0\x80b"}',
    "key twice": b'{"text": "a", "text": "b"}',
    "no object": b"null",
    "NULs": b"text\n" + b"\0" * 5_000,
    "one NUL": b"text\n" + b"a\0b" + b"word " * 100 + b"\n",
    "open quote": b'text\n"' + b"word " * 50_000,
    "quote within": b'text\n"a"b"\n',
    "many columns": b",".join(b"c%d" % number for number in range(20_000)) + b"\nrow\n",
    "empty names": b",,,\n,,,\n",
    "lone line ends": b"a" + b"\r" * 300_000 + b"b",
    "spaces": b"a\n" + b" " * 300_000 + b"b\n" + b"\n " * 1_000,
    "one long line": b"word" * 500_000,
    "only a mark": b"\xef\xbb\xbf",
    "half a mark": b"\xff\xfe\x00",
    "marks within": "a\ufeffb\n\n\ufeffc".encode() * 3,
    "controls": bytes(range(1, 32)) * 20,
    "every byte": bytes(range(256)) * 20,
    "every wide byte": bytes(range(256)) * 20 + b"\0",
    "escapes": b"\x1b$B" + b"\xff" * 40,
    "separator alone": b"sep=;\n",
    "separators alone": b"<|endoftext|>\n" * 50,
}


def outcome(path: Path, **settings: object) -> Corpus | str:
    try:
        return read_documents(path, settings=TextFilesConfig.model_validate(settings))
    except DataError as problem:
        return str(problem)


def check(found: Corpus | str, path: Path) -> None:
    """A sentence names the file and can be shown; documents can be encoded."""
    if isinstance(found, str):
        assert str(path) in found
        assert len(found.encode("utf8")) < 2_000
    else:
        assert found.documents
        assert "".join((*found.documents, *found.messages)).encode("utf8")


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("content", ODD.values(), ids=ODD)
def test_odd_content(tmp_path: Path, content: bytes, suffix: str) -> None:
    file = tmp_path / f"odd{suffix}"
    file.write_bytes(content)
    for settings in ({}, {"skip_bad_records": True}, {"encoding": "latin-1"}, {"encoding": "utf-16"}):
        check(outcome(file, **settings), file)


@pytest.mark.parametrize("content", ["plain text", "déjà vu, naïve", "日本語", "\udcff\udcfe\udc80"])
def test_every_encoding_that_can_be_named(tmp_path: Path, content: str) -> None:
    file = tmp_path / "a.txt"
    file.write_bytes(content.encode("utf8", "surrogateescape") * 9)
    for name in sorted({*encodings.aliases.aliases.values(), "idna", "punycode", "undefined", "unicode_escape"}):
        try:
            settings = TextFilesConfig(encoding=name)
        except ValueError:  # none of text
            continue
        check(outcome(file, encoding=settings.encoding), file)


@pytest.mark.parametrize(
    ("suffix", "content"),
    [
        (".txt", "First, é.\n\nSecond — 中文.\n"),
        (".csv", 'id;text\n1;"First, é"\n2;"Second ""中文"""\n'),
        (".json", '[{"text": "First, é"},\n "Second \\u4e2d"]\n'),
        (".jsonl", '{"text": "First, é"}\n{"text": "Second \\ud83d\\ude00"}\n'),
    ],
)
def test_every_flipped_bit_and_every_end(tmp_path: Path, suffix: str, content: str) -> None:
    file = tmp_path / f"damaged{suffix}"
    raw = content.encode()
    damaged = [raw[:end] for end in range(len(raw))]
    damaged += [raw[:at] + bytes([raw[at] ^ 1 << bit]) + raw[at + 1 :] for at in range(len(raw)) for bit in range(8)]
    draw = random.Random(0)
    damaged += [draw.randbytes(draw.randrange(200)) for _ in range(50)]
    for content_now in damaged:
        file.write_bytes(content_now)
        check(outcome(file, skip_bad_records=bool(len(content_now) % 2)), file)


@pytest.mark.skipif(sys.platform == "win32", reason="no pipes and devices among the files")
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_what_is_no_regular_file_is_not_waited_for(tmp_path: Path, suffix: str) -> None:
    data = tmp_path / "data"
    data.mkdir()
    os.mkfifo(data / f"pipe{suffix}")
    (data / f"device{suffix}").symlink_to("/dev/zero")
    for name in ("pipe", "device"):
        assert outcome(data / f"{name}{suffix}") == f"{data / name}{suffix}: not a regular file."
    (data / "a.txt").write_text("text")
    corpus = outcome(data)
    assert isinstance(corpus, Corpus)
    assert corpus.messages == [f"{data}: 2 file(s) with other suffixes left out"]
