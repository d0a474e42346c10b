"""Packed rows: every transition inside a document is a label once, nothing crosses documents."""

from __future__ import annotations

import random
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as Backend
from tokenizers import models, pre_tokenizers

from hrm_engine.data.text.packing import IGNORE, PackedRows, TokenStream, dataset_fingerprint, pack
from hrm_engine.data.text.tokenizer import Tokenizer, train_tokenizer
from hrm_engine.errors import ConfigError, DataError

TOKENIZER = train_tokenizer(["the cat sat on the mat"], vocab_size=270)
# Document d holds the tokens d*100, d*100+1, ...: a token tells where it came from.
LENGTHS = st.lists(st.integers(1, 20), min_size=1, max_size=12)


def stream_of(lengths: list[int]) -> TokenStream:
    tokens = np.concatenate([np.arange(length) + 100 * (number + 1) for number, length in enumerate(lengths)])
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return TokenStream(tokens.astype(np.uint16), offsets, pad_id=7, vocab_size=100 * (len(lengths) + 2))


@given(LENGTHS, st.integers(1, 25), st.randoms())
@settings(deadline=None)
def test_every_transition_is_a_label_once_and_none_crosses(
    lengths: list[int], seq_len: int, rng: random.Random
) -> None:
    rows = PackedRows(stream_of(lengths), seq_len)
    order = list(range(len(rows)))
    rng.shuffle(order)
    batch = rows.batch(np.array(order))
    assert batch.inputs.shape == (len(rows), seq_len)
    asked = batch.labels != IGNORE
    found = Counter(zip(batch.inputs[asked].tolist(), batch.labels[asked].tolist(), strict=True))
    expected = {(100 * d + t, 100 * d + t + 1): 1 for d, n in enumerate(lengths, start=1) for t in range(n - 1)}
    assert found == expected
    assert int(asked.sum()) == rows.num_label_tokens == sum(lengths) - len(lengths)


@given(LENGTHS, st.integers(1, 25))
@settings(deadline=None)
def test_documents_positions_and_padding(lengths: list[int], seq_len: int) -> None:
    stream = stream_of(lengths)
    rows = PackedRows(stream, seq_len)
    batch = rows.batch(np.arange(len(rows)))
    real = batch.documents >= 0
    # Row by row, token by token, the slow way.
    flat = stream.tokens.tolist()
    for r in range(len(rows)):
        number, position, before = -1, 0, None
        for s in range(seq_len):
            place = r * seq_len + s
            got = tuple(int(tensor[r, s]) for tensor in (batch.inputs, batch.documents, batch.positions))
            if place >= len(flat):
                assert got == (7, -1, 0)
                assert batch.labels[r, s] == IGNORE
                continue
            document = flat[place] // 100
            number, position = (number, position + 1) if document == before else (number + 1, 0)
            before = document
            assert got == (flat[place], number, position)
    assert int(real.sum()) == sum(lengths)


@given(LENGTHS, st.integers(1, 25), st.data())
@settings(deadline=None)
def test_a_row_does_not_depend_on_its_batch(lengths: list[int], seq_len: int, data: st.DataObject) -> None:
    rows = PackedRows(stream_of(lengths), seq_len)
    chosen = data.draw(st.lists(st.integers(0, len(rows) - 1), min_size=1, max_size=6))
    together = rows.batch(np.array(chosen))
    for place, row in enumerate(chosen):
        alone = rows.batch(np.array([row]))
        for name in ("inputs", "labels", "documents", "positions"):
            assert torch.equal(getattr(alone, name)[0], getattr(together, name)[place])


def test_dtypes_and_values_of_a_small_example() -> None:
    batch = PackedRows(stream_of([3, 2]), 4).batch(np.array([0, 1]))
    assert batch.inputs.tolist() == [[100, 101, 102, 200], [201, 7, 7, 7]]
    assert batch.labels.tolist() == [[101, 102, IGNORE, 201], [IGNORE] * 4]
    assert batch.documents.tolist() == [[0, 0, 0, 1], [0, -1, -1, -1]]
    assert batch.positions.tolist() == [[0, 1, 2, 0], [0, 0, 0, 0]]
    assert (batch.inputs.dtype, batch.labels.dtype, batch.positions.dtype) == (torch.int64,) * 3
    assert batch.documents.dtype == torch.int32


def test_rows_outside_are_refused() -> None:
    rows = PackedRows(stream_of([3, 2]), 4)
    for wrong in (-1, 2):
        with pytest.raises(IndexError, match="2 rows"):
            rows.batch(np.array([wrong]))
    with pytest.raises(ConfigError, match="--max-seq-len"):
        PackedRows(stream_of([3]), 0)


class TestPack:
    def test_begin_text_end(self) -> None:
        stream = pack(["the cat", "", "mat"], TOKENIZER)
        assert stream.num_documents == 3
        assert stream.tokens.dtype == np.uint16
        for number, text in enumerate(["the cat", "", "mat"]):
            ids = stream.tokens[stream.offsets[number] : stream.offsets[number + 1]].tolist()
            assert ids == [TOKENIZER.bos_id, *TOKENIZER.encode(text).tolist(), TOKENIZER.eos_id]
        assert stream.offsets[-1] == len(stream.tokens)

    def test_label_counts_are_those_of_the_batches(self) -> None:
        stream = pack(["the cat sat", "on the mat", "the the"], TOKENIZER)
        rows = PackedRows(stream, 5)
        labels = rows.batch(np.arange(len(rows))).labels
        counts = np.bincount(labels[labels != IGNORE].numpy(), minlength=TOKENIZER.vocab_size)
        assert stream.label_counts().tolist() == counts.tolist()
        assert counts.sum() == rows.num_label_tokens

    def test_many_documents_are_encoded_in_groups(self) -> None:
        documents = [f"cat {number}" for number in range(10_050)]
        stream = pack(documents, TOKENIZER)
        last = stream.tokens[stream.offsets[-2] : stream.offsets[-1]]
        assert TOKENIZER.decode(last) == documents[-1]
        assert stream.num_documents == len(documents)

    def test_a_large_vocabulary_needs_four_bytes(self) -> None:
        words = {f"w{number}": number for number in range(70_000)} | {"<|bos|>": 70_000, "<|endoftext|>": 70_001}
        backend = Backend(models.WordLevel(words, unk_token="w0"))
        backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        stream = pack(["w65536 w1"], Tokenizer(backend))
        assert stream.tokens.dtype == np.uint32
        assert stream.tokens.tolist() == [70_000, 65_536, 1, 70_001]

    def test_no_documents(self) -> None:
        with pytest.raises(DataError, match="no document"):
            pack([], TOKENIZER)


def test_dataset_fingerprint_changes_with_each_part() -> None:
    parts = [("a", "b", 128), ("x", "b", 128), ("a", "x", 128), ("a", "b", 129)]
    assert len({dataset_fingerprint(*part) for part in parts}) == 4
    assert dataset_fingerprint("a", "b", 128) == dataset_fingerprint("a", "b", 128)
