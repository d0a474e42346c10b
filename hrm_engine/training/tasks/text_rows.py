"""The documents of a text training, and the rows of its steps: how deep each of their positions goes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from hrm_engine.config import TextTrainConfig
from hrm_engine.config.text import DepthConfig
from hrm_engine.data.random import stream
from hrm_engine.data.text.documents import Corpus, read_documents, split_holdout
from hrm_engine.data.text.packing import IGNORE, Batch
from hrm_engine.data.text.tokenizer import Tokenizer
from hrm_engine.inference.text.reading import on_device
from hrm_engine.models.act import TextBatch, TextLosses
from hrm_engine.models.moe import RoutingSums
from hrm_engine.optim.updater import Backward
from hrm_engine.starting.implant import embedded_corpus
from hrm_engine.store.paths import Workspace
from hrm_engine.training.task import Measured
from hrm_engine.training.tasks.routing import with_routing

PROMPT_TOKENS = 8


@dataclass(frozen=True)
class StepRows:
    """The rows of one optimizer step, on the host; the counts are of the whole step, whoever trains on its rows."""

    parts: list[Batch]
    """Micro-batches of this process."""
    depths: list[Tensor] | None
    """(B, S) segments that each position runs, of each micro-batch; None where all run all of them."""
    num_tokens: int
    """Label tokens of the whole step."""
    num_segments: int
    """Segments that the step runs."""
    token_segments: int
    """Pairs of a label token and a segment that it runs, of the whole step: the losses are divided by them."""
    grad_calls: int | None = None
    """Module calls of a segment with gradient, where their number is warmed up."""

    @property
    def normaliser(self) -> float:
        """What the sum of a segment's losses is divided by."""
        return max(1, self.token_segments) / self.num_segments

    def batches(self, device: torch.device) -> Iterator[TextBatch]:
        """The micro-batches, each brought to the device when it is its turn."""
        for number, part in enumerate(self.parts):
            yield on_device(part, device, None if self.depths is None else self.depths[number])


def step_rows(parts: list[Batch], *, depth: DepthConfig, num_segments: int, seed: int, position: int) -> StepRows:
    """The rows of a step, given in micro-batches, with the depths that are drawn for them.

    With ``sample_segments`` the step runs 1 to ``num_segments``, each as likely. In a share ``freeze_positions`` of
    the steps some positions stop earlier: for each row a share of them is drawn, for each of these a segment. All is
    drawn from the seed and ``position``, the rows consumed before, whatever the micro-batches are.
    """
    draw = stream(seed, "depths", position)
    num_segments = int(draw.integers(1, num_segments + 1)) if depth.sample_segments else num_segments
    # numpy's: this runs in a thread, where torch would make a second team of threads beside that of the step
    is_label = np.concatenate([part.labels.numpy() != IGNORE for part in parts])
    num_tokens = int(is_label.sum())
    if num_segments == 1 or draw.random() >= depth.freeze_positions:
        return StepRows(parts, None, num_tokens, num_segments, num_tokens * num_segments)
    stops = draw.random(is_label.shape) < draw.random((len(is_label), 1))
    drawn = np.where(stops, draw.integers(1, num_segments, is_label.shape), num_segments)
    depths = torch.from_numpy(drawn).split([len(part.inputs) for part in parts])
    return StepRows(parts, list(depths), num_tokens, num_segments, int(drawn[is_label].sum()))


@dataclass
class TextStep:
    """The next rows of a text training: ``losses`` runs them, ``balance`` balances the experts after an update."""

    rows: StepRows
    num_rows: int
    losses: Callable[[Backward], TextLosses]
    balance: Callable[[RoutingSums | None, Tensor], None]
    routing: RoutingSums | None = None

    def run(self, backward: Backward) -> Measured:
        """Forward and backward passes of all micro-batches."""
        losses = self.losses(backward)
        self.routing = losses.routing
        token_segments = self.rows.token_segments
        counts = {"num_tokens": self.rows.num_tokens, "token_segments": token_segments, "rows": self.num_rows}
        if self.rows.grad_calls is not None:
            counts["grad_calls"] = self.rows.grad_calls
        loss = losses.ce_by_segment.sum() / max(1, token_segments)
        numbers = torch.cat((losses.ce_by_segment, losses.halt[None]))
        return Measured(with_routing(numbers, losses.routing), loss, counts)

    def commit(self, stepped: Tensor, schedule_share: float) -> None:
        """Balance the experts."""
        self.balance(self.routing, stepped)


def split_documents(
    config: TextTrainConfig, workspace: Workspace
) -> tuple[Corpus, list[str], list[str], Corpus | None]:
    """The corpus, its documents to train on, those that are held out, and the corpus of these if it is another one."""
    data = config.data

    def read(file: Path) -> Corpus:
        return read_documents(workspace.resolve(file), settings=data)

    corpus = read(data.dataset_file)
    if config.evaluation.eval_file is None:
        train, held_out = split_holdout(corpus.documents)
        return corpus, train, held_out, None
    eval_corpus = read(config.evaluation.eval_file)
    return corpus, corpus.documents, eval_corpus.documents, eval_corpus


def sample_prompt(document: str, tokenizer: Tokenizer, seq_len: int) -> str | None:
    """The beginning of a held-out document, to be continued; None where rows are too short for one."""
    room = seq_len - 2  # the begin token, and one to be written
    prompt = tokenizer.decode(tokenizer.encode(document[:2000])[: min(PROMPT_TOKENS, room)])
    # a character that was cut through is another one now, with other tokens
    return prompt if 0 < len(tokenizer.encode(prompt)) <= room else None


def build_embedded_corpus(config: TextTrainConfig, workspace: Workspace) -> list[str]:
    """Build the corpus that the presets name, where it is asked for and not there yet."""
    files = {workspace.resolve(file) for file in (config.data.dataset_file, config.evaluation.eval_file) if file}
    folder = workspace.resolve(workspace.embedded_corpus)
    if any(file.is_relative_to(folder) and not file.exists() for file in files):
        embedded_corpus(workspace)
        return [f"no embedded corpus yet: built it at {folder} (lab data build-python-docs)"]
    return []
