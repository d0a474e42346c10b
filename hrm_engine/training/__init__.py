"""Training: state, steps, checkpoints, and the run folder that all of it leaves."""

from hrm_engine.training.journal import StepReport
from hrm_engine.training.opening import settle
from hrm_engine.training.run import TrainResult, drive, train
from hrm_engine.training.trainer import Trainer

__all__ = ["StepReport", "TrainResult", "Trainer", "drive", "settle", "train"]
