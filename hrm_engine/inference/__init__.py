"""Use of trained models: evaluation, generation, solving, and watching a solver think."""

from hrm_engine.inference.evaluate import Evaluation, evaluate
from hrm_engine.inference.generate import Writing, generate, generate_batch, stream
from hrm_engine.inference.solve import Solutions, solve
from hrm_engine.inference.text_row import Generation
from hrm_engine.inference.trace import Segment, Trace, principal_components, trace, watch

__all__ = [
    "Evaluation",
    "Generation",
    "Segment",
    "Solutions",
    "Trace",
    "Writing",
    "evaluate",
    "generate",
    "generate_batch",
    "principal_components",
    "solve",
    "stream",
    "trace",
    "watch",
]
