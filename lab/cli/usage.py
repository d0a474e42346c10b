"""What is wrong with a command line, in the words of the lab."""

from __future__ import annotations

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

_NEEDED = {int: WHOLE_NUMBER, float: NUMBER, bool: SWITCH}


def usage_problem(error: CycloptsError, program: str = "lab") -> str:
    """The message for the user: ``--lr abc: a number is needed``."""
    command = " ".join([program, *(error.command_chain or ())])
    match error:
        case CoercionError(token=token) if token is not None and (error.msg or error.target_type in _NEEDED):
            place = token.keyword or ("" if error.argument is None else error.argument.name)
            values = [item.value for item in (error.argument.tokens if error.argument else ()) or [token]]
            return f"{place} {shown(' '.join(values))}: {error.msg or _NEEDED[error.target_type]}"
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


def help_command(error: CycloptsError, program: str) -> str:
    """The command line that shows what the command takes that was meant."""
    help_flags = () if error.app is None else error.app.help_flags
    return " ".join([program, *(error.command_chain or ()), HELP_ALL if HELP_ALL in help_flags else "--help"])
