"""Causal text with ACT: the task behind ``lab train actv1``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from functools import partial, reduce
from operator import add
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hrm_engine.bundles.bundle import Bundle
from hrm_engine.bundles.core_config import read_core_config
from hrm_engine.config import CoreConfig, TextTrainConfig, resolve_core
from hrm_engine.config.kinds import TEXT
from hrm_engine.data.ahead import Ahead
from hrm_engine.data.text.order import RowOrder
from hrm_engine.data.text.packing import Batch, PackedRows, dataset_fingerprint, pack
from hrm_engine.data.text.tokenizer import Tokenizer
from hrm_engine.data.text.unigram import unigram_loss
from hrm_engine.errors import BundleError
from hrm_engine.inference import evaluate, generate
from hrm_engine.inference.text.evaluate import Evaluation, evaluate_adaptive
from hrm_engine.inference.text.reading import on_device
from hrm_engine.models.act import HALT_LOSS_WEIGHT, TextBatch, TextLosses, accumulate_gradients
from hrm_engine.models.core import RecurrentCore
from hrm_engine.models.moe import Dispatch
from hrm_engine.optim.schedules import FIRST_GRAD_CALLS
from hrm_engine.optim.updater import Backward
from hrm_engine.starting.implant import StartingPoint, starting_point
from hrm_engine.starting.student import student_config, student_core, student_notes
from hrm_engine.store.paths import Workspace
from hrm_engine.training.costs import Costs, DryStep
from hrm_engine.training.state import TrainState
from hrm_engine.training.task import DataFacts, Evaluated
from hrm_engine.training.tasks.attached import look_up, with_attached
from hrm_engine.training.tasks.core_costs import core_costs
from hrm_engine.training.tasks.core_task import CoreTask
from hrm_engine.training.tasks.routing import Routers
from hrm_engine.training.tasks.text_rows import (
    StepRows,
    TextStep,
    build_embedded_corpus,
    sample_prompt,
    split_documents,
    step_rows,
)

SAMPLE_TOKENS = 60
_TRIAL_BATCHES = 2


class TextTask(CoreTask):
    """Rows, losses, evaluation and samples of one text training."""

    kind = TEXT.name
    config: TextTrainConfig

    def __init__(
        self,
        config: TextTrainConfig,
        tokenizer: Tokenizer,
        workspace: Workspace,
        start: StartingPoint | None = None,
        *,
        core: CoreConfig | None = None,
    ) -> None:
        self.config = config
        self._saved_core = core
        self.tokenizer = self.companions = tokenizer
        self._start = start
        self._workspace = workspace
        corpus, train, held_out, eval_corpus = split_documents(config, workspace)
        seq_len = config.data.max_seq_len
        self.rows = PackedRows(pack(train, tokenizer), seq_len)
        self.held_out_rows = PackedRows(pack(held_out, tokenizer), seq_len)
        self.prompt = sample_prompt(held_out[0], tokenizer, seq_len)
        self.order = RowOrder(
            len(self.rows),
            seed=config.run.seed,
            linear=config.data.linear_dataset,
            start_offset=config.data.dataset_start_offset,
        )
        evaluated = f"evaluations use {config.evaluation.eval_file or '5 % of the documents, which are held out'}"
        texts = " ".join(each.fingerprint for each in (corpus, eval_corpus) if each is not None)
        self.facts = DataFacts(
            fingerprint=dataset_fingerprint(texts, tokenizer.fingerprint, seq_len),
            source=" or ".join(str(file) for file in (config.data.dataset_file, config.evaluation.eval_file) if file),
            counts={"num_rows": len(self.rows), "num_documents": len(train), "num_held_out_documents": len(held_out)},
            history={
                "dataset": str(config.data.dataset_file),
                "documents": len(train),
                "replaced_characters": corpus.num_replaced,
                "dropped_lines": corpus.num_dropped_lines,
                "skipped_records": corpus.num_skipped_records,
            },
            messages=[
                *corpus.messages,
                *([] if eval_corpus is None else eval_corpus.messages),
                *([evaluated] if config.evaluation.eval_batches else []),
            ],
        )
        rows: Ahead[tuple[int, int], StepRows] = Ahead(lambda place: self.rows_of_step(*place), name="hrm-lab-rows")
        self._ahead = rows
        self._num_eval_rows, _ = self.evaluation_rows(config)
        self.unigram_loss: float | None = None
        if self._num_eval_rows:
            labels = torch.cat([batch.labels.flatten() for batch in self._held_out_batches(config.run.batch_size)])
            self.unigram_loss = unigram_loss(self.rows.stream.label_counts(), labels)
        self.routers = Routers(config.moe, self._network(), seed=config.run.seed, total_steps=config.run.steps)

    def _network(self) -> CoreConfig | None:
        """Decide the settings of what is trained, kept as ``core``; returns those of a network whose routers learn."""
        if self._saved_core is not None:
            self.core = self._saved_core
            return self.core
        # taken-over embeddings bring their own scale
        taken = None if self._start is None else self._start.embeddings
        scale = None if taken is None else 1.0 / float(taken.std())
        self.core = self.core_of(self.config, self.tokenizer, self._workspace, scale)
        return self.core

    def bundle_facts(self) -> dict[str, Any]:
        """The goal that the run was given, and the experts that are attached."""
        goal, facts = self.config.run.default_goal, super().bundle_facts()
        return facts if goal is None else {**facts, "default_goal": goal}

    @classmethod
    def resolve(cls, config: TextTrainConfig, workspace: Workspace) -> TextTrainConfig:
        """The configuration of a new run with every default written out, those that follow what it starts from too."""
        return student_config(config, workspace).resolved()

    @classmethod
    def first(cls, config: TextTrainConfig, workspace: Workspace) -> tuple[TextTask, list[str]]:
        """The task of a new run: tokenizer and, where they fit, embeddings of the base model."""
        messages = build_embedded_corpus(config, workspace)
        start = starting_point(config.start.model, hidden_size=config.network.hidden_size, workspace=workspace)
        task = cls(config, start.tokenizer, workspace, start)
        task.attached, about_experts = look_up(config.start.student_init, config.moe, workspace)
        messages += start.messages + about_experts
        messages += student_notes(task.core, config.start.student_init, workspace) or [start.about_weights]
        first_calls = task.core.model_copy(update={"grad_calls": FIRST_GRAD_CALLS})
        if not task.core.trains_embeddings:
            messages.append(
                f"with --grad-calls {task.core.grad_calls} no gradient reaches the token embeddings: they stay as they "
                "start"
            )
        elif config.network.grad_calls_warmup and not first_calls.trains_embeddings:
            messages.append("the token embeddings stay as they start until enough calls carry gradient (its warm-up)")
        return task, messages

    @classmethod
    def resumed(cls, config: TextTrainConfig, workspace: Workspace, checkpoint: Path) -> tuple[TextTask, list[str]]:
        """The task of a run that goes on, with the tokenizer and the network it began with."""
        messages = build_embedded_corpus(config, workspace)
        core = read_core_config(checkpoint, kind=cls.kind)
        return cls(config, Tokenizer.load(checkpoint), workspace, core=core), messages

    @classmethod
    def network_for(cls, config: Any, workspace: Workspace) -> CoreConfig:
        """The network of a new run; of the base model its tokenizer is read, of the data nothing."""
        model = workspace.resolve(config.start.model)
        if (model / "tokenizer.json").is_file():
            tokenizer = Tokenizer.load(model)
        else:
            hidden_size = config.network.hidden_size
            tokenizer = starting_point(config.start.model, hidden_size=hidden_size, workspace=workspace).tokenizer
        return cls.core_of(config, tokenizer, workspace)

    @classmethod
    def network_like(cls, config: Any, like: CoreConfig) -> CoreConfig:
        """The network that a configuration asks for with the tokens of another one."""
        length = config.data.max_seq_len
        return resolve_core(config.network, vocab_size=like.vocab_size, max_seq_len=length, moe=config.moe)

    @classmethod
    def core_of(cls, config: Any, tokenizer: Tokenizer, workspace: Workspace, scale: float | None = None) -> CoreConfig:
        """The network on the tokens of a tokenizer; ``scale`` is that of taken-over embeddings."""
        core = resolve_core(
            config.network,
            vocab_size=tokenizer.vocab_size,
            max_seq_len=config.data.max_seq_len,
            embedding_scale=scale,
            moe=config.moe,
        )
        core = student_core(core, config.start.student_init, workspace)
        return with_attached(core, config.start.student_init, workspace)

    @classmethod
    def costs(cls, config: Any, network: CoreConfig) -> Costs:
        """Of all segments of a step, whose number may be drawn."""
        most = network.halt_max_steps
        return core_costs(
            config,
            network,
            num_segments=most,
            tokens_per_step=config.run.rows_per_step * network.max_seq_len,
            mean_share=(1 + most) / 2 / most if config.depth.sample_segments else 1.0,
        )

    @classmethod
    def built_first(cls, workspace: Workspace) -> list[Path]:
        """Base model and embedded corpus."""
        return [workspace.base_model, workspace.embedded_corpus]

    @classmethod
    def for_trial(cls, config: Any) -> Any:
        """The same with evaluations of a few batches."""
        batches = min(config.evaluation.eval_batches, _TRIAL_BATCHES)
        return config.model_copy(update={"evaluation": config.evaluation.model_copy(update={"eval_batches": batches})})

    @classmethod
    def dry_step(cls, config: Any, network: Any, model: Any, device: torch.device, *, checkpointing: bool) -> DryStep:
        """The first two segments of one micro-batch: the second has the first one's state beside it."""
        num_segments, shape = min(2, config.network.halt_max_steps), (config.run.batch_size, config.data.max_seq_len)
        inputs, labels, positions, documents, depths = torch.zeros((5, *shape), dtype=torch.int64, device=device)
        freezes = num_segments > 1 and config.depth.freeze_positions > 0
        batch = TextBatch(inputs, labels, positions, documents, depths if freezes else None)
        routers = Routers(config.moe, network, seed=0, total_steps=1)

        def run(backward: Backward) -> None:
            accumulate_gradients(
                model,
                batch,
                num_segments=num_segments,
                normaliser=1.0,
                backward=backward,
                checkpointing=checkpointing,
                dispatch=routers.dispatch(1, 0, device),
            )

        return DryStep(run)

    def evaluation_rows(self, config: Any) -> tuple[int, int]:
        """The first held-out rows; at the end nothing more."""
        return min(len(self.held_out_rows), config.evaluation.eval_batches * config.run.batch_size), 0

    def other_data(self, saved: Any) -> list[str]:
        """Nothing where rows are only cut otherwise from what may be the same files; the network tells the length."""
        files = [(each.data.dataset_file, each.evaluation.eval_file) for each in (self.config, saved)]
        if files[0] == files[1] and self.config.data.max_seq_len != saved.data.max_seq_len:
            return []
        return super().other_data(saved)

    def take_over(self, model: RecurrentCore) -> None:
        """Embeddings and head of the base model, where they fit.

        The head is brought to standard deviation ``1/sqrt(D)``, as a fresh one has: its network fed it states of
        another size, and directions are what it knows.
        """
        start = self._start
        if start is None or start.embeddings is None or start.head is None:
            return
        with torch.no_grad():
            model.embed_tokens.weight.copy_(start.embeddings)
            model.lm_head.weight.copy_(start.head / (start.head.std() * self.core.hidden_size**0.5))

    def close(self) -> None:
        """End the thread that prepares rows."""
        self._ahead.close()

    def work(self, state: TrainState, micro_batch: int, *, checkpointing: bool, num_pending: int = 0) -> TextStep:
        """The next rows."""
        count = self.config.run.rows_per_step
        position = state.rows + num_pending * count
        rows = self._ahead.take((position, micro_batch), then=(position + count, micro_batch))
        rows = replace(rows, grad_calls=self.warmed_grad_calls(state))
        losses = partial(self.losses, self.model, rows, step=state.step + 1, checkpointing=checkpointing)
        return TextStep(rows, count, losses, partial(self.routers.commit, self.model))

    def describe(
        self, numbers: list[float], counts: Mapping[str, int], step_time: float, state: TrainState
    ) -> dict[str, Any]:
        """Losses per token, counters and throughput of a step."""
        *by_segment, halt = numbers[: len(numbers) - self.routers.num_numbers]
        about_routers, added = self.routers.losses(numbers)
        num_tokens, token_segments, rows = counts["num_tokens"], counts["token_segments"], state.rows
        # as accumulate_gradients weighs them: what is told as the loss is what is minimised
        ce = sum(by_segment) / max(1, token_segments)
        halt_weight = HALT_LOSS_WEIGHT * len(by_segment) / max(1, token_segments)
        return {
            "loss": ce + halt_weight * halt + added,
            "ce": ce,
            "halt_loss": halt / max(1, token_segments - num_tokens),
            **about_routers,
            "rows": rows,
            "tokens": state.tokens,
            "token_segments": state.token_segments,
            "effective_batch_size": self.config.run.rows_per_step,
            **{name: counts[name] for name in ("grad_calls",) if name in counts},
            "dataset_position": (self.order.start_offset + rows) % len(self.rows),
            "epoch": self.order.epoch(rows),
            "act_steps_mean": token_segments / max(1, num_tokens),
            "tokens_per_s": num_tokens / step_time,
            "token_segments_per_s": token_segments / step_time,
        }

    def rows_of_step(self, position: int, micro_batch: int) -> StepRows:
        """The rows of the step after ``position`` consumed ones, in micro-batches."""
        count = self.config.run.rows_per_step
        indices = self.order.indices(position, count)
        parts = [self.rows.batch(indices[start : start + micro_batch]) for start in range(0, count, micro_batch)]
        return step_rows(
            parts, depth=self.config.depth, num_segments=self.num_segments, seed=self.config.run.seed, position=position
        )

    def losses(
        self, model: RecurrentCore, rows: StepRows, backward: Backward, *, step: int, checkpointing: bool
    ) -> TextLosses:
        """Gradients of one optimizer step's rows, and the sums of their losses."""
        parts = []
        for number, batch in enumerate(rows.batches(self.device)):
            dispatch = self.routers.dispatch(step, number, self.device)
            parts.append(self.gradients(model, batch, rows, backward, checkpointing=checkpointing, dispatch=dispatch))
        return reduce(add, parts)

    def gradients(
        self,
        model: Any,
        batch: TextBatch,
        rows: StepRows,
        backward: Backward,
        *,
        checkpointing: bool,
        dispatch: Dispatch | None,
    ) -> TextLosses:
        """Those of one micro-batch."""
        return accumulate_gradients(
            model,
            batch,
            num_segments=rows.num_segments,
            normaliser=rows.normaliser,
            backward=backward,
            checkpointing=checkpointing,
            dispatch=dispatch,
            grad_calls=rows.grad_calls,
        )

    @property
    def num_segments(self) -> int:
        """ACT segments of a training step."""
        return self.config.network.halt_max_steps

    def evaluate(self, micro_batch: int, *, full: bool = False) -> Evaluated | None:
        """Loss and accuracy at every depth on the first held-out rows; None where evaluation is off."""
        if not self._num_eval_rows or full:
            return None
        size, segments = micro_batch, self.num_segments
        result = evaluate(self.model, self._eval_batches(size), num_segments=segments)
        fields = self.evaluation_fields(result)
        summary = f"validation loss {result.loss:.4f} (unigram {self.unigram_loss:.4f})"
        if self.model.halt_head is not None:
            threshold = self.config.depth.halt_threshold
            batches = self._eval_batches(size)
            adaptive = evaluate_adaptive(self.model, batches, num_segments=segments, halt_threshold=threshold)
            fields |= {
                "adaptive_loss": adaptive.loss,
                "adaptive_token_accuracy": adaptive.token_accuracy,
                "act_steps_mean": adaptive.mean_depth,
                "halt_threshold": threshold,
            }
            summary += f", adaptive {adaptive.loss:.4f} ({adaptive.mean_depth:.2f} segments)"
        return Evaluated(fields, [result.loss], summary)

    def evaluation_fields(self, result: Evaluation) -> dict[str, Any]:
        """What an ``eval`` row says of held-out text at every depth."""
        means = {"loss": result.loss, "perplexity": result.perplexity, "token_accuracy": result.token_accuracy}
        return {**means, **asdict(result), "unigram_loss": self.unigram_loss}

    def sample(self) -> dict[str, str] | None:
        """Greedy continuation of the beginning of a held-out document; None where there is none to be had."""
        if self.prompt is None or not self.config.evaluation.samples:
            return None
        bundle = Bundle(path=Path(), config=self.core, model=self.model, metadata={}, tokenizer=self.tokenizer)
        try:
            sample = generate(bundle, self.prompt, max_new_tokens=SAMPLE_TOKENS, temperature=0.0)
        except BundleError:  # NaN, of which the losses tell, with all the patience that is asked for
            return None
        return {"prompt": sample.prompt, "text": sample.text}

    def _eval_batches(self, size: int) -> Iterator[TextBatch]:
        return (on_device(batch, self.device) for batch in self._held_out_batches(size))

    def _held_out_batches(self, size: int) -> Iterator[Batch]:
        count = self._num_eval_rows
        return (self.held_out_rows.batch(np.arange(start, min(start + size, count))) for start in range(0, count, size))
