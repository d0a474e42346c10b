"""Run notebooks from top to bottom: typed parameters, a fresh kernel each, a folder that tells what happened."""

from __future__ import annotations
