"""What is wrong with a value, in words for people: one for each error that pydantic can report here."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from pydantic import ValidationError

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

WHOLE_NUMBER = "a whole number is needed"
NUMBER = "a number is needed"
SWITCH = "true or false is needed"
_TEXT = "a text is needed"
_LIST = "a list is needed"
_GROUP = "a group of names and values is needed"
_UNKNOWN = "there is no such setting"
_REASONS = {
    "missing": "a value is needed",
    "extra_forbidden": _UNKNOWN,
    "int_type": WHOLE_NUMBER,
    "int_parsing": WHOLE_NUMBER,
    "int_parsing_size": "a smaller number is needed",
    "int_from_float": WHOLE_NUMBER,
    "float_type": NUMBER,
    "float_parsing": NUMBER,
    "finite_number": "a finite number is needed",
    "bool_type": SWITCH,
    "bool_parsing": SWITCH,
    "string_type": _TEXT,
    "string_unicode": "a text of whole characters is needed",
    "string_too_short": "at least {min_length} characters are needed",
    "string_too_long": "at most {max_length} characters are allowed",
    "literal_error": "use {expected}",
    "path_type": "a path is needed",
    "greater_than": "must be above {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be below {lt}",
    "less_than_equal": "must be at most {le}",
    "multiple_of": "must be a multiple of {multiple_of}",
    "too_short": "at least {min_length} values are needed",
    "too_long": "at most {max_length} values are allowed",
    "list_type": _LIST,
    "tuple_type": _LIST,
    "dict_type": _GROUP,
    "mapping_type": _GROUP,
    "model_type": _GROUP,
    "model_attributes_type": _GROUP,
    "none_required": "must be none",
    "invalid-json-value": "JSON is needed",
    "is_instance_of": "must be of type {class}",
}
_OWN = ("value_error", "assertion_error")  # of our own checks
_WITHOUT_VALUE = (*_OWN, "missing", "extra_forbidden")
_SHOWN_CHARS = 80


def reason(problem: ErrorDetails) -> str:
    """What is wrong, without the value: ``a number is needed``."""
    if problem["type"] in _OWN:
        return problem["msg"].partition(", ")[2]
    if problem["type"] not in _REASONS:
        return problem["msg"]
    context = {
        name: f"{value:g}" if isinstance(value, float) else value for name, value in problem.get("ctx", {}).items()
    }
    return _REASONS[problem["type"]].format_map(context).replace("'", "")


def field_problems(error: ValidationError) -> str:
    """Every field that is wrong with the reason, in one line."""
    return problems_of((".".join(map(str, problem["loc"])), problem) for problem in error.errors())


def problems_of(problems: Iterable[tuple[str, ErrorDetails]]) -> str:
    """Problems with the settings that have them, in one line: ``--lr abc: a number is needed``.

    The alternatives of a type report one problem each; they become one.
    """
    reasons: dict[str, list[str]] = {}
    for label, problem in problems:
        value = problem["input"]
        says_it = problem["type"] in _WITHOUT_VALUE or isinstance(value, dict)
        place = label if says_it else f"{label} {shown(value)}".lstrip()
        texts = reasons.setdefault(place, [])
        if reason(problem) not in texts:
            texts.append(reason(problem))
    return "; ".join(
        f"{place}: {' or '.join(texts)}" if place else "; ".join(texts) for place, texts in reasons.items()
    )


def shown(value: object) -> str:
    """``value`` on one line, short, and in quotes if it is a text that is no plain word."""
    is_word = isinstance(value, str) and value.isascii() and value.isprintable() and value.strip() == value != ""
    text = str(value) if is_word else ascii(value)
    return text if len(text) <= _SHOWN_CHARS else text[: _SHOWN_CHARS - 3] + "..."
