"""What is wrong with a command line, in the words of the lab."""

from __future__ import annotations

from typing import Literal, get_args, get_origin

from cyclopts import CycloptsError
from cyclopts.exceptions import (
    CoercionError,
    MissingArgumentError,
    RepeatArgumentError,
    UnknownCommandError,
    UnusedCliTokensError,
)

from hrm_engine.config.reasons import NUMBER, SWITCH, WHOLE_NUMBER, shown
from lab.cli.parameters import HELP_ALL

_NEEDED: dict[object, str] = {int: WHOLE_NUMBER, float: NUMBER, bool: SWITCH}


def usage_problem(error: CycloptsError, program: str = "lab") -> str:
    """The message for the user: ``--lr abc: a number is needed``."""
    command = " ".join([program, *(error.command_chain or ())])
    match error:
        case CoercionError(token=token) if token is not None and (why := error.msg or _needed(error.target_type)):
            place = token.keyword or ("" if error.argument is None else error.argument.name)
            values = [item.value for item in (error.argument.tokens if error.argument else ()) or [token]]
            return f"{place} {shown(' '.join(values))}: {why}"
        case MissingArgumentError(keyword=str(flag)):
            return f"{flag}: a value is needed"
        case MissingArgumentError(argument=argument) if argument is not None:
            return f"'{command}' needs {argument.name}"
        case UnknownCommandError() if program != "lab":
            return f"{error} Everything else is 'lab'."
        case UnusedCliTokensError(unused_tokens=[*words]):
            return f"'{command}' does not take {' '.join(map(shown, words))}"
        case RepeatArgumentError(token=token):
            return f"{token.keyword} is given twice: leave one out"
    return str(error)


def _needed(kind: object) -> str:
    """What a value of this type must be; empty for a type that takes any text."""
    if get_origin(kind) is Literal:
        *most, last = map(str, get_args(kind))
        return f"use {', '.join(most)} or {last}" if most else f"use {last}"
    return _NEEDED.get(kind, "")


def help_command(error: CycloptsError, program: str) -> str:
    """The command line that shows what the command takes that was meant."""
    help_flags = () if error.app is None else error.app.help_flags
    return " ".join([program, *(error.command_chain or ()), HELP_ALL if HELP_ALL in help_flags else "--help"])
