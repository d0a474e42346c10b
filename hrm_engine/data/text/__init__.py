"""Text: files -> documents -> tokens -> packed rows -> batches, each a pure function of the one before.

The resume contract: a batch is determined by (files and reading options, tokenizer, row length, order settings,
rows consumed). The first three are hashed into one fingerprint that a checkpoint stores, the order settings are
part of the configuration, and "rows consumed" is one integer of the training state. There is no other state.
"""
