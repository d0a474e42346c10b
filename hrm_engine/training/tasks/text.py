"""Causal text with ACT: the task behind ``lab train actv1``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from hrm_engine.bundles import Bundle, StartingPoint, find_run
from hrm_engine.bundles.listing import folder_problems, parent_record
from hrm_engine.bundles.weights import check_shapes, load_file, load_tensors
from hrm_engine.config import CoreConfig, TextTrainConfig, resolve_core
from hrm_engine.data.text.documents import Corpus, read_documents, split_holdout
from hrm_engine.data.text.order import RowOrder
from hrm_engine.data.text.packing import IGNORE, Batch, PackedRows, dataset_fingerprint, pack
from hrm_engine.data.text.tokenizer import Tokenizer
from hrm_engine.data.text.unigram import unigram_loss
from hrm_engine.errors import BundleError, ConfigError
from hrm_engine.inference import Evaluation, Generation, evaluate, generate
from hrm_engine.models.act import TextBatch, TextLosses, accumulate_gradients
from hrm_engine.models.core import RecurrentCore
from hrm_engine.optim.updater import Backward
from hrm_engine.store.paths import Workspace

PROMPT_TOKENS = 8
SAMPLE_TOKENS = 60


@dataclass(frozen=True)
class DatasetFacts:
    """What is worth telling about the data, and what identifies it."""

    fingerprint: str
    num_documents: int
    num_held_out: int
    num_rows: int
    counts: dict[str, int]
    """What was replaced, dropped and skipped on reading."""
    messages: list[str]


@dataclass(frozen=True)
class StepRows:
    """The rows of one optimizer step, and their label tokens: counted before they go to the device."""

    batches: list[TextBatch]
    num_tokens: int


class TextTask:
    """Rows, losses, evaluation and samples of one text training. Knows nothing of steps, files or optimizers."""

    def __init__(self, config: TextTrainConfig, tokenizer: Tokenizer, workspace: Workspace) -> None:
        self.config = config
        self.tokenizer = tokenizer
        corpus, train, held_out, eval_corpus = _documents(config, workspace)
        seq_len = config.data.max_seq_len
        self.rows = PackedRows(pack(train, tokenizer), seq_len)
        self.held_out_rows = PackedRows(pack(held_out, tokenizer), seq_len)
        self.prompt = _prompt(held_out[0], tokenizer, seq_len)
        self.order = RowOrder(
            len(self.rows),
            seed=config.run.seed,
            linear=config.data.linear_dataset,
            start_offset=config.data.dataset_start_offset,
        )
        self.facts = DatasetFacts(
            fingerprint=_fingerprint(corpus, eval_corpus, tokenizer, seq_len),
            num_documents=len(train),
            num_held_out=len(held_out),
            num_rows=len(self.rows),
            counts={
                "replaced_bytes": corpus.num_replaced_bytes,
                "dropped_lines": corpus.num_dropped_lines,
                "skipped_records": corpus.num_skipped_records,
            },
            messages=_messages(corpus) + ([] if eval_corpus is None else _messages(eval_corpus)),
        )
        self._num_eval_rows = min(len(self.held_out_rows), config.evaluation.eval_batches * config.run.batch_size)
        self.unigram_loss = self._unigram_loss()

    def core_config(self, start: StartingPoint) -> CoreConfig:
        """Settings of the model; taken-over embeddings bring their own scale."""
        scale = None if start.embeddings is None else 1.0 / float(start.embeddings.std())
        return resolve_core(
            self.config.network,
            vocab_size=self.tokenizer.vocab_size,
            max_seq_len=self.config.data.max_seq_len,
            embedding_scale=scale,
        )

    def new_model(
        self, core: CoreConfig, start: StartingPoint, workspace: Workspace
    ) -> tuple[RecurrentCore, dict[str, str] | None]:
        """A model with its first weights, fp32, on the CPU; and the bundle or file they came from, with its hash.

        A taken-over head is brought to standard deviation ``1/sqrt(D)``, as a fresh one has: its network fed it states
        of another size, and directions are what it knows.
        """
        model = RecurrentCore(core)
        model.initialise(self.config.run.seed)
        with torch.no_grad():
            if start.embeddings is not None and start.head is not None:
                model.embed_tokens.weight.copy_(start.embeddings)
                model.lm_head.weight.copy_(start.head / (start.head.std() * core.hidden_size**0.5))
        if self.config.start.student_init is None:
            return model, None
        return model, _load_student(model, self.config.start.student_init, workspace)

    def rows_of_step(self, position: int, num_rows: int, micro_batch: int, device: torch.device) -> StepRows:
        """The rows after ``position`` consumed ones, in micro-batches on the device."""
        indices = self.order.indices(position, num_rows)
        parts = [self.rows.batch(indices[start : start + micro_batch]) for start in range(0, num_rows, micro_batch)]
        num_tokens = sum(int((part.labels != IGNORE).sum()) for part in parts)
        return StepRows([on_device(part, device) for part in parts], num_tokens)

    def losses(self, model: RecurrentCore, rows: StepRows, backward: Backward, *, checkpointing: bool) -> TextLosses:
        """Gradients of one optimizer step's rows, and the sums of their losses."""
        total: TextLosses | None = None
        for batch in rows.batches:
            part = accumulate_gradients(
                model,
                batch,
                num_segments=self.num_segments,
                normaliser=max(1, rows.num_tokens),
                backward=backward,
                checkpointing=checkpointing,
            )
            total = part if total is None else total + part
        if total is None:
            raise ConfigError("a step needs at least one row")
        return total

    @property
    def num_segments(self) -> int:
        """ACT segments of a training step."""
        return self.config.network.halt_max_steps

    def evaluate(self, model: RecurrentCore, micro_batch: int, device: torch.device) -> Evaluation | None:
        """Loss and accuracy at every depth on the first held-out rows; None where evaluation is off."""
        if not self._num_eval_rows:
            return None
        batches = (on_device(batch, device) for batch in self._held_out_batches(micro_batch))
        return evaluate(model, batches, num_segments=self.num_segments)

    def sample(self, model: RecurrentCore, core: CoreConfig) -> Generation | None:
        """Greedy continuation of the beginning of a held-out document; None where rows are too short for one."""
        if self.prompt is None:
            return None
        bundle = Bundle(Path(), core, model, self.tokenizer, {})
        return generate(bundle, self.prompt, max_new_tokens=SAMPLE_TOKENS, temperature=0.0)

    def _held_out_batches(self, size: int) -> Iterator[Batch]:
        count = self._num_eval_rows
        return (self.held_out_rows.batch(np.arange(start, min(start + size, count))) for start in range(0, count, size))

    def _unigram_loss(self) -> float | None:
        if not self._num_eval_rows:
            return None
        labels = torch.cat([batch.labels.flatten() for batch in self._held_out_batches(self.config.run.batch_size)])
        return unigram_loss(self.rows.stream.label_counts(), labels)


