"""The lab: command line, recipes and the notebook runner, all on top of ``hrm_engine``."""

from __future__ import annotations
