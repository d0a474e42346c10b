"""Generation with kept keys and values equals computing everything again."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from hrm_engine.inference.text.decoding import Decoder
from hrm_engine.models.act import TextBatch, run_segments
from hrm_engine.models.core import RecurrentCore
from tests.models.tiny import random_tokens, tiny_core

every_architecture = pytest.mark.parametrize("arch", ["hrm", "hrm-text", "transformer"])
every_encoding = pytest.mark.parametrize("positions", ["rope", "learned", "none"])
every_window = pytest.mark.parametrize("window", [None, 1, 4, 50])


@torch.no_grad()
def recomputed(core: RecurrentCore, tokens: Tensor, num_segments: int) -> Tensor:
    """Logits (B, S, V) at the deepest segment, without any cache."""
    batch = TextBatch(tokens, tokens, torch.arange(tokens.shape[1])[None], None)
    *_, carry = run_segments(core, batch, num_segments=num_segments)
    return core.logits(carry.z_h)


def pieces(tokens: Tensor, sizes: list[int]) -> list[Tensor]:
    return list(tokens.split(sizes, dim=1))


@every_architecture
@every_encoding
@every_window
@pytest.mark.parametrize("num_segments", [1, 3])
def test_greedy_tokens_are_equal_in_float64(arch: str, positions: str, window: int | None, num_segments: int) -> None:
    core = tiny_core(arch, pos_encodings=positions, window_size=window)
    decoder = Decoder(core, num_segments=num_segments, batch=2)
    tokens = random_tokens(2, 5)
    feed = tokens
    for _ in range(8):
        cached = decoder.feed(feed)
        wanted = recomputed(core, tokens, num_segments)[:, -1]
        torch.testing.assert_close(cached, wanted, rtol=0, atol=1e-11)
        feed = cached.argmax(-1, keepdim=True)
        assert torch.equal(feed, wanted.argmax(-1, keepdim=True))
        tokens = torch.cat((tokens, feed), 1)


@every_architecture
@every_window
@pytest.mark.parametrize("sizes", [[12], [5, 7], [1, 4, 6, 1], [1] * 12, [11, 1]], ids=str)
def test_a_prompt_may_come_in_pieces(arch: str, window: int | None, sizes: list[int]) -> None:
    core = tiny_core(arch, dtype=torch.float32, sharpness=1.0, window_size=window)
    tokens = random_tokens(2, 12, seed=2)
    wanted = recomputed(core, tokens, 2)
    decoder = Decoder(core, num_segments=2, batch=2)
    end = 0
    for piece in pieces(tokens, sizes):
        end += piece.shape[1]
        torch.testing.assert_close(decoder.feed(piece), wanted[:, end - 1], rtol=0, atol=1e-5)
    assert decoder.cache.length == 12


@every_architecture
@pytest.mark.parametrize("sizes", [(2, 1), (1, 3)], ids=str)
def test_levels_with_different_numbers_of_layers(arch: str, sizes: tuple[int, int]) -> None:
    core = tiny_core(arch, h_layers=sizes[0], l_layers=sizes[1], l_cycles=3)
    tokens = random_tokens(1, 9)
    decoder = Decoder(core, num_segments=2)
    found = [decoder.feed(piece) for piece in pieces(tokens, [4] + [1] * 5)]
    torch.testing.assert_close(found[-1], recomputed(core, tokens, 2)[:, -1], rtol=0, atol=1e-11)


@every_architecture
def test_rows_of_a_batch_are_independent(arch: str) -> None:
    core = tiny_core(arch)
    tokens = random_tokens(3, 6)
    together = Decoder(core, num_segments=2, batch=3)
    together.feed(tokens[:, :4])
    both = together.feed(tokens[:, 4:])
    for row in range(3):
        alone = Decoder(core, num_segments=2)
        alone.feed(tokens[row : row + 1, :4])
        torch.testing.assert_close(alone.feed(tokens[row : row + 1, 4:])[0], both[row], rtol=0, atol=1e-11)


@every_architecture
@every_window
def test_bf16_runs_and_stays_near(arch: str, window: int | None) -> None:
    core = tiny_core(arch, sharpness=1.0, window_size=window)
    tokens = random_tokens(2, 10)
    wanted = recomputed(core, tokens, 2)
    decoder = Decoder(core.to(torch.bfloat16), num_segments=2, batch=2)
    found = [decoder.feed(piece) for piece in pieces(tokens, [6, 1, 3])]
    assert found[-1].dtype is torch.bfloat16
    torch.testing.assert_close(found[-1].double(), wanted[:, -1], rtol=0, atol=0.3)
    assert wanted[:, -1].std() > 0.5  # what the tolerance is to be seen against


def test_a_window_keeps_the_cost_of_a_token_constant() -> None:
    core = tiny_core("hrm-text", window_size=3)
    decoder = Decoder(core, num_segments=1)
    seen = []
    for place in range(10):
        seen.append(decoder.cache.visible_keys(1))
        decoder.feed(random_tokens(1, 1, seed=place))
    assert seen == [1, 2, 3, 3, 3, 3, 3, 3, 3, 3]
