"""Use of trained models: evaluation, generation, solving, and watching a solver think."""

from hrm_engine.inference.puzzles.evaluate_solver import SolverEvaluation, evaluate_solver
from hrm_engine.inference.puzzles.solve import Solutions, solve
from hrm_engine.inference.puzzles.trace import Segment, Trace, principal_components, trace, watch
from hrm_engine.inference.text.evaluate import Evaluation, evaluate
from hrm_engine.inference.text.generate import Writing, generate, generate_batch, stream
from hrm_engine.inference.text.row import Generation

__all__ = [
    "Evaluation",
    "Generation",
    "Segment",
    "Solutions",
    "SolverEvaluation",
    "Trace",
    "Writing",
    "evaluate",
    "evaluate_solver",
    "generate",
    "generate_batch",
    "principal_components",
    "solve",
    "stream",
    "trace",
    "watch",
]
