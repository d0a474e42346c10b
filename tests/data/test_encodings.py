"""In which encoding a file is: marks are obeyed, sure ones are taken and told, the rest is refused with its cure."""

from __future__ import annotations

import bz2
import codecs
import gzip
import io
import itertools
import lzma
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

from hrm_engine.config.text_files import TextFilesConfig
from hrm_engine.data.text.documents import read_documents
from hrm_engine.errors import DataError

TEXTS = {
    "latin": "Café au lait, ça va? Où est le père Noël?",
    "chinese": "这是一个中文句子。猫在沙发上睡觉。",
    "traditional": "這是一個中文句子。貓在沙發上睡覺。",
    "japanese": "日本語の文章です。猫が畳の上で寝ている。",
    "korean": "한국어 문장입니다. 고양이가 소파에서 잔다.",
    "russian": "Привет, мир. Кошка спит на диване.",
    "plain": "The cat sat on the mat.",
}
LINE_ENDS = ["\n", "\r\n", "\r", "\r\r\n"]
WAYS = {
    ".txt": "{0}\n\n{1}\n",
    ".txt separated": "{0}\n<|endoftext|>\n{1}\n",
    ".csv": 'id,text\n1,"{0}"\n2,"{1}"\n',
    ".csv semicolons": 'id;text\n1;"{0}"\n2;"{1}"\n',
    ".csv tabs": "id\ttext\n1\t{0}\n2\t{1}\n",
    ".csv bars": "id|text\n1|{0}\n2|{1}\n",
    ".csv of Excel": 'sep=;\nid;text\n1;"{0}"\n2;"{1}"\n',
    ".jsonl": '{{"text": "{0}"}}\n{{"text": "{1}"}}\n',
    ".json": '[{{"text": "{0}"}},\n {{\n"text":\n"{1}"}}]\n',
    ".json one after the other": '{{"text": "{0}"}}\n{{"text": "{1}"}}',
}


def zipped(content: bytes) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        archive.writestr("a.txt", content)
    return target.getvalue()


def refused(path: Path, encoding: str | None = None) -> str:
    with pytest.raises(DataError) as caught:
        read_documents(path, encoding=encoding)
    return str(caught.value)


@dataclass(frozen=True)
class Row:
    """An encoding, a text in it and how a file of that is read: as it is, told, or not at all."""

    encoding: str
    text: str
    mark: bytes = b""
    told: str | None = None
    is_refused: bool = False


ROWS = [
    *(Row("utf-8", text) for text in TEXTS),
    Row("utf-8", "japanese", codecs.BOM_UTF8),
    Row("utf-16-le", "latin", codecs.BOM_UTF16_LE, "is UTF-16"),
    Row("utf-16-be", "chinese", codecs.BOM_UTF16_BE, "is UTF-16"),
    Row("utf-32-le", "russian", codecs.BOM_UTF32_LE, "is UTF-32"),
    Row("utf-32-be", "plain", codecs.BOM_UTF32_BE, "is UTF-32"),
    *(Row(f"utf-16-{order}", text, told=f"utf-16-{order}") for order in ("le", "be") for text in TEXTS),
    Row("utf-32-le", "japanese", told="utf-32-le"),
    Row("gbk", "chinese", told="gb18030"),
    Row("big5", "traditional", told="big5"),
    Row("shift_jis", "japanese", told="cp932"),
    Row("euc_jp", "japanese", told="euc_jp"),
    Row("iso2022_jp", "japanese", told="iso2022_jp_ext"),
    Row("euc_kr", "korean", told="cp949"),
    *(Row(encoding, "latin", is_refused=True) for encoding in ("cp1252", "latin-1", "mac_roman", "cp850")),
    *(Row(encoding, "russian", is_refused=True) for encoding in ("cp1251", "koi8-r", "cp866")),
]
PACKERS = {
    "a gzip file": gzip.compress,
    "a bzip2 file": bz2.compress,
    "an xz file": lzma.compress,
    "a zip archive": zipped,
}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.encoding} {row.text}{' marked' if row.mark else ''}")
def test_encodings_line_ends_and_separators(tmp_path: Path, row: Row) -> None:
    text = TEXTS[row.text]
    for (way, content), end in itertools.product(WAYS.items(), LINE_ENDS):
        file = tmp_path / f"a{way.split()[0]}"
        file.write_bytes(row.mark + content.format(text, text[::-1]).replace("\n", end).encode(row.encoding))
        if row.is_refused:
            assert "% of the characters are not UTF-8. It may be " in refused(file), (way, end)
            corpus = read_documents(file, encoding=row.encoding)
        else:
            corpus = read_documents(file)
        assert corpus.documents == [text, text[::-1]], (way, end)
        assert corpus.num_replaced == 0
        about = [message for message in corpus.messages if "separated by" not in message]
        assert len(about) == (row.told is not None)
        assert row.told is None or row.told in about[0]


@pytest.mark.parametrize("packed", PACKERS)
def test_what_is_packed_is_named_as_such(tmp_path: Path, packed: str) -> None:
    for row, (way, content) in itertools.product(ROWS[:8], WAYS.items()):
        file = tmp_path / f"a{way.split()[0]}"
        file.write_bytes(PACKERS[packed](row.mark + content.format(TEXTS[row.text], "Two.").encode(row.encoding)))
        assert refused(file) == f"{file} is {packed}, not text. Unpack or convert it first."


