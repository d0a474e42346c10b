"""The command line: one file per command group; each parses, calls the engine and prints.

Importing this package or ``lab.cli.app`` loads none of the heavy libraries; commands load theirs when they run.
"""

from __future__ import annotations
