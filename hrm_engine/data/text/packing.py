"""Documents -> one stream of tokens -> rows of equal length.

Shapes: B rows in a batch, S tokens in a row, T tokens in the stream, D documents.

Each document becomes BOS + tokens + EOS; the documents stand one after the other and are cut into rows of S tokens
without gaps, so no token is wasted on padding but in the last row. A label is the token after the input, also when
that stands in the next row; it is IGNORE where that token belongs to another document. Thus every transition inside
a document is a label exactly once, and none crosses documents.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import torch

from hrm_engine.data.text.tokenizer import Tokenizer
from hrm_engine.errors import ConfigError, DataError

IGNORE = -100
_BATCH_DOCUMENTS = 10_000  # ids are int64 until they are narrowed to the stream's type


@dataclass(frozen=True)
class TokenStream:
    """Tokens of all documents: document d is ``tokens[offsets[d]:offsets[d + 1]]``.

    ``tokens`` (T,) uint16 or uint32, ``offsets`` (D + 1,) int64.
    """

    tokens: np.ndarray
    offsets: np.ndarray
    pad_id: int
    vocab_size: int

    @property
    def num_documents(self) -> int:
        return len(self.offsets) - 1

    @property
    def num_label_tokens(self) -> int:
        """Transitions inside documents: every token but the first of each document is one label."""
        return len(self.tokens) - self.num_documents

    def label_counts(self) -> np.ndarray:
        """Number of labels of each token id: (vocab_size,) int64."""
        first = self.tokens[self.offsets[:-1]]
        return np.bincount(self.tokens, minlength=self.vocab_size) - np.bincount(first, minlength=self.vocab_size)


@dataclass(frozen=True)
class Batch:
    """One batch of packed rows, all tensors (B, S).

    ``inputs`` int64 token ids; ``labels`` int64 next tokens or IGNORE; ``documents`` int32 number of the document
    within its row, from 0, and -1 for padding; ``positions`` int64 position within the part of the document that the
    row shows, from 0, and 0 for padding.
    """

    inputs: torch.Tensor
    labels: torch.Tensor
    documents: torch.Tensor
    positions: torch.Tensor


def pack(documents: list[str], tokenizer: Tokenizer) -> TokenStream:
    """Tokenize documents into one stream. Raises `DataError` if there are none."""
    if not documents:
        raise DataError("There is no document to pack into rows.")
    dtype = np.uint16 if tokenizer.vocab_size <= 2**16 else np.uint32
    parts: list[np.ndarray] = []
    lengths = np.empty(len(documents), dtype=np.int64)
    bos, eos = np.array([tokenizer.bos_id], dtype=dtype), np.array([tokenizer.eos_id], dtype=dtype)
    for begin in range(0, len(documents), _BATCH_DOCUMENTS):
        encoded = tokenizer.encode_batch(documents[begin : begin + _BATCH_DOCUMENTS])
        for number, ids in enumerate(encoded, start=begin):
            parts += (bos, ids.astype(dtype), eos)
            lengths[number] = len(ids) + 2
    offsets = np.zeros(len(documents) + 1, dtype=np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return TokenStream(np.concatenate(parts), offsets, tokenizer.pad_id, tokenizer.vocab_size)


class PackedRows:
    """Rows of ``seq_len`` tokens cut from a stream; row r begins at token ``r * seq_len``."""

    def __init__(self, stream: TokenStream, seq_len: int) -> None:
        if seq_len < 1:
            raise ConfigError(f"--max-seq-len {seq_len}: a row needs at least 1 token.")
        self.stream = stream
        self.seq_len = seq_len

    def __len__(self) -> int:
        return -(-len(self.stream.tokens) // self.seq_len)

    @property
    def num_label_tokens(self) -> int:
        """Label tokens in one pass over all rows."""
        return self.stream.num_label_tokens

    def batch(self, indices: np.ndarray) -> Batch:
        """The rows with these numbers. Raises IndexError for a number outside ``range(len(self))``."""
        rows = np.asarray(indices, dtype=np.int64).reshape(-1)
        if rows.size and (rows.min() < 0 or rows.max() >= len(self)):
            raise IndexError(f"row numbers reach from {rows.min()} to {rows.max()}, but there are {len(self)} rows")
        size, tokens, offsets = self.seq_len, self.stream.tokens, self.stream.offsets
        begins = rows * size
        # One column more than the row: the token after the last one decides the last label.
        places = begins[:, None] + np.arange(size + 1)
        exists = places < len(tokens)
        window = tokens[np.minimum(places, len(tokens) - 1)].astype(np.int64)
        starts = self._document_starts(begins, offsets)

        inside = exists[:, :-1]
        inputs = np.where(inside, window[:, :-1], self.stream.pad_id)
        # The stream ends with a document, so "past the end" is a document start as far as labels are concerned.
        labels = np.where(exists[:, 1:] & ~starts[:, 1:], window[:, 1:], IGNORE)

        starts_in_row = starts[:, :-1]
        starts_in_row[:, 0] = True  # a document that goes on from the row before begins here for the model
        documents = np.where(inside, np.cumsum(starts_in_row, axis=1, dtype=np.int32) - 1, -1).astype(np.int32)
        columns = np.arange(size)
        seen_from = np.maximum.accumulate(np.where(starts_in_row, columns, 0), axis=1)
        positions = np.where(inside, columns - seen_from, 0)
        return Batch(*(torch.from_numpy(array) for array in (inputs, labels, documents, positions)))

    def _document_starts(self, begins: np.ndarray, offsets: np.ndarray) -> np.ndarray:
        """(B, S + 1) bool: a document begins at this place.

        Looks up two offsets per row instead of one per token, and then sets one flag per document in the rows.
        """
        first = np.searchsorted(offsets[:-1], begins, side="left")
        last = np.searchsorted(offsets[:-1], begins + self.seq_len, side="right")
        counts = last - first
        row = np.repeat(np.arange(len(begins)), counts)
        number = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts) + np.repeat(first, counts)
        starts = np.zeros((len(begins), self.seq_len + 1), dtype=bool)
        starts[row, offsets[number] - begins[row]] = True
        return starts


def dataset_fingerprint(corpus_fingerprint: str, tokenizer_fingerprint: str, seq_len: int) -> str:
    """One sha256 for "the same rows": same text, same tokenizer, same row length."""
    words = f"{corpus_fingerprint}\n{tokenizer_fingerprint}\n{seq_len}\n"
    return hashlib.sha256(words.encode()).hexdigest()
