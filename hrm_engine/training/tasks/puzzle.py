"""Puzzles with ACT in slots: the task behind ``lab train puzzle``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hrm_engine.bundles.core_config import read_core_config
from hrm_engine.bundles.puzzle_card import PuzzleCard
from hrm_engine.config import CoreConfig, PuzzleTrainConfig, resolve_puzzle_core
from hrm_engine.config.kinds import PUZZLE
from hrm_engine.data.puzzles.description import DatasetInfo
from hrm_engine.data.puzzles.embedded import EMBEDDED, build_embedded
from hrm_engine.data.puzzles.format import PuzzleDataset, open_dataset
from hrm_engine.data.random import stream
from hrm_engine.errors import DataError
from hrm_engine.inference.puzzles.held_out import HeldOut
from hrm_engine.models.core import RecurrentCore
from hrm_engine.models.slots import NUMBERS, Objective, Rows, Slots, empty_slots, join, refill, think
from hrm_engine.optim.sparse_sign import sparse_sign_update
from hrm_engine.optim.updater import Backward
from hrm_engine.starting.student import student_source
from hrm_engine.store.paths import Workspace
from hrm_engine.training.costs import Costs, DryStep
from hrm_engine.training.state import TrainState
from hrm_engine.training.task import DataFacts, Evaluated, Measured
from hrm_engine.training.tasks.attached import look_up, with_attached
from hrm_engine.training.tasks.core_costs import core_costs
from hrm_engine.training.tasks.core_task import CoreTask
from hrm_engine.training.tasks.puzzle_report import evaluated
from hrm_engine.training.tasks.puzzle_rows import RowQueue
from hrm_engine.training.tasks.routing import Routers, with_routing

RECENT_ROWS = 1000


class PuzzleStep:
    """One segment of all slots."""

    def __init__(self, task: PuzzleTask, state: TrainState, micro_batch: int, *, checkpointing: bool) -> None:
        self._task, self._step, self._size, self._checkpointing = task, state.step + 1, micro_batch, checkpointing
        self._cycles, self._grad_calls = task.cycles(state), task.grad_calls(state)

    def run(self, backward: Backward) -> Measured:
        """Refill, think and learn, ``micro_batch`` slots at a time: each part has slots of its own."""
        task, model, count = self._task, self._task.model, self._task.num_slots
        slots, self.cursor = refill(task.slots, task.queue.ring, task.cursor)
        min_segments = task.exploration(self._step)
        self.routing = None
        self.identifiers = slots.rows.identifiers.long()
        puzzle = None if model.puzzle_embedding is None else model.puzzle_embedding(self.identifiers).requires_grad_()
        self.puzzle = puzzle
        parts, numbers = [], torch.zeros(len(NUMBERS), device=task.device)
        for start in range(0, count, self._size):
            stop = min(start + self._size, count)
            dispatch = task.routers.dispatch(self._step, start, task.device)
            context = model.context(task.positions, checkpointing=self._checkpointing, dispatch=dispatch)
            thought = think(
                model,
                slots.part(start, stop),
                context,
                task.objective,
                num_slots=count,
                min_segments=min_segments[start:stop],
                puzzle=None if puzzle is None else puzzle[start:stop],
                cycles=self._cycles,
                grad_calls=self._grad_calls,
                noise=task.noise(self._step, start),
            )
            backward(thought.loss)
            parts.append(thought.slots)
            numbers = numbers + thought.numbers
            if thought.routing is not None:
                self.routing = thought.routing if self.routing is None else self.routing + thought.routing
        self.slots = join(parts)
        counts = {} if self._grad_calls is None else {"grad_calls": self._grad_calls}
        return Measured(with_routing(numbers, self.routing), numbers[0] / count, counts)

    def commit(self, stepped: Tensor, schedule_share: float) -> None:
        """Carry the states on, move the cursor, update the puzzle embedding."""
        task, optim = self._task, self._task.config.optim
        task.slots, task.cursor = self.slots, self.cursor
        task.routers.commit(task.model, self.routing, stepped)
        if self.puzzle is not None and self.puzzle.grad is not None and task.model.puzzle_embedding is not None:
            sparse_sign_update(
                task.model.puzzle_embedding.weight,
                self.identifiers,
                self.puzzle.grad,
                lr=optim.puzzle_lr * schedule_share,
                weight_decay=optim.puzzle_weight_decay,
                finite=stepped,
            )


class PuzzleTask(CoreTask):
    """Rows, slots, losses and evaluation of one puzzle training."""

    kind = PUZZLE.name
    config: PuzzleTrainConfig
    decay_all = True

    def __init__(self, config: PuzzleTrainConfig, workspace: Workspace, *, core: CoreConfig | None = None) -> None:
        self.config = config
        folder = workspace.resolve(config.data.data_path)
        self.train_set = open_dataset(folder, "train")
        self.test_set: PuzzleDataset | None = None
        if config.evaluation.eval_rows:
            if not (folder / "test").is_dir():
                raise DataError(f"{folder} has no test split to evaluate on; add one, or train without: --eval-rows 0")
            self.test_set = open_dataset(folder, "test")
        about, info = self.train_set.about, self.train_set.info
        if config.data.symmetries:
            about.board.check_symmetries(about.height, about.width)
        if core is None:
            core = self.core_of(config, info, workspace)
        else:
            _check_fits(info, core, folder)
        self.core = core
        self.routers = Routers(config.moe, self.core, seed=config.run.seed, total_steps=config.run.steps)
        self.companions = self.card = PuzzleCard.of_dataset(
            self.train_set,
            loss=config.objective.loss,
            label_smoothing=config.objective.label_smoothing,
            symmetries=config.data.symmetries,
        )
        self.objective = Objective(
            config.objective.loss,
            config.objective.label_smoothing,
            config.objective.halt_loss_weight,
            info.ignore_label_id,
        )
        self.num_slots = config.run.rows_per_step
        counts = {"num_rows": self.train_set.num_rows, "num_groups": self.train_set.num_groups}
        counts["num_test_rows"] = 0 if self.test_set is None else self.test_set.num_rows
        proxy = ["this dataset stands in for a published one: results are not comparable with published ones"]
        self.facts = DataFacts(
            fingerprint=self.train_set.fingerprint,
            source=str(config.data.data_path),
            counts=counts,
            history={"dataset": str(config.data.data_path), "groups": self.train_set.num_groups},
            messages=proxy if about.is_proxy else [],
        )

    @classmethod
    def resolve(cls, config: Any, workspace: Workspace) -> Any:
        """The configuration with every default written out; epochs become steps by the groups of the dataset."""
        source = student_source(config.start.student_init, workspace)
        config = config.model_copy(update={"start": config.start.model_copy(update={"student_init": source})})
        return cls.in_steps(config, workspace)

    @classmethod
    def in_steps(cls, config: PuzzleTrainConfig, workspace: Workspace) -> PuzzleTrainConfig:
        """The configuration with epochs as steps, by the groups of the dataset."""
        if config.run.epochs is None:
            return config.resolved()
        folder = workspace.resolve(config.data.data_path)
        build_embedded(folder, workspace.puzzles)
        return config.of_groups(open_dataset(folder, "train", check_tokens=False).num_groups)

    @classmethod
    def first(cls, config: PuzzleTrainConfig, workspace: Workspace) -> tuple[PuzzleTask, list[str]]:
        """The task of a new run; a dataset that the lab can make by itself is built where it is missing."""
        folder = workspace.resolve(config.data.data_path)
        built = build_embedded(folder, workspace.puzzles)
        note = [] if built is None else [f"no dataset at {config.data.data_path} yet: built it ({built.description})"]
        task = cls(config, workspace)
        task.attached, about_experts = look_up(config.start.student_init, config.moe, workspace)
        return task, note + about_experts

    @classmethod
    def resumed(cls, config: PuzzleTrainConfig, workspace: Workspace, checkpoint: Path) -> tuple[PuzzleTask, list[str]]:
        """The task of a run that goes on."""
        return cls(config, workspace, core=read_core_config(checkpoint, kind=cls.kind)), []

    @classmethod
    def network_for(cls, config: Any, workspace: Workspace) -> CoreConfig:
        """The network of a new run on the sizes of its dataset, which is built where the lab can."""
        folder = workspace.resolve(config.data.data_path)
        build_embedded(folder, workspace.puzzles)
        return cls.core_of(config, open_dataset(folder, "train", check_tokens=False).info, workspace)

    @classmethod
    def network_like(cls, config: Any, like: CoreConfig) -> CoreConfig:
        """The network that a configuration asks for on the boards of another one."""
        return resolve_puzzle_core(
            config.network,
            vocab_size=like.vocab_size,
            seq_len=like.max_seq_len - like.prefix_tokens,
            num_identifiers=max(1, like.num_identifiers),
            moe=config.moe,
        )

    @classmethod
    def core_of(cls, config: Any, info: DatasetInfo, workspace: Workspace) -> CoreConfig:
        """The network on the sizes of a dataset."""
        core = resolve_puzzle_core(
            config.network,
            vocab_size=info.vocab_size,
            seq_len=info.seq_len,
            num_identifiers=info.num_puzzle_identifiers,
            moe=config.moe,
        )
        return with_attached(core, config.start.student_init, workspace)

    @classmethod
    def costs(cls, config: Any, network: CoreConfig) -> Costs:
        """Of one segment, in the stages of the depth curriculum."""
        return core_costs(config, network, cycles_at=config.cycles_at)

    @classmethod
    def built_first(cls, workspace: Workspace) -> list[Path]:
        """The datasets that the lab can make by itself."""
        return [workspace.puzzles / name for name in EMBEDDED]

    @classmethod
    def for_trial(cls, config: Any) -> Any:
        """The same with one batch in an evaluation, and none of all rows."""
        rows = min(config.evaluation.eval_rows, max(config.run.batch_size, min(256, config.run.rows_per_step)))
        changes = {"eval_rows": rows, "full_eval": False}
        return config.model_copy(update={"evaluation": config.evaluation.model_copy(update=changes)})

    @classmethod
    def dry_step(cls, config: Any, network: Any, model: Any, device: torch.device, *, checkpointing: bool) -> DryStep:
        """A segment of the slots of one micro-batch."""
        rows, cells = config.run.batch_size, network.max_seq_len - network.prefix_tokens
        row_type = torch.uint8 if network.vocab_size <= 256 else torch.int32
        queue = Rows(
            torch.zeros(1, cells, dtype=row_type, device=device),
            torch.zeros(1, cells, dtype=row_type, device=device),
            torch.zeros(1, dtype=torch.int32, device=device),
        )
        slots = empty_slots(model, rows, queue)
        settings, routers = config.objective, Routers(config.moe, network, seed=0, total_steps=1)
        objective = Objective(settings.loss, settings.label_smoothing, settings.halt_loss_weight)

        def run(backward: Backward) -> None:
            ids = torch.zeros(rows, dtype=torch.int64, device=device)
            table = None if model.puzzle_embedding is None else model.puzzle_embedding(ids).requires_grad_()
            positions = torch.arange(network.max_seq_len, device=device)[None]
            context = model.context(positions, checkpointing=checkpointing, dispatch=routers.dispatch(1, 0, device))
            backward(think(model, slots, context, objective, num_slots=rows, min_segments=ids, puzzle=table).loss)

        kept = sum(tensor.nbytes for tensor in slots.tensors().values())
        return DryStep(run, carry=kept * config.run.gradient_accumulation_steps)

    def evaluation_rows(self, config: Any) -> tuple[int, int]:
        """The fixed subset of the test split; all of it at the end."""
        count = 0 if self.test_set is None else self.test_set.num_rows
        return min(count, config.evaluation.eval_rows), count if config.evaluation.full_eval else 0

    def begin(self, model: RecurrentCore, device: torch.device, state: TrainState) -> None:
        """Make the queue of rows and the slots, all of them waiting for a row."""
        super().begin(model, device, state)
        self.queue = RowQueue(
            self.train_set,
            num_slots=self.num_slots,
            seed=self.config.run.seed,
            symmetries=self.config.data.symmetries,
            device=device,
        )
        self.slots = empty_slots(model, self.num_slots, self.queue.ring)
        self.cursor = torch.zeros((), dtype=torch.int64, device=device)
        self.positions = torch.arange(self.core.max_seq_len, device=device)[None]

    def work(self, state: TrainState, micro_batch: int, *, checkpointing: bool, num_pending: int = 0) -> PuzzleStep:
        """The next segment of all slots."""
        if self.queue.lasts(num_pending):
            self.queue.fill(state.rows, num_pending)
        else:  # the ring could run empty: ask the device how many rows were taken
            self.queue.fill(int(self.cursor), 0)
        return PuzzleStep(self, state, micro_batch, checkpointing=checkpointing)

    def cycles(self, state: TrainState) -> tuple[int, int] | None:
        """Cycles of the next step under the depth curriculum; None where there is none."""
        return self.config.cycles_at(state.step / max(1, state.schedule_steps))

    def grad_calls(self, state: TrainState) -> int | None:
        """Module calls with gradient in the next step, where their number is warmed up; at most all of its calls."""
        cycles = self.cycles(state) or (self.core.h_cycles, self.core.l_cycles)
        warmed = self.warmed_grad_calls(state)
        return None if warmed is None else min(warmed, cycles[0] * (cycles[1] + 1))

    def exploration(self, step: int) -> Tensor:
        """(B,) segments that each slot must think in this step before it may halt; 0 for most."""
        most, share = self.core.halt_max_steps, self.config.objective.halt_exploration_prob
        bits = stream(self.config.run.seed, "exploration", step)
        draws, lengths = bits.random(self.num_slots), bits.random(self.num_slots)
        least = 2 + (lengths * (most - 1)).astype(np.int32)
        return torch.from_numpy(np.where((draws < share) & (most > 1), least, 0)).to(self.device, non_blocking=True)

    def noise(self, step: int, part: int) -> torch.Generator | None:
        """What draws initial states and state noise of a part of the slots in a step, where the model has any."""
        if self.core.initial_z_h != "noise" and not self.core.state_noise:
            return None
        seed = int(stream(self.config.run.seed, "state-noise", step).integers(0, 2**62)) + part
        return torch.Generator(self.device).manual_seed(seed)

    def count(self, numbers: list[float], counts: Mapping[str, int], state: TrainState) -> None:
        """Rows and tokens that slots have taken; and the results of the last rows, where a stop depends on them."""
        sums = dict(zip(NUMBERS, numbers[: len(NUMBERS)], strict=True))
        state.rows += int(sums["fresh_rows"])
        state.tokens += int(sums["fresh_tokens"])
        state.token_segments += int(sums["tokens"])
        if self.config.evaluation.stop_at_train_accuracy is None or not sums["num_halted"]:
            return
        recent = [*state.of_task.get("recent_exact", []), [sums["num_halted"], sums["exact_accuracy"]]]
        while len(recent) > 1 and sum(count for count, _ in recent[1:]) >= RECENT_ROWS:
            recent.pop(0)
        state.of_task["recent_exact"] = recent

    def describe(
        self, numbers: list[float], counts: Mapping[str, int], step_time: float, state: TrainState
    ) -> dict[str, Any]:
        """Losses per slot, results of the slots that halted, counters and throughput."""
        sums = dict(zip(NUMBERS, numbers[: len(NUMBERS)], strict=True))
        about_routers, _ = self.routers.losses(numbers)
        slots, halted = self.num_slots, sums["num_halted"]
        epoch = self.queue.order.epoch_of(state.rows)
        fields: dict[str, Any] = {
            **{name: sums[name] / slots for name in ("loss", "ce", "halt_loss")},
            **about_routers,
            "rows": state.rows,
            "tokens": state.tokens,
            "token_segments": state.token_segments,
            "effective_batch_size": slots,
            "epoch": epoch.number,
            "dataset_position": state.rows - epoch.start,
            "num_halted": int(halted),
            **{name: counts[name] for name in ("grad_calls",) if name in counts},
            "rows_per_s": sums["fresh_rows"] / step_time,
            "row_segments_per_s": slots / step_time,
            "tokens_per_s": sums["fresh_tokens"] / step_time,
            "token_segments_per_s": sums["tokens"] / step_time,
        }
        if self.core.halting == "q_halt_continue":
            fields["continue_loss"] = sums["continue_loss"] / slots
        if halted:
            fields |= {name: sums[name] / halted for name in ("cell_accuracy", "exact_accuracy", "halt_accuracy")}
            fields["act_steps_mean"] = sums["segments"] / halted
        return fields

    def evaluate(self, micro_batch: int, *, full: bool = False) -> Evaluated | None:
        """Accuracies on a fixed subset of the test split, or on all of it."""
        settings = self.config.evaluation
        if self.test_set is None or (full and not settings.full_eval):
            return None
        held_out = HeldOut(self.train_set, self.test_set, None if full else settings.eval_rows)
        report = held_out.evaluate(
            self.model,
            self.objective,
            batch_size=max(micro_batch, min(256, self.num_slots)),
            num_segments=settings.eval_segments or self.core.halt_max_steps,
        )
        return evaluated(report, leaves_files=full)

    def stop_reason(self, state: TrainState) -> str | None:
        """Early stopping on the training accuracy."""
        goal = self.config.evaluation.stop_at_train_accuracy
        recent = state.of_task.get("recent_exact", [])
        rows = sum(count for count, _ in recent)
        if goal is not None and rows >= RECENT_ROWS:
            share = sum(exact for _, exact in recent) / rows
            if share >= goal:
                return f"{share:.3f} of the last {rows:.0f} training rows were right (--stop-at-train-accuracy)"
        return None

    def state_tensors(self) -> dict[str, Tensor]:
        """Slots, the number of rows taken, and the epoch that the next one belongs to."""
        epoch = self.queue.order.epoch_of(int(self.cursor))
        place = torch.tensor([epoch.number, epoch.start], dtype=torch.int64)
        return {**self.slots.tensors(), "cursor": self.cursor, "epoch": place}

    def load_state_tensors(self, tensors: dict[str, Tensor]) -> None:
        """Restore what :meth:`state_tensors` gave."""
        moved = {name: tensor.to(self.device) for name, tensor in tensors.items()}
        number, start = tensors["epoch"].tolist()
        self.cursor = moved["cursor"]
        self.queue.restart(int(self.cursor), number, start)
        self.slots = Slots.from_tensors(moved)

    def load_forked_tensors(self, tensors: dict[str, Tensor], *, is_same_data: bool) -> list[str]:
        """The slots where they are as many, with the same rows; the number of rows taken in any case."""
        own = {name: tensor.shape for name, tensor in self.slots.tensors().items()}
        if is_same_data and all(tensors[name].shape == shape for name, shape in own.items()):
            self.load_state_tensors(tensors)
            return []
        number, start = tensors["epoch"].tolist()
        self.cursor = tensors["cursor"].to(self.device)
        taken = int(self.cursor)
        self.queue.restart(taken, *((number, start) if is_same_data else (number + 1, taken)))
        return ["all slots begin with fresh rows: they are not as many as in the checkpoint, or of other data"]


def _check_fits(info: DatasetInfo, core: CoreConfig, folder: Path) -> None:
    """Raise DataError where a dataset has other boards than a network was made for."""
    sizes = [
        ("tokens", info.vocab_size, core.vocab_size),
        ("cells", info.seq_len, core.max_seq_len - core.prefix_tokens),
        ("identifiers", info.num_puzzle_identifiers if core.prefix_tokens else 0, core.num_identifiers),
    ]
    if wrong := [f"it has {count} {name}, the network {size}" for name, count, size in sizes if count != size]:
        raise DataError(f"{folder} does not fit the network of the checkpoint: {'; '.join(wrong)}")
