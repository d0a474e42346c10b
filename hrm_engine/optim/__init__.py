"""Update rules, parameter groups, averages of weights and learning-rate schedules."""

from hrm_engine.optim.ema import WeightAverage
from hrm_engine.optim.registry import Rule, check_name, list_rules, make_updater
from hrm_engine.optim.schedules import learning_rate
from hrm_engine.optim.sparse_sign import sparse_sign_update
from hrm_engine.optim.updater import Updater, UpdateResult
from hrm_engine.optim.weights import MasterWeights, Weights

__all__ = [
    "MasterWeights",
    "Rule",
    "UpdateResult",
    "Updater",
    "WeightAverage",
    "Weights",
    "check_name",
    "learning_rate",
    "list_rules",
    "make_updater",
    "sparse_sign_update",
]