def on_device(batch: Batch, device: torch.device) -> TextBatch:
    """A packed batch for the model; the document mask is left out where every row is one document."""
    has_boundaries = bool((batch.documents != batch.documents[:, :1]).any())

    def move(tensor: Tensor) -> Tensor:
        return tensor.to(device, non_blocking=True)

    documents = move(batch.documents) if has_boundaries else None
    return TextBatch(move(batch.inputs), move(batch.labels), move(batch.positions), documents)


def _documents(config: TextTrainConfig, workspace: Workspace) -> tuple[Corpus, list[str], list[str], Corpus | None]:
    data = config.data

    def read(file: Path) -> Corpus:
        return read_documents(
            workspace.resolve(file),
            ascii_only=data.ascii_only,
            document_separator=data.document_separator,
            text_field=data.text_field,
            skip_bad=data.skip_bad_records,
        )

    corpus = read(data.dataset_file)
    if config.evaluation.eval_file is None:
        train, held_out = split_holdout(corpus.documents)
        return corpus, train, held_out, None
    eval_corpus = read(config.evaluation.eval_file)
    return corpus, corpus.documents, eval_corpus.documents, eval_corpus


def _fingerprint(corpus: Corpus, eval_corpus: Corpus | None, tokenizer: Tokenizer, seq_len: int) -> str:
    texts = corpus.fingerprint if eval_corpus is None else f"{corpus.fingerprint} {eval_corpus.fingerprint}"
    return dataset_fingerprint(texts, tokenizer.fingerprint, seq_len)


def _messages(corpus: Corpus) -> list[str]:
    messages = list(corpus.notes)
    if corpus.num_replaced_bytes:
        messages.append(f"{corpus.num_replaced_bytes} bytes that are not UTF-8 were replaced")
    if corpus.num_dropped_lines:
        messages.append(f"{corpus.num_dropped_lines} lines with non-ASCII characters were dropped (--ascii-only)")
    if corpus.num_skipped_records:
        messages.append(f"{corpus.num_skipped_records} bad records were skipped (--skip-bad-records)")
    return messages


def _prompt(document: str, tokenizer: Tokenizer, seq_len: int) -> str | None:
    room = seq_len - 2  # the begin token, and one to be written
    prompt = tokenizer.decode(tokenizer.encode(document[:2000])[: min(PROMPT_TOKENS, room)])
    # a character that was cut through is another one now, with other tokens
    return prompt if 0 < len(tokenizer.encode(prompt)) <= room else None


def _load_student(model: RecurrentCore, source: Path, workspace: Workspace) -> dict[str, str]:
    path = workspace.resolve(source)
    if path.is_file():
        tensors = load_file(path)
    else:
        path = find_run(path, workspace)
        if damage := folder_problems(path):
            raise BundleError(f"--student-init {path} cannot be loaded: {'; '.join(damage)}")
        tensors = load_tensors(path, "model")
    wanted = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    problems = check_shapes({name: tuple(t.shape) for name, t in tensors.items()}, wanted, where=path)
    if problems:
        raise BundleError("--student-init does not fit this model: " + "; ".join(problems))
    model.load_state_dict(tensors)
    return parent_record(path)
