"""``python -m lab`` is ``lab``."""

from __future__ import annotations

from lab.cli.app import main

if __name__ == "__main__":
    raise SystemExit(main())
