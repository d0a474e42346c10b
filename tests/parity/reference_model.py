"""The recurrent text model written out from its equations, slowly, in float64.

Nothing here is shared with the engine but the names of the weights. Every position, head and module call is a loop;
who sees whom is decided token by token; gradients are cut by ``detach``. An architecture is what its row in the table
of the reference document says, not what the engine's settings say.

Sources: Wang et al. 2025 (arXiv 2506.21734) for ``hrm``; the `hrm_text` model of transformers for ``hrm-text``;
``transformer`` is one pass of a pre-norm stack over the embedding, plus what the segment before has made of it;
Su et al. 2021 (arXiv 2104.09864) for rotary positions.

Shapes: S tokens in a row, D width, V vocabulary, K width of a head.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

Weights = dict[str, Tensor]


@dataclass(frozen=True)
class Shape:
    """What a name and its sizes say about a network."""

    arch: str
    heads: int
    h_layers: int
    l_layers: int
    h_cycles: int
    l_cycles: int
    grad_calls: int | str
    scale: float
    positions: str = "rope"
    window: int | None = None
    theta: float = 10000.0

    @property
    def eps(self) -> float:
        return 1e-5 if self.arch == "hrm" else 1e-6

    @property
    def calls(self) -> int:
        return self.h_cycles * (self.l_cycles + 1)

    @property
    def calls_with_gradient(self) -> int:
        if self.grad_calls == "one_step":
            return 2
        return self.calls if self.grad_calls == "full" else int(self.grad_calls)


@dataclass(frozen=True)
class Row:
    """One row of tokens: ids, place of each in its document, number of its document."""

    tokens: list[int]
    places: list[int]
    documents: list[int]

    def sees(self, query: int, key: int, window: int | None) -> bool:
        """A token sees itself and what came before it in its own document, as far back as the window reaches."""
        if key > query or self.documents[key] != self.documents[query]:
            return False
        return window is None or query - key < window


@dataclass
class Stopped:
    """Positions that think no more, and the keys and values of each attention of a segment, which they leave."""

    places: set[int] = field(default_factory=set)
    kept: dict[tuple[int, str], list[tuple[Tensor, Tensor]]] = field(default_factory=dict)
    call: int = 0


def norm(x: Tensor, eps: float) -> Tensor:
    """``x / sqrt(mean of squares + eps)`` of one vector."""
    return x / torch.sqrt((x * x).sum() / x.numel() + eps)


def turn(x: Tensor, place: int, theta: float) -> Tensor:
    """One head's vector (K,), each pair (i, i + K/2) turned by ``place * theta^(-2i/K)``."""
    half = x.numel() // 2
    angles = [place * theta ** (-2 * i / x.numel()) for i in range(half)]
    cos = x.new_tensor([math.cos(a) for a in angles])
    sin = x.new_tensor([math.sin(a) for a in angles])
    a, b = x[:half], x[half:]
    return torch.cat([a * cos - b * sin, a * sin + b * cos])


def attend(
    states: list[Tensor], weights: Weights, prefix: str, shape: Shape, row: Row, stopped: Stopped
) -> list[Tensor]:
    """Attention of one layer over the vectors of a row."""
    q_all = [weights[prefix + "q_proj.weight"] @ state for state in states]
    k_all = [weights[prefix + "k_proj.weight"] @ state for state in states]
    v_all = [weights[prefix + "v_proj.weight"] @ state for state in states]
    for place in stopped.places:
        k_all[place], v_all[place] = stopped.kept[stopped.call, prefix][place]
    stopped.kept[stopped.call, prefix] = [(k.detach(), v.detach()) for k, v in zip(k_all, v_all, strict=True)]
    width = states[0].numel() // shape.heads
    mixed = []
    for query in range(len(states)):
        seen = [key for key in range(len(states)) if row.sees(query, key, shape.window)]
        parts = []
        for head in range(shape.heads):
            own = slice(head * width, (head + 1) * width)
            q, keys = q_all[query][own], [k_all[key][own] for key in seen]
            if shape.positions == "rope":
                q = turn(q, row.places[query], shape.theta)
                keys = [turn(k, row.places[key], shape.theta) for k, key in zip(keys, seen, strict=True)]
            score = torch.stack([(q * k).sum() / math.sqrt(width) for k in keys])
            share = torch.exp(score - score.max().detach())
            share = share / share.sum()
            parts.append(sum(share[n] * v_all[key][own] for n, key in enumerate(seen)))
        out = torch.cat(parts)
        if shape.arch == "hrm-text":
            out = out / (1 + torch.exp(-(weights[prefix + "gate_proj.weight"] @ states[query])))
        mixed.append(weights[prefix + "o_proj.weight"] @ out)
    return mixed


def feed_forward(state: Tensor, weights: Weights, prefix: str) -> Tensor:
    """SwiGLU of one vector."""
    gate = weights[prefix + "gate_proj.weight"] @ state
    up = weights[prefix + "up_proj.weight"] @ state
    return weights[prefix + "down_proj.weight"] @ (gate / (1 + torch.exp(-gate)) * up)


