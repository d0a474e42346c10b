"""Questions to run folders, answered with frames and small records. Nothing here knows streamlit."""

from __future__ import annotations
