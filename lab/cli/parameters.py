"""Parameters that several commands have."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

Json = Annotated[bool, Parameter(negative="", show_default=False, help="Write JSON instead.")]
Yes = Annotated[bool, Parameter(negative="", show_default=False, help="Do not ask.")]
Expert = Annotated[str, Parameter(name="EXPERT", help="Id of the expert, as 'lab experts list' shows it.")]
