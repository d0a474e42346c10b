"""Training: state, steps, checkpoints, and the run folder that all of it leaves."""

from hrm_engine.training.fork import forked_config
from hrm_engine.training.opening import Beginning
from hrm_engine.training.run import TrainResult, train
from hrm_engine.training.run_folder import resumed_config
from hrm_engine.training.trainer import StepReport, Trainer

__all__ = ["Beginning", "StepReport", "TrainResult", "Trainer", "forked_config", "resumed_config", "train"]
