"""``lab implant``: the tokenizer and the base model that trainings start from by default."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from hrm_engine.store.paths import Workspace


def implant(
    *,
    dataset_file: Annotated[
        Path | None,
        Parameter(help="Text to train the tokenizer on. Default: the corpus of 'lab data build-python-docs'."),
    ] = None,
    vocab_size: Annotated[int, Parameter(help="Tokens in the vocabulary.")] = 8192,
    hidden_size: Annotated[int, Parameter(help="Width of the base model; a brain of this width takes it over.")] = 512,
    seed: Annotated[int, Parameter(help="Seed of the base model's weights.")] = 0,
) -> int:
    """Train a byte-level BPE tokenizer and write the base model folder, the default of --model."""
    from hrm_engine.bundles import create_implant
    from lab.cli.reports import show_report

    workspace = Workspace.find()
    report = create_implant(
        workspace=workspace,
        dataset_file=None if dataset_file is None else workspace.resolve(dataset_file),
        vocab_size=vocab_size,
        hidden_size=hidden_size,
        seed=seed,
    )
    show_report(report, workspace)
    return 0
