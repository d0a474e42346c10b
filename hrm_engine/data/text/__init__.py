"""Text: files -> documents -> tokens -> packed rows -> batches, each a pure function of the one before.

The resume contract: a batch is determined by (files and reading options, tokenizer, row length, order settings,
rows consumed). The first three are hashed into one fingerprint that a checkpoint stores, the order settings are
part of the configuration, and "rows consumed" is one integer of the training state. No other state exists here.
"""

from hrm_engine.data.text.documents import Corpus, Source, read_documents, split_holdout
from hrm_engine.data.text.order import RowOrder
from hrm_engine.data.text.packing import IGNORE, Batch, PackedRows, TokenStream, dataset_fingerprint, pack
from hrm_engine.data.text.python_docs import BuildReport, build_python_docs
from hrm_engine.data.text.tokenizer import StreamingDecoder, Tokenizer, train_tokenizer
from hrm_engine.data.text.unigram import unigram_loss

__all__ = [
    "IGNORE",
    "Batch",
    "BuildReport",
    "Corpus",
    "PackedRows",
    "RowOrder",
    "Source",
    "StreamingDecoder",
    "TokenStream",
    "Tokenizer",
    "build_python_docs",
    "dataset_fingerprint",
    "pack",
    "read_documents",
    "split_holdout",
    "train_tokenizer",
    "unigram_loss",
]
