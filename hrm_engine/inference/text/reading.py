"""A text model reads given text: rows for it, and how long it thinks at each token."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from hrm_engine.bundles.bundle import Bundle
from hrm_engine.config.text_files import TextFilesConfig
from hrm_engine.data.text.documents import read_documents, split_holdout
from hrm_engine.data.text.packing import Batch, PackedRows, pack
from hrm_engine.errors import ConfigError
from hrm_engine.kernels.attention import document_starts
from hrm_engine.kernels.losses import head_statistics
from hrm_engine.models.act import TextBatch, check_threshold, run_segments
from hrm_engine.models.core import Carry
from hrm_engine.reading import told_by
from hrm_engine.store.files import read_json
from hrm_engine.store.paths import ARGS_FILE, Workspace


@dataclass(frozen=True)
class ReadToken:
    """One token of a text that was read."""

    text: str
    """Its characters; a character of several tokens stands with the last of them."""
    depth: int
    """Segments that the model ran before it said what it expects here: those of the token before."""
    loss: float
    """Nats: how much the token surprised the model there."""
    loss_by_segment: list[float]
    """Nats after each segment where every token runs all of them."""


def held_out_documents(
    bundle: Bundle, file: Path | None, workspace: Workspace, how: TextFilesConfig | None = None
) -> tuple[list[str], str, list[str]]:
    """Documents to measure a model on, what they are, and what reading them changed, in sentences.

    They are those of a file, read as ``how`` says, else what the training of the model held out.

    Raises:
        ConfigError: no file was given, and the bundle does not say what it was trained on. DataError: no text there.
    """
    if file is not None:
        corpus = read_documents(workspace.resolve(file), settings=how or TextFilesConfig())
        return corpus.documents, str(file), corpus.messages
    saved = bundle.path / ARGS_FILE
    silent = f"{bundle.path} does not say what it was trained on: name a text with --dataset-file"
    with told_by(lambda why: ConfigError(f"{silent} ({why})")):
        settings = read_json(saved).get("parameters") or {} if saved.is_file() else {}
        data, eval_file = settings.get("data"), settings.get("evaluation", {}).get("eval_file")
        if data is None:
            raise ConfigError(silent)
        source = Path(eval_file or data["dataset_file"])
        as_then = TextFilesConfig(**{name: data[name] for name in TextFilesConfig.model_fields if name in data})
    corpus = read_documents(workspace.resolve(source), settings=as_then)
    if eval_file:
        return corpus.documents, str(source), corpus.messages
    return split_holdout(corpus.documents)[1], f"the held-out part of {source}", corpus.messages


def text_batches(
    bundle: Bundle, documents: list[str], *, batch_size: int = 8, max_rows: int | None = None
) -> list[TextBatch]:
    """Documents packed into rows of the model's context, on its device; the first ``max_rows`` rows.

    Raises:
        DataError: there is no text in the documents.
    """
    rows = PackedRows(pack(documents, bundle.tokenizer), bundle.config.max_seq_len)
    count = len(rows) if max_rows is None else min(max_rows, len(rows))
    device = bundle.model.lm_head.weight.device
    starts = range(0, count, batch_size)
    return [on_device(rows.batch(np.arange(start, min(start + batch_size, count))), device) for start in starts]


def on_device(batch: Batch, device: torch.device, depths: Tensor | None = None) -> TextBatch:
    """A packed batch for the model; the document mask is left out where every row is one document."""
    has_boundaries = bool((batch.documents != batch.documents[:, :1]).any())
    is_cuda = device.type == "cuda"

    def move(tensor: Tensor) -> Tensor:
        # from pageable memory the host would wait for the device
        return (tensor.pin_memory() if is_cuda else tensor).to(device, non_blocking=True)

    return TextBatch(
        move(batch.inputs),
        move(batch.labels),
        move(batch.positions),
        move(batch.documents) if has_boundaries else None,
        depths=None if depths is None else move(depths),
        starts=move(document_starts(batch.documents)) if has_boundaries and is_cuda else None,
    )


@torch.no_grad()
def read_tokens(bundle: Bundle, text: str, *, halt_threshold: float = 0.5) -> list[ReadToken]:
    """Read one text and report for each token how long the model thought before it, and how well it expected it.

    Args:
        halt_threshold: the model goes on while the probability that another segment is worth it is above this.

    Raises:
        ConfigError: a threshold out of range, a model without a halting head, a text longer than the context.
    """
    core, tokenizer, config = bundle.model, bundle.tokenizer, bundle.config
    check_threshold(core, halt_threshold)
    ids = tokenizer.encode(text).tolist()
    if len(ids) > config.max_seq_len:
        raise ConfigError(f"the text has {len(ids)} tokens and the model's context {config.max_seq_len}; shorten it")
    if not ids:
        return []
    device = core.lm_head.weight.device
    inputs = torch.tensor([[tokenizer.bos_id, *ids[:-1]]], device=device)
    labels = torch.tensor([ids], device=device)
    batch = TextBatch(inputs, labels, torch.arange(len(ids), device=device)[None], None)
    num_segments = config.halt_max_steps

    def losses(carry: Carry) -> Tensor:
        return head_statistics(carry.z_h.flatten(0, 1), core.lm_head.weight, labels.flatten())[0]

    by_segment = [losses(carry) for carry in run_segments(core, batch, num_segments=num_segments)]
    depths = torch.zeros_like(labels)
    for carry in run_segments(core, batch, num_segments=num_segments, halt_threshold=halt_threshold):
        depths += 1 if carry.stopped is None else ~carry.stopped
    pieces = tokenizer.stream_decoder()
    texts = [pieces.push(token) for token in ids]
    texts[-1] += pieces.finish()
    columns = (texts, depths[0].tolist(), losses(carry).tolist(), torch.stack(by_segment, 1).tolist())
    return [ReadToken(*read) for read in zip(*columns, strict=True)]
