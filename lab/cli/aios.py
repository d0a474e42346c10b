"""``aios``: the command words of the five documents, mapped to the same functions as ``lab``."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from lab.cli.app import main as lab
from lab.cli.console import console

# Words of the documents -> words of ``lab``. Others of the documents follow with what they need.
_TWINS: dict[tuple[str, ...], tuple[str, ...]] = {("hrm-hf", "train-actv1"): ("train", "actv1")}


def main(tokens: Sequence[str] | None = None) -> int:
    """Run an ``aios`` command line (by default the process's own) and return the exit code."""
    words = list(sys.argv[1:] if tokens is None else tokens)
    for twin, ours in _TWINS.items():
        if tuple(words[: len(twin)]) == twin:
            return lab([*ours, *words[len(twin) :]])
    known = "\n".join(f"  aios {' '.join(twin)} ...  is  lab {' '.join(ours)} ..." for twin, ours in _TWINS.items())
    text = f"aios takes the commands that the documents call by it; everything else is 'lab' ('lab --help').\n{known}"
    asked_for_help = not words or words[0] in {"--help", "-h"}
    if not asked_for_help:
        text = f"error: 'aios {' '.join(words[:2])}' is not known here. {text}"
    console(stderr=not asked_for_help).print(text)
    return 0 if asked_for_help else 2


if __name__ == "__main__":
    raise SystemExit(main())
