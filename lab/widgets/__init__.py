"""What notebooks show: widgets that move in JupyterLab and stand still, but whole, in pages made from notebooks."""

from __future__ import annotations

from lab.widgets.latent_view import LatentView
from lab.widgets.puzzle_view import PuzzleView
from lab.widgets.text_playground import TextPlayground
from lab.widgets.text_view import TextView
from lab.widgets.trace_viewer import TraceViewer

__all__ = ["LatentView", "PuzzleView", "TextPlayground", "TextView", "TraceViewer"]
