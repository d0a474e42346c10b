"""Use of trained models: evaluation and generation."""

from hrm_engine.inference.evaluate import Evaluation, evaluate
from hrm_engine.inference.generate import Generation, generate, stream

__all__ = ["Evaluation", "Generation", "evaluate", "generate", "stream"]