def module(
    states: list[Tensor], weights: Weights, name: str, layers: int, shape: Shape, row: Row, stopped: Stopped
) -> list[Tensor]:
    """One call of a level's stack on vectors that have their injection."""
    for layer in range(layers):
        prefix = f"{name}.layers.{layer}."
        if shape.arch == "hrm":
            mixed = attend(states, weights, prefix + "self_attn.", shape, row, stopped)
            states = [norm(s + m, shape.eps) for s, m in zip(states, mixed, strict=True)]
            states = [norm(s + feed_forward(s, weights, prefix + "mlp."), shape.eps) for s in states]
        else:
            mixed = attend([norm(s, shape.eps) for s in states], weights, prefix + "self_attn.", shape, row, stopped)
            states = [s + m for s, m in zip(states, mixed, strict=True)]
            states = [s + feed_forward(norm(s, shape.eps), weights, prefix + "mlp.") for s in states]
    return states if shape.arch == "hrm" else [norm(s, shape.eps) for s in states]


def inputs_of(weights: Weights, shape: Shape, row: Row) -> list[Tensor]:
    """x: the embedding at unit variance, also where a learned position is added."""
    x = [weights["embed_tokens.weight"][token] for token in row.tokens]
    if shape.positions == "learned":
        table = weights["embed_positions.weight"]
        return [shape.scale * math.sqrt(0.5) * (v + table[p]) for v, p in zip(x, row.places, strict=True)]
    return [shape.scale * v for v in x]


def states_by_segment(
    weights: Weights, shape: Shape, row: Row, num_segments: int, depths: list[int] | None = None
) -> list[list[Tensor]]:
    """The high-level states of a row, S vectors (D,), after each segment.

    A position stops after as many segments as ``depths`` says: its states stay as they are, and deeper positions see
    its last key and value of the same call and layer.
    """
    stopped = Stopped()
    found = []
    high: list[Tensor] = []
    low: list[Tensor] = []
    first_with_gradient = shape.calls - shape.calls_with_gradient
    for segment in range(num_segments):
        x = inputs_of(weights, shape, row)
        if segment == 0:
            first = torch.zeros_like(x[0]) if shape.arch == "transformer" else weights["z_H_init"]
            high = x if shape.arch == "hrm-text" else [first] * len(x)
            low = [weights["z_L_init"] if shape.arch == "hrm" else torch.zeros_like(v) for v in x]
        before = (high, low)
        stopped.places = {place for place, depth in enumerate(depths or []) if depth <= segment}
        call = 0
        for _ in range(shape.h_cycles):
            for _ in range(shape.l_cycles):
                stopped.call = call
                injected = [z + h for z, h in zip(low, high, strict=True)]
                if shape.arch == "hrm":
                    injected = [z + v for z, v in zip(injected, x, strict=True)]
                low = module(injected, weights, "L_module", shape.l_layers, shape, row, stopped)
                if call < first_with_gradient:
                    low = [z.detach() for z in low]
                call += 1
            stopped.call = call
            below = x if shape.arch == "transformer" else low
            joined = [h + z for h, z in zip(high, below, strict=True)]
            high = module(joined, weights, "H_module", shape.h_layers, shape, row, stopped)
            if call < first_with_gradient:
                high = [h.detach() for h in high]
            call += 1
        for place in stopped.places:
            high[place], low[place] = before[0][place], before[1][place]
        found.append(high)
        high, low = [h.detach() for h in high], [z.detach() for z in low]
    return found


def logits_by_segment(
    weights: Weights, shape: Shape, row: Row, num_segments: int, depths: list[int] | None = None
) -> list[Tensor]:
    """Logits (S, V) after each segment."""
    by_segment = states_by_segment(weights, shape, row, num_segments, depths)
    return [torch.stack([weights["lm_head.weight"] @ h for h in high]) for high in by_segment]


def training_loss(
    weights: Weights,
    shape: Shape,
    rows: list[Row],
    labels: list[list[int]],
    num_segments: int,
    depths: list[list[int]] | None = None,
) -> Tensor:
    """The mean of CE over the segments that label tokens run, and 0.05 of the halting loss; a negative label is none.

    The halting logit of a token is read from its detached state; its target is how surely the next segment saves more
    than 0.005 nat: ``sigmoid(50 * (CE_s - CE_{s+1} - 0.005))``. A token's last segment has no target. The halting loss
    is for a label token, or where tokens stop early for N segments that label tokens run.
    """
    total = torch.zeros((), dtype=torch.float64)
    num_run = 0
    for number, (row, row_labels) in enumerate(zip(rows, labels, strict=True)):
        of_row = None if depths is None else depths[number]
        by_segment = states_by_segment(weights, shape, row, num_segments, of_row)
        for place, label in enumerate(row_labels):
            if label < 0:
                continue
            depth = num_segments if of_row is None else of_row[place]
            num_run += depth
            losses = []
            for high in by_segment[:depth]:
                logits = weights["lm_head.weight"] @ high[place]
                losses.append(torch.logsumexp(logits, 0) - logits[label])
            total = total + sum(losses)
            for segment in range(depth - 1):
                saved = float(losses[segment].detach() - losses[segment + 1].detach())
                target = 1 / (1 + math.exp(-50 * (saved - 0.005)))
                state = by_segment[segment][place].detach()
                logit = (weights["halt_head.weight"][0] * state).sum() + weights["halt_head.bias"][0]
                p = 1 / (1 + torch.exp(-logit))
                halting = -(target * torch.log(p) + (1 - target) * torch.log(1 - p))
                total = total + num_segments * 0.05 * halting
    return total / num_run
