"""Masked multi-head attention.

Shapes: B batch, S queries, T keys, N heads, K head width. Queries (B, S, N, K), keys and values (B, T, N, K).

Which positions see which is decided once per batch by :func:`plan_attention` and shared by every layer of every call:
a query at position i of a document sees keys j of the same document with ``i - window < j <= i``. Positions of a prefix
(PrefixLM, Raffel et al. 2020, arXiv 1910.10683) see each other all.

Five forms with the same result. On a CPU with bf16 products, a kernel of ours in C++ rotates, attends and gates in one
pass over each head (:mod:`.native`), in half the time of what follows. Where it cannot be had, plain batched products
over blocks of queries are 2.5 times as fast as SDPA (forward and backward, bf16, 8 x 256 tokens, 4 heads of 64: 4.6
against 11.8 ms, bench/LOG.md), because the machine's matrix rate is high and SDPA's tiling does not reach it; a single
query is 3 to 6 times as fast by SDPA, which reads keys where they lie. On CUDA, packed documents in half precision go
through flash attention of variable length, which jumps over what is masked. Everywhere else SDPA picks its own kernel.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from hrm_engine.kernels import native
from hrm_engine.kernels.rope import rotate

QUERY_BLOCK = 128
NATIVE_WIDTH = 32
"""Head widths of the kernel in C++ are multiples of this."""


@dataclass(frozen=True)
class Block:
    """Queries ``start:stop`` and the range of keys that any of them can see."""

    start: int
    stop: int
    first_key: int
    end_key: int
    bias: Tensor | None
    """(B or 1, 1, stop - start, end_key - first_key) additive mask, 0 or -inf; None where everything is visible."""


@dataclass(frozen=True)
class AttentionPlan:
    """Visible keys of every query of one batch, in the form of the device's kernel."""

    visible: Tensor | None
    """(B or 1, 1, S, T) bool, True where the query sees the key; None where every query sees every key."""
    is_causal: bool
    """Whether ``visible`` is nothing but the causal triangle of a square."""
    blocks: tuple[Block, ...] | None
    """The same cut into blocks of queries (CPU)."""
    starts: Tensor | None = None
    """(n + 1,) int32, as of :func:`document_starts`; then the other fields are empty."""
    window: int | None = None
    """With ``starts``: how many positions a query sees, itself included."""
    spans: Tensor | None = None
    """(2, B or 1, S) int32, the first key that a query sees and the one behind its last (CPU, bf16)."""


def plan_attention(
    *,
    num_queries: int,
    num_keys: int,
    device: torch.device,
    dtype: torch.dtype,
    documents: Tensor | None = None,
    window: int | None = None,
    causal: bool = True,
    prefix: Tensor | None = None,
    starts: Tensor | None = None,
) -> AttentionPlan:
    """Plan which keys each query sees.

    Args:
        num_queries: S. The queries are the last S of the T key positions (S < T when earlier keys are cached).
        documents: (B, T) document index of each position; attention stops where it changes. None where every row is
            one document, which spares the mask. Padding has an index of its own, so its rows stay finite.
        window: how many positions a query sees, itself included.
        prefix: (B, T) bool, positions that see each other whatever their order; for causal attention without a window.
        starts: the boundaries of ``documents`` once more, for the kernel that jumps over what is masked; the mask is
            used where that kernel cannot be (fp32, cached keys, a prefix).
    """
    half = dtype in (torch.float16, torch.bfloat16)
    if starts is not None and half and causal and prefix is None and num_queries == num_keys:
        return AttentionPlan(None, False, None, starts, window)
    keys = torch.arange(num_keys, device=device)
    queries = keys[num_keys - num_queries :]
    visible: Tensor | None = None
    if causal and num_queries > 1:
        visible = (keys <= queries[:, None])[None, None]
    if window is not None and window < num_keys:
        near = (keys > queries[:, None] - window)[None, None]
        visible = near if visible is None else visible & near
    if prefix is not None and visible is not None:
        visible = visible | (prefix[:, None, num_keys - num_queries :, None] & prefix[:, None, None, :])
    is_causal = causal and num_queries == num_keys > 1 and documents is None and (window or num_keys) >= num_keys
    is_causal = is_causal and prefix is None
    if documents is not None:
        same = documents[:, None, num_keys - num_queries :, None] == documents[:, None, None, :]
        visible = same if visible is None else visible & same
    blocks = None
    if device.type == "cpu" and dtype == torch.bfloat16 and num_queries == num_keys > 1 and prefix is None:
        spans = _spans(documents, num_keys, window, causal=causal) if native.load() is None else None
        if spans is not None:
            return AttentionPlan(visible, is_causal, None, spans=spans)
    if device.type == "cpu":
        reach = 0 if prefix is None else int((prefix.any(0) * (keys + 1)).max())
        blocks = _cut(visible, num_queries, num_keys, window if causal else None, causal, dtype, reach)
    return AttentionPlan(visible, is_causal, blocks)


def _spans(documents: Tensor | None, length: int, window: int | None, *, causal: bool) -> Tensor | None:
    """From the beginning of the document, or of the window, up to the position itself; else whole rows or nothing."""
    if not causal:
        ends = torch.tensor([0, length], dtype=torch.int32)
        return ends[:, None, None].repeat(1, 1, length) if documents is None and window is None else None
    place = torch.arange(length, dtype=torch.int32)[None]
    first = torch.zeros_like(place) if documents is None else (place * _begins(documents)).cummax(1).values
    if window is not None:
        first = first.maximum(place - (window - 1))
    return torch.stack((first, (place + 1).expand_as(first)))


