"""Run notebooks from top to bottom: typed parameters, a fresh kernel each, a folder that tells what happened."""

from __future__ import annotations

import sys

# nbformat imports jsonschema, which makes 38 parsers of IRIs if it finds this package: a second, two thirds of the
# start of a run. No schema of a notebook asks for an IRI.
sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]
