"""The pages: ``app.py`` routes to ``runs`` and ``run``; ``parts`` and ``sections`` are what these are made of."""

from __future__ import annotations
