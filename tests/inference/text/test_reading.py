"""Reading given text: rows for it, the depth and the loss of each of its tokens, and what a training held out."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from hrm_engine.bundles.bundle import Bundle
from hrm_engine.bundles.load import load_bundle
from hrm_engine.data.text.documents import split_holdout
from hrm_engine.errors import ConfigError
from hrm_engine.inference.text.evaluate import evaluate, evaluate_adaptive
from hrm_engine.inference.text.reading import held_out_documents, read_tokens, text_batches
from tests.tiny_runs import TEXT, Lab, make_source, text


@pytest.fixture(scope="module")
def read_lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    root = tmp_path_factory.mktemp("reading")
    for folder in ("artifacts", "training_data"):
        (root / "workspace" / folder).mkdir(parents=True)
    lab = Lab(root / "workspace", make_source(root / "source"))
    lab.train("deep", halt_max_steps=3, steps=2, amp=False, max_seq_len=32)
    lab.train("flat", halt_max_steps=1, steps=1, amp=False)
    return lab


@pytest.fixture(scope="module")
def bundle(read_lab: Lab) -> Bundle:
    loaded = load_bundle("deep", device="cpu", workspace=read_lab.workspace)
    with torch.no_grad():
        assert loaded.model.halt_head is not None
        loaded.model.halt_head.weight.normal_(0, 0.2, generator=torch.Generator().manual_seed(0))
    return loaded


def test_tokens_of_a_text_are_what_evaluation_sums(bundle: Bundle) -> None:
    sentence = "the cat runs under a house"
    tokens = read_tokens(bundle, sentence, halt_threshold=0.5)
    assert "".join(token.text for token in tokens) == sentence
    assert {token.depth for token in tokens} > {1}
    (batch,) = text_batches(bundle, [sentence])
    # a row of training also predicts the end of the document
    count = int((batch.labels >= 0).sum())
    assert count == len(tokens) + 1
    ends = batch.labels.clone()
    ends[:, len(tokens)] = -100
    whole = type(batch)(batch.inputs, ends, batch.positions, batch.documents)
    found = evaluate_adaptive(bundle.model, [whole], num_segments=3, halt_threshold=0.5)
    assert found.loss == pytest.approx(sum(token.loss for token in tokens) / len(tokens), abs=1e-5)
    assert found.mean_depth == pytest.approx(sum(token.depth for token in tokens) / len(tokens))
    fixed = evaluate(bundle.model, [whole], num_segments=3)
    for depth, loss in enumerate(fixed.loss_by_segment):
        assert loss == pytest.approx(sum(t.loss_by_segment[depth] for t in tokens) / len(tokens), abs=1e-5)


def test_what_cannot_be_read(bundle: Bundle, read_lab: Lab) -> None:
    assert read_tokens(bundle, "") == []
    with pytest.raises(ConfigError, match="context 32"):
        read_tokens(bundle, "cat " * 40)
    with pytest.raises(ConfigError, match="probability from 0"):
        read_tokens(bundle, "cat", halt_threshold=2)
    with pytest.raises(ConfigError, match="no halting head"):
        read_tokens(load_bundle("flat", device="cpu", workspace=read_lab.workspace), "cat")


def test_what_a_training_held_out(bundle: Bundle, read_lab: Lab) -> None:
    documents, source, messages = held_out_documents(bundle, None, read_lab.workspace)
    assert source == f"the held-out part of {TEXT}"
    assert messages == []
    assert documents == split_holdout(text().strip().split("\n\n"))[1]
    (read_lab.workspace.root / "other.txt").write_text("a dog", encoding="utf8")
    assert held_out_documents(bundle, Path("other.txt"), read_lab.workspace) == (["a dog"], "other.txt", [])
    (bundle.path / "training_args.json").unlink()
    with pytest.raises(ConfigError, match="--dataset-file"):
        held_out_documents(bundle, None, read_lab.workspace)
