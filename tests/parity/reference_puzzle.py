"""The puzzle solvers and their ACT written out from their equations, slowly, in float64.

Nothing here is shared with the engine but the names of the weights. Rows, latents, heads and module calls are loops;
gradients are cut by ``detach``; slots are Python objects that take the next row from a list. An architecture is what
its row in the table of the reference document says, not what the engine's settings say.

Sources: Wang et al. 2025 (arXiv 2506.21734) for ``hrm``, segments, Q-learning and slots; Jolicoeur-Martineau 2025
(arXiv 2510.04871) for ``trm`` and ``trm-mlp``; arXiv 2601.19085 for ``trm-fast`` and several latents; Prieto et al.
2025 (arXiv 2501.04697) for stablemax; Su et al. 2021 (arXiv 2104.09864) for rotary positions.

Shapes: C cells, P positions of the puzzle embedding before them, S = P + C, D width, V vocabulary, K width of a head.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

Weights = dict[str, Tensor]

SUMS = (
    *("ce", "halt_loss", "continue_loss", "num_halted", "cell_accuracy", "exact_accuracy", "halt_accuracy"),
    *("segments", "fresh_rows", "fresh_tokens", "tokens"),
)


@dataclass(frozen=True)
class Shape:
    """What a name and its sizes say about a network."""

    arch: str
    heads: int
    h_layers: int
    l_layers: int
    h_cycles: int
    l_cycles: int
    halt_max_steps: int
    grad_calls: int | None = None
    """None: what the architecture prescribes."""
    positions: str = "rope"
    prefix: int = 1
    latents: int = 1
    damping: float = 1.0
    q_continue: bool = True
    gate: bool = False
    zero_start: bool = False

    @property
    def is_shared(self) -> bool:
        return self.arch != "hrm"

    @property
    def eps(self) -> float:
        return 1e-6 if self.arch == "transformer" else 1e-5

    @property
    def calls(self) -> int:
        return self.h_cycles * (self.l_cycles + 1)

    @property
    def calls_with_gradient(self) -> int:
        if self.grad_calls is not None:
            return self.grad_calls
        return {"hrm": 2, "transformer": self.calls}.get(self.arch, self.l_cycles + 1)


@dataclass(frozen=True)
class Objective:
    """Cross-entropy, share of smoothing, weight of the halting losses, label that is none."""

    loss: str = "stablemax"
    smoothing: float = 0.0
    halt_weight: float = 0.5
    ignore: int | None = 0


@dataclass
class Slot:
    """A row being thought about: the states of its latents, (S, D) each."""

    inputs: list[int] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    identifier: int = 0
    high: list[Tensor] = field(default_factory=list)
    low: list[Tensor] = field(default_factory=list)
    steps: int = 0
    halted: bool = True


def norm(x: Tensor, eps: float, axis: int = 1) -> Tensor:
    """``x / sqrt(mean of squares along an axis + eps)``."""
    return x / torch.sqrt((x * x).sum(axis, keepdim=True) / x.shape[axis] + eps)


def sigmoid(x: Tensor) -> Tensor:
    return 1 / (1 + torch.exp(-x))


def turned(x: Tensor) -> Tensor:
    """One head (S, K): at place s each pair (i, i + K/2) turned by ``s * 10000^(-2i/K)``."""
    half = x.shape[1] // 2
    rate = torch.tensor([10000.0 ** (-2 * i / x.shape[1]) for i in range(half)], dtype=x.dtype)
    angle = torch.arange(len(x), dtype=x.dtype)[:, None] * rate
    a, b = x[:, :half], x[:, half:]
    return torch.cat([a * angle.cos() - b * angle.sin(), a * angle.sin() + b * angle.cos()], 1)


def attend(x: Tensor, weights: Weights, prefix: str, shape: Shape) -> Tensor:
    """Attention of every position to every position, head by head."""
    q, k, v = (x @ weights[f"{prefix}{name}_proj.weight"].T for name in "qkv")
    width = x.shape[1] // shape.heads
    parts = []
    for head in range(shape.heads):
        own = slice(head * width, (head + 1) * width)
        q_own, k_own = q[:, own], k[:, own]
        if shape.positions == "rope":
            q_own, k_own = turned(q_own), turned(k_own)
        share = torch.exp(q_own @ k_own.T / math.sqrt(width))
        parts.append(share / share.sum(1, keepdim=True) @ v[:, own])
    out = torch.cat(parts, 1)
    if shape.gate:
        out = out * sigmoid(x @ weights[prefix + "gate_proj.weight"].T)
    return out @ weights[prefix + "o_proj.weight"].T


def swiglu(x: Tensor, weights: Weights, prefix: str) -> Tensor:
    """``down(g * sigmoid(g) * v)``."""
    gate, value = (x @ weights[f"{prefix}{name}_proj.weight"].T for name in ("gate", "up"))
    return gate * sigmoid(gate) * value @ weights[prefix + "down_proj.weight"].T


def gated_norm(x: Tensor, weights: Weights, prefix: str, eps: float) -> Tensor:
    """``down(sigmoid(g) * RMS(g * v))``."""
    gate, value = (x @ weights[f"{prefix}{name}_proj.weight"].T for name in ("gate", "up"))
    return sigmoid(gate) * norm(gate * value, eps) @ weights[prefix + "down_proj.weight"].T


def layer(x: Tensor, weights: Weights, prefix: str, shape: Shape) -> Tensor:
    """One layer on the states (S, D) of one row."""
    mixer, eps = prefix + "self_attn.", shape.eps
    if shape.arch == "transformer":
        x = x + attend(norm(x, eps), weights, mixer, shape)
        return x + swiglu(norm(x, eps), weights, prefix + "mlp.")
    if shape.arch in ("trm-mlp", "trm-fast"):
        mixed = x + swiglu(x.T, weights, mixer + "mlp.").T
        # TRM's published code takes this norm along the row, because it mixes the transposed states
        x = norm(mixed, eps, axis=0 if shape.arch == "trm-mlp" else 1)
    else:
        x = norm(x + attend(x, weights, mixer, shape), eps)
    if shape.arch == "trm-fast":
        return norm(x + gated_norm(x, weights, prefix + "mlp.", eps), eps)
    return norm(x + swiglu(x, weights, prefix + "mlp."), eps)


def module(x: Tensor, weights: Weights, level: str, shape: Shape) -> Tensor:
    """One call of a level's stack."""
    layers = shape.h_layers if level == "H" or shape.is_shared else shape.l_layers
    name = "H" if shape.is_shared else level
    for number in range(layers):
        x = layer(x, weights, f"{name}_module.layers.{number}.", shape)
    return norm(x, shape.eps) if shape.arch == "transformer" else x


