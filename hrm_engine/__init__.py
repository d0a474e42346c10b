"""HRM Lab's engine: train, look into and use Hierarchical Reasoning Models.

    import hrm_engine

    config = hrm_engine.load_config("text-small", steps=50)
    result = hrm_engine.train(config)
    bundle = hrm_engine.load_bundle(result.run_dir)
    print(hrm_engine.generate(bundle, "The list").text)

    config = hrm_engine.load_puzzle_config("sudoku-4x4")
    solver = hrm_engine.load_bundle(hrm_engine.train(config).run_dir)
    thinking = hrm_engine.trace(solver, board)

Names are loaded when they are first used, so that importing the package costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hrm_engine.bundles.bundle import Bundle, PuzzleBundle
    from hrm_engine.bundles.listing import list_bundles, verify_bundle
    from hrm_engine.bundles.load import load_bundle
    from hrm_engine.config.puzzle import PuzzleTrainConfig, load_puzzle_config
    from hrm_engine.config.text import TextTrainConfig, load_config
    from hrm_engine.errors import HRMError
    from hrm_engine.inference import Generation, Solutions, Trace, generate, solve, stream, trace
    from hrm_engine.training import StepReport, Trainer, TrainResult, train
    from hrm_engine.training.estimating.estimate import Estimate, estimate

_HOMES = {
    "Bundle": "hrm_engine.bundles.bundle",
    "Estimate": "hrm_engine.training.estimating.estimate",
    "Generation": "hrm_engine.inference",
    "HRMError": "hrm_engine.errors",
    "PuzzleBundle": "hrm_engine.bundles.bundle",
    "PuzzleTrainConfig": "hrm_engine.config.puzzle",
    "Solutions": "hrm_engine.inference",
    "StepReport": "hrm_engine.training",
    "TextTrainConfig": "hrm_engine.config.text",
    "Trace": "hrm_engine.inference",
    "TrainResult": "hrm_engine.training",
    "Trainer": "hrm_engine.training",
    "estimate": "hrm_engine.training.estimating.estimate",
    "generate": "hrm_engine.inference",
    "list_bundles": "hrm_engine.bundles.listing",
    "load_bundle": "hrm_engine.bundles.load",
    "load_config": "hrm_engine.config.text",
    "load_puzzle_config": "hrm_engine.config.puzzle",
    "solve": "hrm_engine.inference",
    "stream": "hrm_engine.inference",
    "trace": "hrm_engine.inference",
    "train": "hrm_engine.training",
    "verify_bundle": "hrm_engine.bundles.listing",
}

__all__ = [
    "Bundle",
    "Estimate",
    "Generation",
    "HRMError",
    "PuzzleBundle",
    "PuzzleTrainConfig",
    "Solutions",
    "StepReport",
    "TextTrainConfig",
    "Trace",
    "TrainResult",
    "Trainer",
    "estimate",
    "generate",
    "list_bundles",
    "load_bundle",
    "load_config",
    "load_puzzle_config",
    "solve",
    "stream",
    "trace",
    "train",
    "verify_bundle",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
