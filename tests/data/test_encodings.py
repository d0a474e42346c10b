"""In which encoding a file is: marks are obeyed, sure ones are taken and told, the rest is refused with its cure."""

from __future__ import annotations

import codecs
import gzip
import itertools
from pathlib import Path

import pytest

from hrm_engine.config.text_files import TextFilesConfig
from hrm_engine.data.text.documents import read_documents
from hrm_engine.errors import DataError

TEXTS = {
    "latin": "Café au lait — ça va?",
    "chinese": "这是一个中文句子。猫在沙发上睡觉。",
    "japanese": "日本語の文章です。猫が畳の上で寝ている。",
    "russian": "Привет, мир. Кошка спит на диване.",
    "plain": "The cat sat on the mat.",
}
MARKS = {
    "utf-8": b"",
    "utf-8-sig": b"",
    "utf-16-le": codecs.BOM_UTF16_LE,
    "utf-16-be": codecs.BOM_UTF16_BE,
    "utf-32-le": codecs.BOM_UTF32_LE,
    "utf-32-be": codecs.BOM_UTF32_BE,
}
LINE_ENDS = ["\n", "\r\n", "\r", "\r\r\n"]
WAYS = {
    ".txt": "{0}\n\n{1}\n",
    ".csv": 'id,text\n1,"{0}"\n2,"{1}"\n',
    ".jsonl": '{{"text": "{0}"}}\n{{"text": "{1}"}}\n',
    ".json": '[{{"text": "{0}"}},\n {{"text": "{1}"}}]\n',
}


def refused(path: Path, encoding: str | None = None) -> str:
    with pytest.raises(DataError) as caught:
        read_documents(path, encoding=encoding)
    return str(caught.value)


@pytest.mark.parametrize("suffix", WAYS)
@pytest.mark.parametrize("encoding", MARKS)
def test_marks_are_obeyed_with_every_line_end(tmp_path: Path, encoding: str, suffix: str) -> None:
    for text, end in itertools.product(TEXTS.values(), LINE_ENDS):
        content = WAYS[suffix].format(text, "Two.").replace("\n", end)
        file = tmp_path / f"a{suffix}"
        file.write_bytes(MARKS[encoding] + content.encode(encoding))
        corpus = read_documents(file)
        assert corpus.documents == [text, "Two."], (text, end)
        assert corpus.num_replaced == 0


@pytest.mark.parametrize(
    ("encoding", "text", "name"),
    [
        ("gbk", "chinese", "gb18030"),
        ("shift_jis", "japanese", "cp932"),
        ("euc_jp", "japanese", "euc_jis_2004"),
        ("utf-16-le", "japanese", "utf_16_le"),
        ("utf-16-be", "plain", "utf_16_be"),
    ],
)
def test_what_is_surely_another_encoding_is_read_and_told(tmp_path: Path, encoding: str, text: str, name: str) -> None:
    file = tmp_path / "a.txt"
    file.write_bytes("\n\n".join([TEXTS[text]] * 8).encode(encoding))
    corpus = read_documents(file)
    assert corpus.documents == [TEXTS[text]] * 8
    assert corpus.messages == [f"{file} is read as {name} (confidence 100%); --encoding names another"]


@pytest.mark.parametrize(("encoding", "text"), [("cp1252", "latin"), ("cp1251", "russian")])
def test_an_encoding_of_single_bytes_is_never_guessed(tmp_path: Path, encoding: str, text: str) -> None:
    file = tmp_path / "a.txt"
    file.write_bytes("\n\n".join([TEXTS[text]] * 8).encode(encoding))
    message = refused(file)
    assert message.startswith(f"{file}: ")
    assert "% of the characters are not UTF-8. It may be " in message
    assert f" {encoding}" in message
    corpus = read_documents(file, encoding=encoding)
    assert corpus.documents == [TEXTS[text]] * 8
    assert corpus.messages == []


def test_what_a_file_is_not(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_bytes(gzip.compress(b"text " * 50))
    assert "Save it as UTF-8" in refused(file)
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
    assert "line 1 is taken for the header" in refused(tmp_path / "a.csv")
    (tmp_path / "a.jsonl").write_text('{\n  "text": "one"\n}\n', encoding="utf8")
    assert "If objects go over several lines, call the file .json" in refused(tmp_path / "a.jsonl")
