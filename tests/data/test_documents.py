"""Reading documents: formats, counts, and every bad input named by file, line and field."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path
from typing import Any

import pytest

from hrm_engine.data.text.documents import read_documents
from hrm_engine.errors import DataError


def write(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def error_of(path: Path, **options: Any) -> str:
    with pytest.raises(DataError) as caught:
        read_documents(path, **options)
    return str(caught.value)


class TestTxt:
    def test_separator_lines(self, tmp_path: Path) -> None:
        text = "one\n\nstill one\n<|endoftext|>\ntwo <|endoftext|> inside a line\n <|endoftext|> \n\n<|endoftext|>\n"
        corpus = read_documents(write(tmp_path / "a.txt", text))
        assert corpus.documents == ["one\n\nstill one", "two <|endoftext|> inside a line"]
        assert corpus.num_empty_documents == 0

    def test_blank_lines_without_a_separator(self, tmp_path: Path) -> None:
        corpus = read_documents(write(tmp_path / "a.txt", "\n\none\nmore\n \t\n\n\ntwo\r\n\r\nthree"))
        assert corpus.documents == ["one\nmore", "two", "three"]

    @pytest.mark.parametrize("separator", ["---", "\n---\n", " --- "])
    def test_another_separator(self, tmp_path: Path, separator: str) -> None:
        file = write(tmp_path / "a.txt", "one\n\nmore\n---\ntwo\n<|endoftext|>\nthree --- four")
        corpus = read_documents(file, document_separator=separator)
        assert corpus.documents == ["one\n\nmore", "two\n<|endoftext|>\nthree --- four"]

    def test_an_empty_separator_means_blank_lines(self, tmp_path: Path) -> None:
        file = write(tmp_path / "a.txt", "one\n<|endoftext|>\n\ntwo")
        assert read_documents(file, document_separator="\n\n").documents == ["one\n<|endoftext|>", "two"]

    def test_a_separator_of_two_lines_is_refused(self, tmp_path: Path) -> None:
        assert "several" in error_of(write(tmp_path / "a.txt", "one"), document_separator="--\n--")

    def test_a_separator_is_no_pattern(self, tmp_path: Path) -> None:
        file = write(tmp_path / "a.txt", "one\n...\ntwo\nabc\nmore")
        assert read_documents(file, document_separator="...").documents == ["one", "two\nabc\nmore"]

    def test_ascii_only_drops_lines_not_documents(self, tmp_path: Path) -> None:
        file = write(tmp_path / "a.txt", "plain\ncafé\nmore\n<|endoftext|>\nnaïve\n<|endoftext|>\nlast")
        corpus = read_documents(file, ascii_only=True)
        assert corpus.documents == ["plain\nmore", "last"]
        assert (corpus.num_dropped_lines, corpus.num_empty_documents) == (2, 1)

    def test_one_line_of_50_mb(self, tmp_path: Path) -> None:
        corpus = read_documents(write(tmp_path / "a.txt", b"word " * 10_000_000))
        assert [len(document) for document in corpus.documents] == [50_000_000]

    def test_5_mb_of_white_space_and_line_ends(self, tmp_path: Path) -> None:
        # What a careless pattern takes quadratic time for.
        content = b"a" + b" " * 2_500_000 + b"\n" * 2_500_000 + b"b"
        corpus = read_documents(write(tmp_path / "a.txt", content))
        assert [document.strip() for document in corpus.documents] == ["a", "b"]


class TestJson:
    def test_jsonl(self, tmp_path: Path) -> None:
        file = write(
            tmp_path / "a.jsonl", '\ufeff{"text": "one\\nmore", "n": NaN}\n\n{"text": "two"}\r\n{"text": "  "}'
        )
        corpus = read_documents(file)
        assert corpus.documents == ["one\nmore", "two"]
        assert corpus.num_empty_documents == 1
        assert corpus.sources[0].text_field == "text"

    def test_another_field(self, tmp_path: Path) -> None:
        file = write(tmp_path / "a.jsonl", '{"text": "no", "body": "yes"}\n')
        assert read_documents(file, text_field="body").documents == ["yes"]

    def test_half_a_surrogate_pair_is_replaced_and_counted(self, tmp_path: Path) -> None:
        corpus = read_documents(write(tmp_path / "a.jsonl", '{"text": "a\\ud800b \\ud83d\\ude00"}'))
        assert corpus.documents == ["a\ufffdb 😀"]
        assert corpus.num_replaced == 1
        assert "1 characters (" in corpus.messages[0]

    @pytest.mark.parametrize(
        "content",
        [
            '[{"text": "one"}, {"text": "two"}]',
            '\ufeff [ "one" ,\n"two" ] \n',
            '{"text": ["one", "two"]}',
            '{"text": "one"}\n{"text": "two"}\n',
            '{\n "text": "one"\n}\n\n{\n "text": "two"}',
        ],
    )
    def test_json_shapes(self, tmp_path: Path, content: str) -> None:
        assert read_documents(write(tmp_path / "a.json", content)).documents == ["one", "two"]

    @pytest.mark.parametrize("suffix", ["json", "jsonl", "csv"])
    def test_one_record_of_5_mb(self, tmp_path: Path, suffix: str) -> None:
        text = "word " * 1_000_000
        record = f'text\n"{text}"\n' if suffix == "csv" else json.dumps({"text": text})
        corpus = read_documents(write(tmp_path / f"a.{suffix}", record))
        assert [len(document) for document in corpus.documents] == [5_000_000]

    @pytest.mark.parametrize(
        ("content", "line", "words"),
        [
            ('{"text": "a"}\n{"body": "b"}', 2, ['"text"', "missing", '"body"']),
            ('{"text": "a"}\n{}', 2, ['"text"', "missing", "none"]),
            ('{"text": 3}', 1, ['"text"', "a number (3)", "not a string"]),
            ('{"text": null}', 1, ['"text"', "null"]),
            ('\n{"text": ["a"]}', 2, ['"text"', "a list"]),
            ('{"text": true}', 1, ['"text"', "true or false"]),
            ('["text"]', 1, ["a list", '"text"']),
            ('"text"', 1, ["a string", '"text"']),
            ('{"text": "a"}\n{"text": "b', 2, ["not a JSON object"]),
            ("{'text': 'a'}", 1, ["not a JSON object"]),
            ("garbage", 1, ["not a JSON object", "column 1"]),
            ("[" * 100_000, 1, ["nested too deeply"]),
            ('{"n": ' + "9" * 5000 + "}", 1, ["not a JSON object"]),
        ],
    )
    def test_bad_jsonl(self, tmp_path: Path, content: str, line: int, words: list[str]) -> None:
        file = write(tmp_path / "bad.jsonl", content)
        message = error_of(file)
        assert f"{file}, line {line}: " in message
        assert all(word in message for word in words), message
        assert len(message) < 500 + len(str(file))

    @pytest.mark.parametrize(
        ("content", "line", "words"),
        [
            ('[\n{"text": "a"},\n{"body": "b"}\n]', 3, ['"text"', "missing"]),
            ('[\n{"text": "a"},\n\n 7]', 4, ["a number (7)", '"text"']),
            ('[{"text": "a"},\n{"text": "b"', 2, ["not valid JSON"]),
            ('[{"text": "a"}\n{"text": "b"}]', 2, ["not valid JSON", "'{'"]),
            ('[{"text": "a"},\n]', 2, ["not valid JSON"]),
            ('[{"text": "a"}', 1, ["not valid JSON", "end of the file"]),
            ("[", 1, ["not valid JSON"]),
            ('["a"]\n]', 2, ["not valid JSON", "after the end"]),
            ('{"data": [{"text": "a"}]}', 1, ['"text"', "missing", '"data"']),
            ('{"text": ["a", 1]}', 1, ['"text"', "a number"]),
            ("[" * 100_000, 1, ["nested too deeply"]),
        ],
    )
    def test_bad_json(self, tmp_path: Path, content: str, line: int, words: list[str]) -> None:
        file = write(tmp_path / "bad.json", content)
        message = error_of(file)
        assert f"{file}, line {line}: " in message
        assert all(word in message for word in words), message

    def test_bad_records_are_counted_when_asked(self, tmp_path: Path) -> None:
        lines = ['{"text": "a"}', "garbage", '{"body": 1}', '{"text": 5}', '{"text": "b"}', '{"text": "torn']
        corpus = read_documents(write(tmp_path / "a.jsonl", "\n".join(lines)), skip_bad_records=True)
        assert corpus.documents == ["a", "b"]
        assert corpus.num_skipped_records == 4
        assert "line 2" in corpus.notes[0]


class TestCsv:
    def test_quotes_line_ends_and_commas_inside_fields(self, tmp_path: Path) -> None:
        file = tmp_path / "a.csv"
        texts = ['she said "no, never"', "two\nlines\n\nand more", "comma, and; semicolon", "ünï"]
        with file.open("w", newline="", encoding="utf-8-sig") as stream:
            rows = csv.writer(stream)
            rows.writerow(["id", "text", "kind"])
            rows.writerows([number, text, "x"] for number, text in enumerate(texts))
        corpus = read_documents(file)
        assert corpus.documents == texts
        assert corpus.sources[0].text_field == "text"
        assert not corpus.notes

    def test_the_only_text_column_is_used_and_named(self, tmp_path: Path) -> None:
        corpus = read_documents(write(tmp_path / "a.csv", "id,review,stars\n1,good,4.5\n2,bad,\n"))
        assert corpus.documents == ["good", "bad"]
        assert corpus.sources[0].text_field == "review"
        assert '"review"' in corpus.notes[0]

    def test_two_text_columns_are_an_error_that_lists_them(self, tmp_path: Path) -> None:
        file = write(tmp_path / "a.csv", "title,review\na,b\n")
        message = error_of(file)
        assert all(word in message for word in [f"{file}, line 1", '"text"', '"title"', '"review"', "2 columns"])

    def test_numbers_only(self, tmp_path: Path) -> None:
        assert "no column holds text" in error_of(write(tmp_path / "a.csv", "a,b\n1,2\n"))

    def test_a_column_that_was_asked_for_is_not_guessed(self, tmp_path: Path) -> None:
        assert '"body"' in error_of(write(tmp_path / "a.csv", "text\none\n"), text_field="body")

    @pytest.mark.parametrize(
        ("content", "line", "words"),
        [
            ("id,text\n1,one\n2\n", 3, ["1 field", "header has 2"]),
            ('id,text\n1,"a\nb"\n2,one,two\n', 4, ["3 field", '"text"']),
            ('id,text\n1,one\n2,"torn\nmore', 3, ["not a valid CSV row", "up to line 4"]),
            ('id,text\n1,"one"two\n', 2, ["not a valid CSV row"]),
            ('id,"text\n', 1, ["header"]),
        ],
    )
    def test_bad_csv(self, tmp_path: Path, content: str, line: int, words: list[str]) -> None:
        file = write(tmp_path / "bad.csv", content)
        message = error_of(file)
        assert f"{file}, line {line}: " in message
        assert all(word in message for word in words), message

    def test_bad_rows_are_counted_when_asked(self, tmp_path: Path) -> None:
        file = write(tmp_path / "a.csv", 'id,text\n1,one\n2\n3,"x"y\n4,four\n5,"torn')
        corpus = read_documents(file, skip_bad_records=True)
        assert corpus.documents == ["one", "four"]
        assert corpus.num_skipped_records == 3

    def test_the_limit_of_the_csv_module_is_left_as_it_was(self, tmp_path: Path) -> None:
        before = csv.field_size_limit()
        read_documents(write(tmp_path / "a.csv", "text\n" + "a" * 500_000 + "\n"))
        error_of(write(tmp_path / "b.csv", 'text\n"torn'))
        assert csv.field_size_limit() == before


class TestPaths:
    def test_missing(self, tmp_path: Path) -> None:
        message = error_of(tmp_path / "none.txt")
        assert str(tmp_path / "none.txt") in message
        assert "build-python-docs" in message

    @pytest.mark.parametrize("suffix", ["txt", "csv", "json", "jsonl"])
    @pytest.mark.parametrize("skip_bad", [True, False])
    def test_empty(self, tmp_path: Path, suffix: str, skip_bad: bool) -> None:
        file = write(tmp_path / f"a.{suffix}", "")
        message = error_of(file, skip_bad_records=skip_bad)
        assert str(file) in message
        assert "0 bytes" in message

    @pytest.mark.parametrize(
        ("name", "content"),
        [("a.txt", " \n\n\t\n"), ("a.csv", "text\n"), ("a.json", "[]"), ("a.json", " \n"), ("a.jsonl", '{"text": ""}')],
    )
    def test_no_document(self, tmp_path: Path, name: str, content: str) -> None:
        assert "no document is left" in error_of(write(tmp_path / name, content))

    def test_no_document_after_filtering_says_what_filtered(self, tmp_path: Path) -> None:
        assert "--ascii-only dropped 2 line(s)" in error_of(write(tmp_path / "a.txt", "é\n\nü"), ascii_only=True)
        assert "1 bad record(s)" in error_of(write(tmp_path / "a.jsonl", "x"), skip_bad_records=True)

    @pytest.mark.parametrize("name", ["a.parquet", "a", "a.txt.bak"])
    def test_an_unknown_suffix_lists_the_known_ones(self, tmp_path: Path, name: str) -> None:
        message = error_of(write(tmp_path / name, "text"))
        assert ".txt, .csv, .json, .jsonl" in message

    def test_nul_and_a_file_used_as_folder(self, tmp_path: Path) -> None:
        assert "NUL" in error_of(Path("a\0b.txt"))
        write(tmp_path / "a.txt", "text")
        assert str(tmp_path / "a.txt" / "b.txt") in error_of(tmp_path / "a.txt" / "b.txt")

    def test_a_name_too_long_for_the_file_system(self) -> None:
        assert "aaa.txt" in error_of(Path("a" * 5000 + ".txt"))

    def test_folders_are_read_recursively_in_order(self, tmp_path: Path) -> None:
        write(tmp_path / "b.TXT", "three")
        write(tmp_path / "a" / "x.jsonl", '{"text": "one"}')
        write(tmp_path / "a" / "y.csv", "text\ntwo\n")
        write(tmp_path / "a" / "picture.png", b"\x89PNG")
        write(tmp_path / ".hidden" / "z.txt", "no")
        write(tmp_path / ".draft.txt", "no")
        corpus = read_documents(tmp_path)
        assert corpus.documents == ["one", "two", "three"]
        assert [Path(source.path).name for source in corpus.sources] == ["x.jsonl", "y.csv", "b.TXT"]
        assert [source.num_documents for source in corpus.sources] == [1, 1, 1]
        assert "1 file(s) with other suffixes" in corpus.notes[0]

    def test_a_built_corpus_gives_its_training_part(self, tmp_path: Path) -> None:
        write(tmp_path / "train.jsonl", '{"text": "train"}')
        write(tmp_path / "validation.jsonl", '{"text": "validation"}')
        write(tmp_path / "dataset.json", '{"name": "x"}')
        corpus = read_documents(tmp_path)
        assert corpus.documents == ["train"]
        assert "validation.jsonl left out" in corpus.notes[0]

    def test_a_folder_without_data(self, tmp_path: Path) -> None:
        assert "no dataset file" in error_of(tmp_path)

    def test_an_empty_file_in_a_folder(self, tmp_path: Path) -> None:
        write(tmp_path / "a.txt", "text")
        empty = write(tmp_path / "b.txt", "")
        assert str(empty) in error_of(tmp_path)
        corpus = read_documents(tmp_path, skip_bad_records=True)
        assert corpus.documents == ["text"]
        assert str(empty) in corpus.notes[0]


class TestFingerprint:
    def test_it_is_about_content_and_options_not_about_places(self, tmp_path: Path) -> None:
        first = read_documents(write(tmp_path / "here" / "a.txt", "one\n\ntwo")).fingerprint
        again = write(tmp_path / "there" / "b.txt", "one\n\ntwo")
        assert read_documents(again).fingerprint == first
        assert read_documents(again, ascii_only=True).fingerprint != first
        assert read_documents(again, document_separator="--").fingerprint != first
        assert read_documents(write(again, "one\n\ntwo!")).fingerprint != first
        assert len(first) == 64

    def test_it_depends_on_the_order_of_files(self, tmp_path: Path) -> None:
        for folder, names in (("x", "ab"), ("y", "ba")):
            for name, text in zip(names, ["one", "two"], strict=True):
                write(tmp_path / folder / f"{name}.txt", text)
        assert read_documents(tmp_path / "x").fingerprint != read_documents(tmp_path / "y").fingerprint


def test_pointers_and_pipes_in_the_place_of_a_text(tmp_path: Path) -> None:
    file = tmp_path / "text.txt"
    file.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    with pytest.raises(DataError, match=r"text\.txt is a pointer of Git LFS.*'git lfs pull'"):
        read_documents(file)
    file.unlink()
    os.mkfifo(file)
    with pytest.raises(DataError, match=r"text\.txt"):
        read_documents(file)
