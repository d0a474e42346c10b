"""Generation: what a token costs at different positions, with the cache and by recomputing everything; and beside
`generate` of transformers on the same model, exported.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from bench.machine import median_s, table, wait
from hrm_engine.bundles.exchange.hf_export import export_folder
from hrm_engine.bundles.save import seal_bundle, write_model
from hrm_engine.config import CoreConfig, NetworkConfig, resolve_core
from hrm_engine.config.kinds import TEXT
from hrm_engine.data.text.tokenizer import train_tokenizer
from hrm_engine.inference.text.decoding import Decoder
from hrm_engine.models.core import RecurrentCore
from hrm_engine.store.paths import Workspace


@dataclass(frozen=True)
class Size:
    """The network (``layers`` of each of its two stacks), and what is generated with it."""

    hidden: int = 256
    heads: int = 4
    layers: int = 4
    positions: tuple[int, ...] = (32, 128, 256, 512)
    batches: tuple[int, ...] = (1, 8)
    prompt: int = 32
    new: int = 64
    runs: int = 7

    @property
    def capacity(self) -> int:
        """Tokens that the model is made for."""
        return max(self.positions) + 128


def report(device: torch.device, size: Size | None = None) -> str:
    """Markdown: both comparisons."""
    size = size or Size()
    return by_position(device, size) + "\n" + beside_transformers(device, size)


def by_position(device: torch.device, size: Size) -> str:
    """Markdown: milliseconds a token by position, cached and recomputed, batch 1, two segments."""
    model = _model(_network(size, segments=2), device)
    rows = []
    for position in size.positions:
        tokens = torch.randint(0, 8192, (1, position), device=device)
        decoder = Decoder(model, num_segments=2, capacity=size.capacity)
        decoder.feed(tokens)

        def cached(decoder: Decoder = decoder, position: int = position, tokens: torch.Tensor = tokens) -> None:
            decoder.feed(tokens[:, :1])
            _rewind(decoder, position)

        def recomputed(tokens: torch.Tensor = tokens) -> None:
            Decoder(model, num_segments=2, capacity=size.capacity).feed(tokens)

        with_cache = median_s(cached, device)
        without = median_s(recomputed, device, runs=5)
        rows.append(
            [str(position), f"{with_cache * 1e3:.2f} ms", f"{without * 1e3:.2f} ms", f"{without / with_cache:.1f} x"]
        )
    header = ["position", "cached, a token", "recomputed, a token", "ratio"]
    return "## Generation, two segments, batch 1\n\n" + table(header, rows)


def beside_transformers(device: torch.device, size: Size) -> str:
    """Markdown: greedy generation of the same model in one segment by both, in turn, with the same tokens.

    Raises RuntimeError where the tokens differ: then there is nothing to compare.
    """
    from transformers import AutoModelForCausalLM

    core = _network(size, segments=1)
    dtype = _dtype(device)
    rows = []
    with tempfile.TemporaryDirectory() as place:
        folder = _exported(core, Workspace(Path(place)))
        theirs: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).to(device).eval()
        theirs.generation_config.eos_token_id = None  # all rows are of the same length
        model = _model(core, device)
        for batch in size.batches:
            prompts = torch.randint(0, 8192, (batch, size.prompt), generator=torch.Generator().manual_seed(0)).to(
                device
            )
            ways = {
                "theirs": lambda prompts=prompts: _their_tokens(theirs, prompts, size.new),
                "ours": lambda prompts=prompts: _our_tokens(model, prompts, size.new),
            }
            times, tokens = _in_turn(ways, device, size.runs)
            # a tie of two logits, which types with few digits have, is decided by rounding
            equal = float((tokens["ours"] == tokens["theirs"]).float().mean())
            if dtype == torch.float32 and equal < 1:
                raise RuntimeError(f"batch {batch}: only {equal:.1%} of the tokens are the same")
            ratio = statistics.median(a / b for a, b in zip(times["theirs"], times["ours"], strict=True))
            per_token = {name: statistics.median(values) / size.new * 1e3 for name, values in times.items()}
            cells = [f"{per_token[name]:.2f} ms" for name in ("ours", "theirs")]
            rows.append([str(batch), *cells, f"{ratio:.2f} x", f"{equal:.1%}"])
    header = ["batch", "ours, a step", "transformers, a step", "theirs / ours", "tokens that are the same"]
    title = f"## Generation beside transformers, one segment, {size.prompt} tokens and {size.new} new ones, greedy\n\n"
    return title + table(header, rows)


def _network(size: Size, *, segments: int) -> CoreConfig:
    network = NetworkConfig(
        hidden_size=size.hidden,
        num_heads=size.heads,
        expansion=4.0,
        h_layers=size.layers,
        l_layers=size.layers,
        l_cycles=3,
        halt_max_steps=segments,
    )
    return resolve_core(network, vocab_size=8192, max_seq_len=size.capacity)


def _dtype(device: torch.device) -> torch.dtype:
    return torch.bfloat16 if device.type != "cpu" else torch.float32


def _model(core: CoreConfig, device: torch.device) -> RecurrentCore:
    model = RecurrentCore(core)
    model.initialise(0)
    return model.to(device=device, dtype=_dtype(device)).eval()


def _exported(core: CoreConfig, workspace: Workspace) -> Path:
    """The same model as a folder for transformers; only the vocabulary of its tokenizer is small."""
    model = RecurrentCore(core)
    model.initialise(0)
    bundle = workspace.brains / "bench"
    bundle.mkdir(parents=True)
    tokenizer = train_tokenizer(["a tokenizer, because a folder needs one"], vocab_size=260)
    files = write_model(bundle, TEXT.name, core, model.state_dict(), tokenizer)
    seal_bundle(bundle, TEXT.name, files, {"step": 0})
    return export_folder("bench", Path("out"), workspace=workspace).folder


def _our_tokens(model: RecurrentCore, prompts: torch.Tensor, new: int) -> torch.Tensor:
    decoder = Decoder(model, num_segments=1, batch=len(prompts), capacity=prompts.shape[1] + new)
    feed, tokens = prompts, []
    for _ in range(new):
        feed = decoder.feed(feed).argmax(-1, keepdim=True)
        tokens.append(feed)
    return torch.cat(tokens, 1)


@torch.inference_mode()
def _their_tokens(model: Any, prompts: torch.Tensor, new: int) -> torch.Tensor:
    mask = torch.ones_like(prompts)
    tokens: torch.Tensor = model.generate(input_ids=prompts, attention_mask=mask, max_new_tokens=new, do_sample=False)
    return tokens[:, prompts.shape[1] :]


def _in_turn(
    ways: dict[str, Callable[[], torch.Tensor]], device: torch.device, runs: int
) -> tuple[dict[str, list[float]], dict[str, torch.Tensor]]:
    """Seconds of each run, one beside the other because a shared machine's speed drifts, and the tokens."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    tokens = {name: work() for name, work in ways.items()}
    for _ in range(runs):
        for name, work in ways.items():
            wait(device)
            start = time.perf_counter()
            work()
            wait(device)
            times[name].append(time.perf_counter() - start)
    return times, tokens


def _rewind(decoder: Decoder, position: int) -> None:
    decoder.cache.length = position