@pytest.mark.parametrize(
    ("encoding", "text"),
    [
        *(("gbk", "你好"), ("big5", "世界"), ("shift_jis", "こんにちは"), ("euc_jp", "こんにちは"), ("euc_kr", "안녕")),
        *(("latin-1", "Müller, Öl"), ("cp1251", "Да и нет"), ("koi8-r", "Да и нет"), ("cp437", "Müller, Öl")),
        ("koi8-r", "Отметка не определена. Невозможно изменить размер окна."),
    ],
)
@pytest.mark.parametrize("end", LINE_ENDS)
def test_a_few_characters_are_never_sure(tmp_path: Path, encoding: str, text: str, end: str) -> None:
    file = tmp_path / "a.txt"
    file.write_bytes(f"{text}{end}{end}one more{end}".encode(encoding))
    assert "which is not sure: save it as UTF-8, or name its encoding" in refused(file)
    assert read_documents(file, encoding=encoding).documents == [text, "one more"]


def test_of_utf_16_without_a_mark_the_order_of_bytes_is_found(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    for encoding in ("utf-16-le", "utf-16-be"):
        file.write_bytes("一二三\n\n丁一\n".encode(encoding))
        assert read_documents(file).documents == ["一二三", "丁一"]
        assert read_documents(file, encoding="utf-16").documents == ["一二三", "丁一"]
    file.write_bytes("plain".encode("utf-16-le"))
    assert read_documents(file, encoding="utf-16").documents == ["plain"]
    file.write_bytes(bytes(range(256)) * 20)
    assert "not UTF-8 text" in refused(file) or "not UTF-8" in refused(file)


@pytest.mark.parametrize(("encoding", "text"), [("cp1252", "latin"), ("cp1251", "russian")])
def test_an_encoding_of_single_bytes_is_never_guessed(tmp_path: Path, encoding: str, text: str) -> None:
    file = tmp_path / "a.txt"
    file.write_bytes("\n\n".join([TEXTS[text]] * 8).encode(encoding))
    message = refused(file)
    assert message.startswith(f"{file}: ")
    assert "% of the characters are not UTF-8. It may be " in message
    assert f"It may be {encoding}" in message
    corpus = read_documents(file, encoding=encoding)
    assert corpus.documents == [TEXTS[text]] * 8
    assert corpus.messages == []


def test_what_a_file_is_not(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:12\nsize 3\n")
    assert refused(file) == f"{file} is a pointer of Git LFS, not the file itself: fetch that with 'git lfs pull'"
    file.write_bytes("naïve café\n".encode() * 20)
    assert "are not ASCII. Save it as UTF-8, or name another --encoding." in refused(file, "ascii")
    file.write_bytes(codecs.BOM_UTF16_LE + b"hello there")  # a mark that is none
    assert "UTF-16" in refused(file)


def test_up_to_a_hundredth_is_replaced_and_told_with_its_share(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_bytes(b"\xef\xbb\xbf" + b"word " * 39 + b"caf\xe9 \xf0")
    corpus = read_documents(file)
    assert corpus.documents == ["word " * 39 + "caf\ufffd \ufffd"]
    assert (corpus.num_replaced, corpus.num_bytes) == (2, 204)
    assert corpus.messages == [f"{file}: 2 characters (1.00%) cannot be read and were replaced"]
    file.write_bytes(b"word " * 39 + b"caf\xe9")
    assert read_documents(file).num_replaced == 1
    file.write_bytes(b"word " * 9 + b"caf\xe9")
    assert "2% of the characters are not UTF-8" in refused(file)


def test_the_name_of_an_encoding_is_checked_before_anything_is_read() -> None:
    assert TextFilesConfig(encoding="Latin-1").encoding == "iso8859-1"
    for name in ("klingon", "hex", "rot13"):
        with pytest.raises(ValueError, match=f"no text encoding '{name}'"):
            TextFilesConfig(encoding=name)


@pytest.mark.parametrize(("mark", "told"), [(";", '";"'), ("\t", "tabs"), ("|", '"|"'), (",", None)])
def test_separators_of_columns_are_seen_in_the_header_and_told(tmp_path: Path, mark: str, told: str | None) -> None:
    file = tmp_path / "a.csv"
    rows = [["id", "text"], ["1", '"The cat, sat; on the mat"'], ["2", '"A dog | ran"']]
    content = "\n".join(mark.join(row) for row in rows)
    for before in ("", f"sep={mark}\n"):
        file.write_text(before + content, encoding="utf8")
        corpus = read_documents(file)
        assert corpus.documents == ["The cat, sat; on the mat", "A dog | ran"]
        assert corpus.messages == ([f"{file}: the columns are separated by {told}"] if told else [])
    file.write_text(f"sep={mark}\n{content}{mark}more", encoding="utf8")
    with pytest.raises(DataError, match="line 4: the row has 3 field"):
        read_documents(file)


def test_a_file_without_a_header_or_with_long_objects_gets_its_word(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("one text,two texts\nmore text,and more\n", encoding="utf8")
    assert "Line 1 is read as the header" in refused(tmp_path / "a.csv")
    (tmp_path / "a.csv").write_text('id,text\n1,"one\rtwo\r\r\nthree"\n', encoding="utf8", newline="")
    assert read_documents(tmp_path / "a.csv").documents == ["one\ntwo\nthree"]
    (tmp_path / "a.jsonl").write_text('{"text": "one", "text": "two"}\n', encoding="utf8")
    assert "line 1: not a JSON object ('text' stands twice)" in refused(tmp_path / "a.jsonl")
    (tmp_path / "a.jsonl").write_text('{\n  "text": "one"\n}\n', encoding="utf8")
    assert "If objects span several lines, name the file .json" in refused(tmp_path / "a.jsonl")
