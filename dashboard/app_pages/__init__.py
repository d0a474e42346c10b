"""The pages that ``router.py`` routes to (runs, run, puzzles, playground), and what they are made of."""

from __future__ import annotations
