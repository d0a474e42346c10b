"""Parameters that several commands have."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Annotated

from cyclopts import Parameter

HELP_ALL = "--help-all"
"""Of commands with many flags: help with all of them, where ``--help`` has the common ones."""
WITH_ALL_FLAGS: ContextVar[bool] = ContextVar("with_all_flags", default=False)
"""Whether this process shows that help."""


def switch(text: str, *names: str) -> Parameter:
    """A switch that is off and has no ``--no-...``."""
    return Parameter(name=names or None, negative="", show_default=False, help=text)


Json = Annotated[bool, switch("Write JSON instead.")]
Yes = Annotated[bool, switch("Do not ask.")]
Expert = Annotated[str, Parameter(name="EXPERT", help="Id of the expert, as 'lab experts list' shows it.")]
Brain = Annotated[str, Parameter(help="Name or id of a brain, or the path of its folder.")]
