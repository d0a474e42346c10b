"""One text file -> its documents, for each accepted suffix.

Every reader gets a `FileReading`, which decodes the bytes and handles a bad record: raise a `DataError` that names
file, line and field, or count it if ``skip_bad``.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

from hrm_engine.data.text.encodings import SURROGATES, encoding_of
from hrm_engine.errors import DataError
from hrm_engine.reading import object_of

END_OF_TEXT = "<|endoftext|>"
# The csv module refuses fields above 128 KiB; the largest C long on Windows is the largest portable limit.
_CSV_FIELD_LIMIT = 2**31 - 1
_CSV_PROBE_ROWS = 200
_MAX_NOTED_PROBLEMS = 5
_SEPARATOR_LINE = re.compile(r"sep=(.)\r*\n?", re.IGNORECASE)
_DECODER = json.JSONDecoder(object_pairs_hook=object_of)
_RETURNS = re.compile(r"\r+\n?")


@dataclass
class FileReading:
    """Settings and results of reading one file."""

    path: Path
    text_field: str = "text"
    separator: str = END_OF_TEXT
    skip_bad: bool = False
    encoding: str | None = None
    num_bytes: int = 0
    num_characters: int = 0
    num_replaced: int = 0
    num_skipped_records: int = 0
    text_column: str | None = None
    notes: list[str] = field(default_factory=list)
    sha256: str = ""

    def bad(self, line: int, problem: str) -> None:
        """Count one bad record, or raise the `DataError` that names file, line and problem."""
        sentence = f"{self.path}, line {line}: {problem}"
        if not self.skip_bad:
            raise DataError(f"{sentence}. Correct the record, or skip bad ones with --skip-bad-records.")
        self.num_skipped_records += 1
        if self.num_skipped_records <= _MAX_NOTED_PROBLEMS:
            self.notes.append(f"skipped: {sentence}")

    def lines(self) -> Iterator[str]:
        """Decoded lines with their line ends, one in memory at a time."""
        try:
            how = encoding_of(self.path, self.encoding)
            self.sha256, self.num_bytes = how.sha256, how.num_bytes
            self.notes += [how.note] if how.note else []
            for line, count in how.decoded(self.path):
                self.num_replaced += count
                self.num_characters += len(line)
                yield line
        except OSError as error:
            raise DataError(f"{self.path}: cannot be read ({error.strerror or error}).") from error

    def whole(self) -> str:
        """The decoded text of the whole file, line ends as ``\\n``."""
        return with_line_feeds("".join(self.lines()))

    def check_text(self, value: object, line: int, where: str) -> list[str]:
        """``[value]`` if it is a string, else a bad record."""
        if isinstance(value, str):
            # JSON can spell half a surrogate pair ("\\ud800"), which no tokenizer can encode.
            if not value.isascii() and SURROGATES.search(value):
                value, count = SURROGATES.subn("\ufffd", value)
                self.num_replaced += count
            return [value]
        self.bad(line, f"{where} holds {_kind(value)}, not a string")
        return []


def with_line_feeds(text: str) -> str:
    """The text with ``\\n`` for each line end; some writers put several ``\\r`` before theirs."""
    if "\r" not in text:
        return text
    return _RETURNS.sub(lambda match: "\n" if match[0][-1] == "\n" else "\n" * len(match[0]), text)


def read_txt(reading: FileReading) -> list[str]:
    """Documents between separator lines; a file without such a line is split at blank lines."""
    text = reading.whole()
    if reading.separator:
        parts = re.split(rf"(?m)^[ \t]*{re.escape(reading.separator)}[ \t]*$", text)
        if len(parts) > 1:
            return _not_blank(parts)
    return _not_blank(re.split(r"\n[^\S\n]*(?=\n)", text))


def _not_blank(parts: list[str]) -> list[str]:
    # What stands between two separators in a row is no document, so it is not counted as an empty one either.
    return [part for part in parts if part and not part.isspace()]


def read_jsonl(reading: FileReading) -> list[str]:
    """One JSON object a line; blank lines are allowed."""
    documents: list[str] = []
    for number, line in enumerate(reading.lines(), start=1):
        if not line.strip():
            continue
        try:
            record = _DECODER.decode(line)
        except (ValueError, RecursionError) as error:
            several = ". If objects span several lines, name the file .json" if line.strip() in ("{", "[") else ""
            reading.bad(number, f"not a JSON object ({_json_reason(error)}){several}")
            continue
        documents += _record_text(reading, record, number, allow_plain=False)
    return documents


def read_json(reading: FileReading) -> list[str]:
    """An array of objects or strings, one object, or several values one after the other."""
    text = reading.whole()
    space = re.compile(r"[ \t\r\n]*")
    documents: list[str] = []
    line, counted_to = 1, 0
    at = _skip(space, text, 0)
    in_array = text[at : at + 1] == "["
    if in_array:
        at = _skip(space, text, at + 1)
        if text[at : at + 1] == "]":
            return _end_of_array(reading, space, text, at, documents)
    while at < len(text) or in_array:
        line, counted_to = line + text.count("\n", counted_to, at), at
        try:
            record, at = _DECODER.raw_decode(text, at)
        except (ValueError, RecursionError) as error:
            # Unlike in JSONL nothing says where the next record begins, so there is nothing to skip to.
            raise DataError(f"{reading.path}, line {line}: not valid JSON ({_json_reason(error)}).") from error
        documents += _record_text(reading, record, line, allow_plain=True)
        at = _skip(space, text, at)
        if not in_array:
            continue
        mark = text[at : at + 1]
        if mark == "]":
            return _end_of_array(reading, space, text, at, documents)
        if mark != ",":
            where = line + text.count("\n", counted_to, at)
            following = repr(mark) if mark else "the end of the file"
            raise DataError(f"{reading.path}, line {where}: not valid JSON (expected ',' or ']', found {following}).")
        at = _skip(space, text, at + 1)
    return documents


def read_csv(reading: FileReading) -> list[str]:
    """Rows below a header; the text stands in the column named by ``text_field``, else in the only text column."""
    before = csv.field_size_limit(_CSV_FIELD_LIMIT)
    try:
        rows = _csv_rows(reading)
    finally:
        csv.field_size_limit(before)
    if not rows:
        return []
    (_, header), *body = rows
    names = [name.strip() for name in header]
    usable = []
    for line, row in body:
        if len(row) == len(names):
            usable.append((line, row))
        else:
            reading.bad(line, f"the row has {len(row)} field(s), the header has {len(names)} ({_listed(names)})")
    column = _text_column(reading, names, [row for _, row in usable[:_CSV_PROBE_ROWS]])
    reading.text_column = names[column]
    return [with_line_feeds(row[column]) for _, row in usable]


def _csv_rows(reading: FileReading) -> list[tuple[int, list[str]]]:
    lines = reading.lines()
    first = next(lines, "")
    rows: list[tuple[int, list[str]]] = []
    if named := _SEPARATOR_LINE.fullmatch(first):  # what Excel writes for itself
        separator, first, before = named[1], next(lines, ""), 1
    else:
        separator, before = _separator(first), 0
    if separator != ",":
        shown = "tabs" if separator == "\t" else f'"{separator}"'
        reading.notes.append(f"{reading.path}: the columns are separated by {shown}")
    reader = csv.reader(chain([first], lines), delimiter=separator, strict=True)
    while True:
        line = before + reader.line_num + 1
        try:
            row = next(reader)
        except StopIteration:
            return rows
        except csv.Error as error:
            if not rows:
                raise DataError(f"{reading.path}, line {line}: the header is not valid CSV ({error}).") from error
            reading.bad(line, f"not a valid CSV row ({error}); it was read up to line {before + reader.line_num}")
            continue
        if row:
            rows.append((line, row))


def _separator(header: str) -> str:
    """What stands between the columns of a header: a comma, but where it has none and other usual separators."""
    if "," in header:
        return ","
    try:  # the module's own Sniffer takes minutes for a long line
        columns = {mark: len(next(csv.reader([header], delimiter=mark), ())) for mark in ";\t|"}
    except csv.Error:
        return ","
    widest = max(columns, key=columns.__getitem__)
    return widest if columns[widest] > 1 else ","


def _text_column(reading: FileReading, names: list[str], probe: list[list[str]]) -> int:
    if reading.text_field in names:
        return names.index(reading.text_field)
    if reading.text_field == "text":
        texts = [i for i in range(len(names)) if not all(_is_number(row[i]) for row in probe)]
        if len(names) == 1:
            texts = [0]
        if len(texts) == 1:
            column = texts[0]
            reading.notes.append(f'{reading.path}: no column "text"; the only text column "{names[column]}" is used')
            return column
        reason = f"and {len(texts)} columns hold text" if texts else "and no column holds text"
    else:
        reason = "although the settings name it"
    raise DataError(
        f'{reading.path}, line 1: there is no column "{reading.text_field}" {reason}; the columns are '
        f"{_listed(names)}. Name the column of the documents with --text-field. Line 1 is read as the header: add "
        "one to a file that has none."
    )


def _record_text(reading: FileReading, record: object, line: int, *, allow_plain: bool) -> list[str]:
    name = reading.text_field
    if isinstance(record, dict):
        if name not in record:
            fields = _listed(list(record)) if record else "none"
            reading.bad(line, f'the field "{name}" is missing; the record has the fields {fields}')
            return []
        value = record[name]
        if allow_plain and isinstance(value, list):
            return [text for item in value for text in reading.check_text(item, line, f'the field "{name}"')]
        return reading.check_text(value, line, f'the field "{name}"')
    if allow_plain and isinstance(record, str):
        return reading.check_text(record, line, "the record")
    reading.bad(line, f'the record is {_kind(record)}, not an object with the field "{name}"')
    return []


def _end_of_array(reading: FileReading, space: re.Pattern[str], text: str, at: int, documents: list[str]) -> list[str]:
    at = _skip(space, text, at + 1)
    if at < len(text):
        line = 1 + text.count("\n", 0, at)
        raise DataError(f"{reading.path}, line {line}: not valid JSON (text after the end of the array).")
    return documents


def _skip(space: re.Pattern[str], text: str, at: int) -> int:
    match = space.match(text, at)
    return match.end() if match else at


def _is_number(value: str) -> bool:
    if not value.strip():
        return True
    try:
        float(value)
    except ValueError:
        return False
    return True


def _kind(value: object) -> str:
    if value is None:
        return "null"
    names = {bool: "true or false", int: "a number", float: "a number", str: "a string", list: "a list"}
    shown = repr(value)
    shown = shown if len(shown) <= 40 else shown[:37] + "..."
    return f"{names.get(type(value), 'an object')} ({shown})"


def _json_reason(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg}, column {error.colno}"
    return "nested too deeply" if isinstance(error, RecursionError) else str(error)[:80]


def _listed(names: list[str]) -> str:
    shown = ", ".join(f'"{name[:40]}"' for name in names[:10])
    return shown + (f" and {len(names) - 10} more" if len(names) > 10 else "")


READERS: dict[str, Callable[[FileReading], list[str]]] = {
    ".txt": read_txt,
    ".csv": read_csv,
    ".json": read_json,
    ".jsonl": read_jsonl,
}
