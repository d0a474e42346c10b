"""How the next token is drawn from logits.

Shapes: B rows, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from hrm_engine.config.writing import SamplingConfig
from hrm_engine.data.random import row_words
from hrm_engine.errors import BundleError


def row_generator(seed: int, row: int) -> torch.Generator:
    """The random numbers of a row, which are those of no other; row 0 has the seed itself."""
    own = seed if row == 0 else int(row_words(seed, "generate", np.array([row]), 1)[0, 0]) >> 1
    return torch.Generator().manual_seed(own)


def draw(
    logits: Tensor,
    sampling: SamplingConfig,
    generators: Sequence[torch.Generator],
    context: Tensor | None = None,
    *,
    where: str = "the model",
) -> Tensor:
    """Next token ids (B,) from logits (B, V); drawn on the CPU so that a seed means the same on every device.

    Args:
        generators: one for each row, so that what a row draws does not depend on the others.
        context: (B, V) which tokens the context of each row has, for the repetition penalty; None is no penalty.
        where: what the message calls the model.

    Raises:
        BundleError: a row has NaN or +inf, or nothing but -inf. No sound network gives that.
    """
    logits = logits.float().cpu()
    # NaN goes through a maximum, so that it tells all three.
    if not logits.amax(-1).isfinite().all():
        raise BundleError(
            f"{where}: what it gives for the next token is NaN or infinite, so there is none to draw. Its weights hold "
            "such numbers, or what is computed from them overflows: take another checkpoint of it, or import it again"
        )
    if context is not None:
        logits = penalised(logits, context, sampling.repetition_penalty)
    if sampling.temperature == 0:
        return logits.argmax(-1)
    chances = probabilities(logits, sampling)
    return torch.cat([torch.multinomial(row, 1, generator=own) for row, own in zip(chances, generators, strict=True)])


def penalised(logits: Tensor, context: Tensor, penalty: float) -> Tensor:
    """Logits (B, V) after the repetition penalty: those of tokens in the context (B, V) are divided by it where they
    are positive and multiplied where they are negative (arXiv 1909.05858, section 4.1; negative ones as in
    transformers, since dividing them would reward)."""
    changed = torch.where(logits < 0, logits * penalty, logits / penalty)
    return torch.where(context, changed.clamp(max=torch.finfo(changed.dtype).max), logits)


def probabilities(logits: Tensor, sampling: SamplingConfig) -> Tensor:
    """Probabilities (B, V) of the next token: temperature (above 0), then the top_k largest, then top_p."""
    # Measured from the largest, which stays 0 however small the temperature is; what overflows is -inf.
    logits = (logits - logits.amax(-1, keepdim=True)) / max(sampling.temperature, 1e-30)
    if sampling.top_k:
        smallest = logits.topk(min(sampling.top_k, logits.shape[-1])).values[..., -1:]
        logits = logits.masked_fill(logits < smallest, float("-inf"))
    probability = logits.softmax(-1)
    if sampling.top_p < 1:
        ordered, order = probability.sort(descending=True, stable=True)
        # a token stays while those before it have not reached the share; the first always does
        ordered = ordered.masked_fill(ordered.cumsum(-1) - ordered >= sampling.top_p, 0.0)
        probability = torch.zeros_like(probability).scatter(-1, order, ordered)
    return probability
