"""``aios``: the command words of the five documents, mapped to the same functions as ``lab``."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from lab.cli.app import main as lab
from lab.cli.console import say
from lab.cli.goals import app as goals

# Words of the documents -> words of ``lab``. Others of the documents follow with what they need.
_TWINS: dict[tuple[str, ...], tuple[str, ...]] = {
    ("hrm-hf", "train-actv1"): ("train", "actv1"),
    **{(f"goals-{word}",): ("goals", word) for word in goals if not word.startswith("-")},
}


def translated(words: Sequence[str]) -> list[str] | None:
    """The words of ``lab`` for a command line of ``aios``, or None if it is not one of the documents'."""
    for twin, ours in _TWINS.items():
        if tuple(words[: len(twin)]) == twin:
            return [*ours, *words[len(twin) :]]
    return None


def main(tokens: Sequence[str] | None = None) -> int:
    """Run an ``aios`` command line (by default the process's own) and return the exit code."""
    words = list(sys.argv[1:] if tokens is None else tokens)
    ours = translated(words)
    if ours is not None:
        return lab(ours)
    lines = (f"  aios {' '.join(theirs)} ...  is  lab {' '.join(twin)} ..." for theirs, twin in _TWINS.items())
    text = "aios takes the commands that the documents call by it; everything else is 'lab' ('lab --help').\n"
    is_help = not words or words[0] in {"--help", "-h"}
    refusal = "" if is_help else f"error: 'aios {' '.join(words[:2])}' is not known here. "
    say(refusal + text + "\n".join(lines), stderr=not is_help)
    return 0 if is_help else 2


if __name__ == "__main__":
    raise SystemExit(main())
