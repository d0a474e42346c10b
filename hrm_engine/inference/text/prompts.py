"""Files of prompts: ``.txt`` with one a line, or ``.jsonl`` with one in the field ``prompt`` of every object."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from hrm_engine.data.text.encodings import SURROGATES
from hrm_engine.errors import DataError
from hrm_engine.inference.text.row import Generation
from hrm_engine.reading import JSON_LIMIT, object_of, read_regular

SUFFIXES = (".txt", ".jsonl")
_LINE_END = re.compile(rb"\r\n|\n|\r")
# Two runs with the same seed write the same file, so the seconds are not in it.
_LEFT_OUT = {"seconds"}
_ANSWER = {"index", *(one.name for one in fields(Generation))} - _LEFT_OUT - {"prompt"}


@dataclass(frozen=True)
class Prompt:
    """One prompt of a file."""

    text: str
    where: str
    """File and line, for messages."""
    others: dict[str, Any] = field(default_factory=dict)
    """The other fields of its object."""


def read_prompts(path: Path) -> list[Prompt]:
    """All prompts of a file. Blank lines are none; an empty prompt is written ``{"prompt": ""}``.

    Raises:
        DataError: the file is missing, of another kind, or without prompts; a line is no UTF-8 or no such object. The
            message names the line.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise DataError(f"{path}: prompts stand in a .txt file, one a line, or in a .jsonl file, in the field 'prompt'")
    content = read_regular(path, DataError, limit=JSON_LIMIT)
    is_json = path.suffix.lower() == ".jsonl"
    prompts = [_record(text, where) if is_json else Prompt(text, where) for text, where in _lines(content, path)]
    if not prompts:
        raise DataError(f"{path}: there is no prompt in it")
    return prompts


def answer_line(index: int, prompt: Prompt, generation: Generation) -> str:
    """One line of JSON, without its end: place in the file, the other fields of the prompt, what was generated."""
    answer = {key: value for key, value in asdict(generation).items() if key not in _LEFT_OUT}
    content = {"index": index, **prompt.others, **answer}
    line = json.dumps(content, ensure_ascii=False)
    # A kept field may hold half a surrogate pair, which has an escaped form only.
    return line if SURROGATES.search(line) is None else json.dumps(content)


def readable(text: str) -> str:
    """Text with U+FFFD in the place of half surrogate pairs, which are no characters and cannot be written."""
    return SURROGATES.sub("\ufffd", text)


def decoded(raw: bytes, where: str) -> str:
    """Bytes as text. Raises DataError if they are not UTF-8."""
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as problem:
        raise DataError(f"{where}: byte {problem.start + 1} is not UTF-8; save the text as UTF-8") from problem


def _lines(content: bytes, path: Path) -> Iterator[tuple[str, str]]:
    """Lines that are not blank, without their ends, and what to call them."""
    for number, raw in enumerate(_LINE_END.split(content.removeprefix(b"\xef\xbb\xbf")), start=1):
        where = f"{path}, line {number}"
        text = decoded(raw, where)
        if text.strip():
            yield text, where


def _record(line: str, where: str) -> Prompt:
    try:
        record = json.loads(line, parse_constant=_refuse_constant, object_pairs_hook=object_of)
    except (ValueError, RecursionError) as problem:
        reason = f"{problem.msg}, column {problem.colno}" if isinstance(problem, json.JSONDecodeError) else str(problem)
        raise DataError(f"{where}: no JSON object ({reason[:80]})") from problem
    if not isinstance(record, dict):
        raise DataError(f"{where}: a JSON object with the field 'prompt' is expected, not {line[:40]}")
    if "prompt" not in record:
        names = ", ".join(repr(name[:40]) for name in list(record)[:10]) or "no field"
        raise DataError(f"{where}: the field 'prompt' is missing; there is {names}")
    text = record.pop("prompt")
    if not isinstance(text, str):
        raise DataError(f"{where}: the field 'prompt' must be a string, not {json.dumps(text)[:40]}")
    if taken := sorted(_ANSWER & set(record)):
        raise DataError(f"{where}: the field {taken[0]!r} is one that the answer has; give it another name")
    return Prompt(readable(text), where, record)


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")
