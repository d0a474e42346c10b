"""``python -m aios.cli.aios ...``, as the documents write it, is the console script ``aios``."""

from __future__ import annotations

from lab.cli.aios import main

if __name__ == "__main__":
    raise SystemExit(main())
