"""Plotly figures made from frames. Nothing here reads a file or knows streamlit."""

from __future__ import annotations
