"""The documents of a text training: which are trained on and which are held out, and what there is to say of them."""

from __future__ import annotations

from pathlib import Path

from hrm_engine.config import TextTrainConfig
from hrm_engine.data.text.documents import Corpus, read_documents, split_holdout
from hrm_engine.data.text.tokenizer import Tokenizer
from hrm_engine.starting.implant import embedded_corpus
from hrm_engine.store.paths import Workspace

PROMPT_TOKENS = 8


def split_documents(
    config: TextTrainConfig, workspace: Workspace
) -> tuple[Corpus, list[str], list[str], Corpus | None]:
    """The corpus, its documents to train on, those that are held out, and the corpus of these if it is another one."""
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


def about_corpus(corpus: Corpus) -> list[str]:
    """What reading left out or changed, in sentences."""
    messages = list(corpus.notes)
    if corpus.num_replaced_bytes:
        messages.append(f"{corpus.num_replaced_bytes} bytes that are not UTF-8 were replaced")
    if corpus.num_dropped_lines:
        messages.append(f"{corpus.num_dropped_lines} lines with non-ASCII characters were dropped (--ascii-only)")
    if corpus.num_skipped_records:
        messages.append(f"{corpus.num_skipped_records} bad records were skipped (--skip-bad-records)")
    return messages


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
