"""Update rules, parameter groups and learning-rate schedules."""

from hrm_engine.optim.masters import MasterWeights
from hrm_engine.optim.schedules import learning_rate
from hrm_engine.optim.updater import Updater, UpdateResult, make_updater

__all__ = ["MasterWeights", "UpdateResult", "Updater", "learning_rate", "make_updater"]