def _begins(documents: Tensor) -> Tensor:
    """Whether a document begins at each position (B, S)."""
    begins = torch.ones_like(documents, dtype=torch.bool)
    begins[:, 1:] = documents[:, 1:] != documents[:, :-1]
    return begins


def document_starts(documents: Tensor) -> Tensor:
    """Where each document begins in the flattened rows, then their end: (n + 1,) int32, on the host.

    Repeated ends, documents of no length, fill it up to a power of two, so that compiled code meets few sizes.

    Args:
        documents: (B, S) document index of each position, on the host.
    """
    places = _begins(documents).flatten().nonzero()[:, 0]
    size = 1 << len(places).bit_length()
    bounds = torch.full((size + 1,), documents.numel(), dtype=torch.int32)
    bounds[: len(places)] = places
    return bounds


def of_first_query(plan: AttentionPlan) -> AttentionPlan:
    """The same plan for the first query alone (S = 1)."""
    visible = None if plan.visible is None else plan.visible[:, :, :1]
    if plan.blocks is None:
        return AttentionPlan(visible, False, None)
    first = plan.blocks[0]
    bias = None if first.bias is None else first.bias[:, :, :1]
    return AttentionPlan(visible, False, (replace(first, stop=first.start + 1, bias=bias),))


def attention_reference(q: Tensor, k: Tensor, v: Tensor, plan: AttentionPlan) -> Tensor:
    """Softmax attention as its equation reads, in any dtype; output (B, S, N, K)."""
    scores = torch.einsum("bsnk,btnk->bnst", q, k) * q.shape[-1] ** -0.5
    if plan.visible is not None:
        scores = scores.masked_fill(~plan.visible, float("-inf"))
    return torch.einsum("bnst,btnk->bsnk", scores.softmax(-1), v)


def gated_attention(
    q: Tensor, k: Tensor, v: Tensor, gate: Tensor | None, angles: tuple[Tensor, Tensor] | None, plan: AttentionPlan
) -> Tensor:
    """``sigmoid(gate) * attention(rotate(q), rotate(k), v)``; what is None is left out.

    Args:
        gate: (B, S, N, K).
        angles: cosine and sine of :func:`~hrm_engine.kernels.rope.rope_tables`.
    """
    if plan.spans is not None and q.shape[-1] % NATIVE_WIDTH == 0:
        cos, sin = angles or (None, None)
        y, _, _ = torch.ops.hrm_lab.attention(q, k, v, gate, cos, sin, plan.spans)
        return y
    if angles is not None:
        cos, sin = angles
        q, k = rotate(q, cos[:, : q.shape[1]], sin[:, : q.shape[1]]), rotate(k, cos, sin)
    out = attention(q, k, v, plan)
    return out if gate is None else torch.sigmoid(gate) * out


def attention(q: Tensor, k: Tensor, v: Tensor, plan: AttentionPlan) -> Tensor:
    """The fastest form for the device; output (B, S, N, K)."""
    if plan.spans is not None and q.shape[-1] % NATIVE_WIDTH == 0:
        return gated_attention(q, k, v, None, None, plan)
    if plan.starts is not None:
        return _by_document(q, k, v, plan.starts, plan.window)
    q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
    is_one_token = q.shape[2] == 1 and not torch.is_grad_enabled()  # a step of generation
    if plan.blocks is None or is_one_token:
        mask = None if plan.is_causal else plan.visible
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=plan.is_causal).transpose(1, 2)
    # values in the order of the products: else each block keeps a copy of those it sees for the backward pass
    q, v = q * q.shape[-1] ** -0.5, v.contiguous()
    parts = [_attend(q, k, v, block) for block in plan.blocks]
    return (parts[0] if len(parts) == 1 else torch.cat(parts, 2)).transpose(1, 2)


def _by_document(q: Tensor, k: Tensor, v: Tensor, starts: Tensor, window: int | None) -> Tensor:
    # imports the compiler, 0.8 s of every start, also where there is no GPU
    from torch.nn.attention.varlen import varlen_attn

    longest = q.shape[1]  # no document reaches over the end of its row
    reach = (-1 if window is None else window - 1, 0)
    flat = (x.flatten(0, 1) for x in (q, k, v))
    out = varlen_attn(*flat, starts, starts, longest, longest, window_size=reach)
    assert isinstance(out, Tensor)
    return out.view_as(q)


def _attend(q: Tensor, k: Tensor, v: Tensor, block: Block) -> Tensor:
    keys = k[:, :, block.first_key : block.end_key]
    scores = q[:, :, block.start : block.stop] @ keys.transpose(-1, -2)
    if block.bias is not None:
        scores = scores + block.bias
    return scores.softmax(-1) @ v[:, :, block.first_key : block.end_key]


def _cut(
    visible: Tensor | None,
    num_queries: int,
    num_keys: int,
    window: int | None,
    causal: bool,
    dtype: torch.dtype,
    reach: int,
) -> tuple[Block, ...]:
    """``reach`` is where the last prefix ends, whose keys its first positions see."""
    cached = num_keys - num_queries
    blocks = []
    for start in range(0, num_queries, QUERY_BLOCK):
        stop = min(start + QUERY_BLOCK, num_queries)
        end_key = max(cached + stop, reach if cached + start < reach else 0) if causal else num_keys
        first_key = max(0, cached + start + 1 - window) if window is not None else 0
        bias = None
        if visible is not None:
            seen = visible[:, :, start:stop, first_key:end_key]
            bias = torch.zeros(seen.shape, dtype=dtype).masked_fill_(~seen, float("-inf"))
        blocks.append(Block(start, stop, first_key, end_key, bias))
    return tuple(blocks)
