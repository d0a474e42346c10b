"""Training: state, steps, checkpoints, and the run folder that all of it leaves."""

from hrm_engine.training.fork import forked_config
from hrm_engine.training.opening import settle
from hrm_engine.training.run import TrainResult, drive, train
from hrm_engine.training.run_folder import resumed_config
from hrm_engine.training.trainer import StepReport, Trainer

__all__ = ["StepReport", "TrainResult", "Trainer", "drive", "forked_config", "resumed_config", "settle", "train"]
