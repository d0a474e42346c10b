"""Input of the forms in the dashboard and in notebooks, read the same way in both."""

from __future__ import annotations


def typed_stop_strings(lines: str) -> list[str]:
    r"""Stop strings of a form: one a line, empty lines aside; ``\n`` within a line stands for a line break."""
    return [line.replace(r"\n", "\n") for line in lines.split("\n") if line]
