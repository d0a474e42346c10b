"""What lies in memory at the peak of a training step, counted on tensors that have shapes and no content.

The model and its step are the real ones; only the arithmetic is left out (:class:`FakeTensorMode`). So a change in
what a kernel keeps for its backward pass is seen here without a formula of its own.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from hrm_engine.config import CoreConfig, PuzzleTrainConfig, TextTrainConfig, TrainConfig
from hrm_engine.config.training import OptimConfig
from hrm_engine.kernels.device import Precision
from hrm_engine.models.act import TextBatch, accumulate_gradients
from hrm_engine.models.core import RecurrentCore
from hrm_engine.models.slots import Objective, Rows, empty_slots, think
from hrm_engine.optim import MasterWeights
from hrm_engine.optim.groups import muon_groups
from hrm_engine.training.routing import Routers

_BLOCK_8BIT, _SMALLEST_8BIT = 256, 4096


@dataclass(frozen=True)
class Memory:
    """Bytes of tensors, by what they are; code, libraries and data come to them."""

    weights: int
    """What the model computes with, buffers included."""
    masters: int
    """Copies in the wider type in which they are updated; 0 where the model computes in that type."""
    gradients: int
    optimizer: int | None
    """State of the update rule; None for rules of libraries, of which only a trial tells."""
    average: int
    """Moving average of the weights."""
    carry: int
    """Puzzles: rows and latent states of the slots."""
    activations: int
    """What a micro-batch needs beside all that, at most."""

    @property
    def total(self) -> int:
        """All of them together."""
        known = (self.weights, self.masters, self.gradients, self.average, self.carry, self.activations)
        return sum(known) + (self.optimizer or 0)


class LiveBytes(TorchDispatchMode):
    """Counts the storages that operations within it make, for as long as they live: ``now`` and at most, ``peak``."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._seen: set[int] = set()

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        given = {id(leaf.untyped_storage()) for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)}
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor) and id(leaf.untyped_storage()) not in given:
                self._take(leaf.untyped_storage())
        return result

    def _take(self, storage: torch.UntypedStorage) -> None:
        key, size = id(storage), storage.nbytes()
        if key in self._seen:
            return
        self._seen.add(key)
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._drop, key, size)

    def _drop(self, key: int, size: int) -> None:
        self._seen.discard(key)
        self.now -= size


def step_memory(
    config: TrainConfig, core: CoreConfig, *, device: torch.device, precision: Precision, checkpointing: bool
) -> Memory:
    """Bytes at the peak of a step of a micro-batch, the gradients of those before it lying there."""
    with torch.device("meta"):
        model = RecurrentCore(core).to(precision.compute)
    with FakeTensorMode(allow_non_fake_inputs=True):
        _without_content(model, device)
        weights = MasterWeights(model, precision.master)
        own = {id(parameter) for parameter in model.parameters()}
        parameters = list(weights.parameters.values())
        for name, master in weights.parameters.items():
            if core.trains_embeddings or not name.startswith("embed_"):
                master.grad = torch.empty_like(master)
        work, carry = _work(config, core, model, device, checkpointing)
        with LiveBytes() as counted:
            work()
        return Memory(
            weights=sum(tensor.nbytes for tensor in (*model.parameters(), *model.buffers())),
            masters=sum(master.nbytes for master in parameters if id(master) not in own),
            gradients=sum(master.grad.nbytes for master in parameters if master.grad is not None),
            optimizer=_optimizer_bytes(weights.parameters, config.optim),
            average=sum(max(4, m.itemsize) * m.numel() for m in parameters) if config.optim.ema_decay else 0,
            carry=carry,
            activations=counted.peak,
        )


def _without_content(model: torch.nn.Module, device: torch.device) -> None:
    """Put parameters and buffers of a model on ``meta`` to a device on which nothing is really there."""
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            empty = torch.empty(parameter.shape, dtype=parameter.dtype, device=device)
            setattr(module, name, torch.nn.Parameter(empty, requires_grad=parameter.requires_grad))
        for name, buffer in module.named_buffers(recurse=False):
            setattr(module, name, torch.empty(buffer.shape, dtype=buffer.dtype, device=device))


def _work(
    config: TrainConfig, core: CoreConfig, model: RecurrentCore, device: torch.device, checkpointing: bool
) -> tuple[Callable[[], None], int]:
    """Forward and backward pass of one micro-batch, and the bytes that it keeps from step to step."""
    rows = config.run.batch_size
    routers = Routers(config.moe, core, seed=0, total_steps=1)

    def ids(*shape: int) -> Tensor:
        return torch.zeros(shape, dtype=torch.int64, device=device)

    if isinstance(config, TextTrainConfig):
        length = config.data.max_seq_len
        num_segments = min(2, config.network.halt_max_steps)  # the second has the first one's state beside it
        freezes = num_segments > 1 and config.depth.freeze_positions > 0
        batch = TextBatch(
            ids(rows, length),
            ids(rows, length),
            ids(rows, length),
            ids(rows, length),
            ids(rows, length) if freezes else None,
        )

        def text() -> None:
            accumulate_gradients(
                model,
                batch,
                num_segments=num_segments,
                normaliser=1.0,
                backward=torch.autograd.backward,
                checkpointing=checkpointing,
                dispatch=routers.dispatch(1, 0, device),
            )

        return text, 0
    assert isinstance(config, PuzzleTrainConfig)
    cells = core.max_seq_len - core.prefix_tokens
    row_type = torch.uint8 if core.vocab_size <= 256 else torch.int32
    queue = Rows(
        torch.zeros(1, cells, dtype=row_type, device=device),
        torch.zeros(1, cells, dtype=row_type, device=device),
        torch.zeros(1, dtype=torch.int32, device=device),
    )
    slots = empty_slots(model, rows, queue)
    objective = Objective(config.objective.loss, config.objective.label_smoothing, config.objective.halt_loss_weight)
    kept = sum(tensor.nbytes for tensor in slots.tensors().values()) * config.run.gradient_accumulation_steps

    def puzzle() -> None:
        embedding = model.puzzle_embedding
        table = None if embedding is None else embedding(ids(rows)).requires_grad_()
        positions = torch.arange(core.max_seq_len, device=device)[None]
        context = model.context(positions, checkpointing=checkpointing, dispatch=routers.dispatch(1, 0, device))
        thought = think(model, slots, context, objective, num_slots=rows, min_segments=ids(rows), puzzle=table)
        torch.autograd.backward(thought.loss)

    return puzzle, kept


def _optimizer_bytes(parameters: dict[str, torch.nn.Parameter], config: OptimConfig) -> int | None:
    """State of the built-in rules: moments as wide as the parameters, in 8 bits with a scale for each block."""
    if config.use_8bit_optimizer or config.optimizer == "adamw_8bit":
        return sum(_moments_8bit(tensor) for tensor in parameters.values())
    if config.optimizer in ("adamw", "adam_atan2"):
        return sum(2 * tensor.nbytes for tensor in parameters.values())
    if config.optimizer == "muon":
        hidden, rest = muon_groups(parameters, config, decay_all=True, stacks=True)
        return sum(
            tensor.nbytes * moments
            for groups, moments in ((hidden, 1), (rest, 2))
            for group in groups
            for tensor in group["params"]
        )
    return None


def _moments_8bit(tensor: Tensor) -> int:
    if tensor.numel() < _SMALLEST_8BIT:
        return 2 * 4 * tensor.numel()
    return 2 * (tensor.numel() + 4 * -(-tensor.numel() // _BLOCK_8BIT) + 4 * 256)
