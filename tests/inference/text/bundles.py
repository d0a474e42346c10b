"""Tiny brains in memory: one of random weights, one that recites a text."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import torch

from hrm_engine.bundles.bundle import Bundle
from hrm_engine.data.text.tokenizer import Tokenizer
from hrm_engine.models.core import RecurrentCore
from tests.models.tiny import tiny_core


def bundle_of(core: RecurrentCore, tokenizer: Tokenizer) -> Bundle:
    return Bundle(path=Path(), config=core.config, model=core, metadata={}, tokenizer=tokenizer)


def random_bundle(tokenizer: Tokenizer, arch: str = "hrm-text", **changes: object) -> Bundle:
    return bundle_of(tiny_core(arch, vocab_size=tokenizer.vocab_size, **{"max_seq_len": 40, **changes}), tokenizer)


def reciting_bundle(tokenizer: Tokenizer, text: str, *, max_seq_len: int = 60) -> Bundle:
    """A model that writes ``text`` after its first character, and then the end token.

    Its layers add nothing, so a state is the direction of its token, and the head has the successor of each direction.
    """
    ids = [tokenizer.bos_id, *tokenizer.encode(text).tolist(), tokenizer.eos_id]
    assert len(set(ids)) == len(ids), "each token may have one successor only"
    core = tiny_core("hrm-text", vocab_size=tokenizer.vocab_size, hidden_size=64, max_seq_len=max_seq_len)
    with torch.no_grad():
        for name, parameter in core.named_parameters():
            if "o_proj" in name or "down_proj" in name or name.startswith(("embed", "lm_head")):
                parameter.zero_()
        for place, (token, following) in enumerate(pairwise(ids)):
            core.embed_tokens.weight[token, place] = 1
            core.lm_head.weight[following, place] = 10
    return bundle_of(core, tokenizer)