def input_of(weights: Weights, shape: Shape, inputs: list[int], puzzle: Tensor | None) -> Tensor:
    """x (S, D): the puzzle embedding, zeros where it is too short, then the tokens, all scaled to variance 1."""
    tokens = weights["embed_tokens.weight"]
    width = tokens.shape[1]
    rows = [tokens[token] for token in inputs]
    if puzzle is not None:
        missing = shape.prefix * width - puzzle.numel()
        whole = torch.cat([puzzle, torch.zeros(missing, dtype=puzzle.dtype)])
        rows = [whole[n * width : (n + 1) * width] for n in range(shape.prefix)] + rows
    x = torch.stack(rows)
    if shape.positions == "learned":
        x = math.sqrt(0.5) * (x + weights["embed_positions.weight"])
    return math.sqrt(width) * x


def segment(weights: Weights, shape: Shape, high: Tensor, low: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """All cycles of one row, the last calls with gradient."""
    first_with_gradient, call = shape.calls - shape.calls_with_gradient, 0
    for _ in range(shape.h_cycles):
        for _ in range(shape.l_cycles):
            low = shape.damping * module(low + high + x, weights, "L", shape) + (1 - shape.damping) * low
            low, call = (low.detach() if call < first_with_gradient else low), call + 1
        injected = low if shape.l_cycles else x
        high = shape.damping * module(high + injected, weights, "H", shape) + (1 - shape.damping) * high
        high, call = (high.detach() if call < first_with_gradient else high), call + 1
    return high, low


def q_values(weights: Weights, high: Tensor) -> Tensor:
    """The values of halting and, where there is one, of going on."""
    return weights["q_head.weight"] @ high[0] + weights["q_head.bias"]


def log_probabilities(logits: Tensor, kind: str) -> Tensor:
    """(V,) of one cell."""
    if kind == "softmax":
        return logits - torch.log(torch.exp(logits).sum())
    s = torch.stack([value + 1 if value.item() >= 0 else 1 / (1 - value) for value in logits])
    return torch.log(s / s.sum())


def cells(weights: Weights, shape: Shape, high: Tensor, labels: list[int], goal: Objective) -> tuple[Tensor, int, int]:
    """Mean loss of the labelled cells of a row, how many of them are right, how many there are."""
    losses, right, total = [], 0, 0
    for label, state in zip(labels, high[shape.prefix :], strict=True):
        if label == goal.ignore:
            continue
        logits = weights["lm_head.weight"] @ state
        logp = log_probabilities(logits, goal.loss)
        wanted = torch.full_like(logp, goal.smoothing / len(logp))
        wanted[label] += 1 - goal.smoothing
        losses.append(-(wanted * logp).sum())
        right += int(logits.argmax()) == label
        total += 1
    return (sum(losses) / total if total else high.sum() * 0), right, total


def cross_entropy(logit: Tensor, target: float) -> Tensor:
    p = sigmoid(logit)
    return -(target * torch.log(p) + (1 - target) * torch.log(1 - p))


@dataclass
class Step:
    """What a step gives: the loss to be differentiated, the next slots, sums by name."""

    loss: Tensor
    slots: list[Slot]
    sums: dict[str, float]


def step(
    weights: Weights,
    shape: Shape,
    slots: list[Slot],
    puzzles: list[Tensor] | None,
    least_steps: list[int],
    goal: Objective,
) -> Step:
    """One segment of every slot; ``puzzles`` are the rows of the puzzle embedding that they use."""
    sums = dict.fromkeys(SUMS, 0.0)
    total, after = torch.zeros((), dtype=torch.float64), []
    for number, slot in enumerate(slots):
        x = input_of(weights, shape, slot.inputs, None if puzzles is None else puzzles[number])
        if slot.halted:
            slot = Slot(slot.inputs, slot.labels, slot.identifier, *first_states(weights, shape, x), 0, True)
        results = [segment(weights, shape, h, z, x) for h, z in zip(slot.high, slot.low, strict=True)]
        judged = [cells(weights, shape, high, slot.labels, goal) for high, _ in results]
        best = min(range(shape.latents), key=lambda k: float(judged[k][0].detach()))
        steps = slot.steps + 1
        is_last = steps >= shape.halt_max_steps
        halting, wants = torch.zeros((), dtype=torch.float64), []
        continuing = torch.zeros((), dtype=torch.float64)
        halts_right = []
        for (high, low), (_, right, count) in zip(results, judged, strict=True):
            q = q_values(weights, high)
            exact = right == count
            halting = halting + cross_entropy(q[0], float(exact)) / shape.latents
            halts_right.append((float(q[0].detach()) >= 0) == exact)
            wants.append(q[0].item() > (q[1].item() if shape.q_continue else 0))
            if shape.q_continue:
                ahead = q_values(weights, segment(weights, shape, high.detach(), low.detach(), x)[0]).detach()
                value = float(ahead[0]) if is_last else max(float(ahead[0]), float(ahead[1]))
                continuing = continuing + cross_entropy(q[1], 1 / (1 + math.exp(-value))) / shape.latents
        halted = (any(wants) or is_last) and steps >= least_steps[number]
        ce, right, count = judged[best]
        total = total + ce + goal.halt_weight * (halting + continuing)
        sums["ce"] += float(ce.detach())
        sums["halt_loss"] += float(halting.detach())
        sums["continue_loss"] += float(continuing.detach())
        sums["tokens"] += count
        if slot.halted:
            sums["fresh_rows"] += 1
            sums["fresh_tokens"] += count
        if halted and count:
            sums["num_halted"] += 1
            sums["cell_accuracy"] += right / count
            sums["exact_accuracy"] += right == count
            sums["halt_accuracy"] += halts_right[best]
            sums["segments"] += steps
        states = [high.detach() for high, _ in results], [low.detach() for _, low in results]
        after.append(Slot(slot.inputs, slot.labels, slot.identifier, *states, steps, halted))
    return Step(total / len(slots), after, sums)


def first_states(weights: Weights, shape: Shape, x: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """The states of every latent before the first segment: the fixed vectors at every position, or zeros."""
    found = []
    for name in ("z_H_init", "z_L_init"):
        fixed = weights[name] if weights[name].ndim == 2 else weights[name][None]
        if shape.zero_start or shape.arch == "transformer":
            fixed = torch.zeros_like(fixed)
        found.append([vector.expand_as(x) for vector in fixed])
    return found[0], found[1]
