"""A task of text that runs out of memory, and a trainer that has it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import torch

from hrm_engine.config import kinds
from hrm_engine.training import Trainer
from hrm_engine.training.task import Evaluated
from hrm_engine.training.tasks.text import TextTask
from tests.tiny_runs import Lab

IMPOSSIBLE_BYTES = 1 << 55


class HungryTask(TextTask):
    """Needs memory that no machine has as soon as a micro-batch has more rows than ``most_rows``."""

    most_rows = 1
    attempts: Callable[[], None] = staticmethod(lambda: None)
    """Called at the beginning of each evaluation."""

    def losses(self, model: Any, rows: Any, backward: Any, **how: Any) -> Any:
        for part in rows.parts:
            # the gradients of the first half are there already when memory runs out
            if len(part.inputs) > self.most_rows:
                first = replace(rows, parts=rows.parts[:1])
                super().losses(model, first, backward, **how)
                torch.empty(IMPOSSIBLE_BYTES, dtype=torch.uint8)
        return super().losses(model, rows, backward, **how)

    def evaluate(self, micro_batch: int, *, full: bool = False) -> Evaluated | None:
        self.attempts()
        if micro_batch > self.most_rows:
            torch.empty(IMPOSSIBLE_BYTES, dtype=torch.uint8)
        return super().evaluate(micro_batch, full=full)


@contextmanager
def hungry(lab: Lab, name: str, most_rows: int, **settings: Any) -> Iterator[Trainer]:
    """A trainer whose task runs out of memory above ``most_rows``: the row of its kind names that task."""
    row = replace(kinds.TEXT, task=f"{__name__}:{HungryTask.__name__}")
    config = lab.config(brain_name=name, amp=False, **settings)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(kinds._TABLE, row.name, row)
        with Trainer(config, workspace=lab.workspace) as trainer:
            assert isinstance(trainer.task, HungryTask)
            trainer.task.most_rows = most_rows
            yield trainer
