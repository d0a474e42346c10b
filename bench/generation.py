"""Generation: what a token costs at different positions, with the cache and by recomputing everything."""

from __future__ import annotations

import torch

from bench.machine import median_s, table
from hrm_engine.config import NetworkConfig, resolve_core
from hrm_engine.inference.decoding import Decoder
from hrm_engine.models.core import RecurrentCore

POSITIONS = (32, 128, 256, 512)


def report(device: torch.device) -> str:
    """Markdown: milliseconds a token by position, cached and recomputed, batch 1, two segments."""
    network = NetworkConfig(hidden_size=256, num_heads=4, expansion=4.0, h_layers=4, l_layers=4, l_cycles=3)
    core = resolve_core(network, vocab_size=8192, max_seq_len=640)
    model = RecurrentCore(core)
    model.initialise(0)
    model = model.to(device=device, dtype=torch.bfloat16 if device.type != "cpu" else torch.float32)
    rows = []
    for position in POSITIONS:
        tokens = torch.randint(0, 8192, (1, position), device=device)
        decoder = Decoder(model, num_segments=2, capacity=640)
        decoder.feed(tokens)

        def cached(decoder: Decoder = decoder, position: int = position, tokens: torch.Tensor = tokens) -> None:
            decoder.feed(tokens[:, :1])
            _rewind(decoder, position)

        def recomputed(tokens: torch.Tensor = tokens) -> None:
            Decoder(model, num_segments=2, capacity=640).feed(tokens)

        with_cache = median_s(cached, device)
        without = median_s(recomputed, device, runs=5)
        rows.append(
            [str(position), f"{with_cache * 1e3:.2f} ms", f"{without * 1e3:.2f} ms", f"{without / with_cache:.1f} x"]
        )
    header = ["position", "cached, a token", "recomputed, a token", "ratio"]
    return "## Generation, two segments, batch 1\n\n" + table(header, rows)


def _rewind(decoder: Decoder, position: int) -> None:
    cache = decoder.cache
    cache.length = position
    for slots in cache._slots.values():
        for slot in slots:
            slot.length = position
