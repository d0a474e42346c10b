"""One process that makes training steps of an HRM when it is told to: our trainer's, or the reference's.

    python -m bench.hrm_stepper '{"kind": "ours", "workspace": "...", ...}'

Started by ``bench/hrm_step.py``. It says ``ready``, then makes a step for every line that it reads and answers with
its seconds as JSON; when nothing more comes it tells what else it has measured, and ends. Each implementation has a
process of its own, because they want different allocators and their threads would wait for one another.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.machine import peak_memory_bytes, restart_peak, wait

PRESET = "sudoku-extreme-1k"
SEQ_LEN, VOCABULARY, GROUPS = 81, 11, 1000
STEPS = 1_000_000
"""Longer than any measurement: a run that ends would evaluate and write its bundle."""

Report = dict[str, float]


class Stepper:
    """What is measured: ``step`` makes one and returns seconds by name, ``more`` measures what lies beside steps."""

    def __init__(self, step: Callable[[], Report], more: Callable[[], Report], device: torch.device) -> None:
        self.step, self.more, self.device = step, more, device

    def timed(self) -> Report:
        """One step: ``wall_s``, ``cpu_s`` of all threads, and what the step itself tells."""
        wait(self.device)
        wall, cpu = time.perf_counter(), time.process_time()
        report = self.step()
        wait(self.device)
        return {"wall_s": time.perf_counter() - wall, "cpu_s": time.process_time() - cpu, **report}


@contextmanager
def ours(options: dict[str, Any]) -> Iterator[Stepper]:
    """The published recipe on the bench's own Sudokus; seconds inside of the update are told apart."""
    from hrm_engine.config.puzzle import load_puzzle_config
    from hrm_engine.store.paths import Workspace
    from hrm_engine.training import Trainer
    from hrm_engine.training.tasks.puzzle import PuzzleTask
    from hrm_engine.training.tasks.puzzle_rows import RowQueue

    batch_size = options["batch_size"]
    published = load_puzzle_config(PRESET, batch_size=batch_size).of_groups(GROUPS).evaluation
    config = load_puzzle_config(
        PRESET,
        data_path=options["data_path"],
        q_continue=options["q_continue"],
        compile=options["compile"],
        device=options["device"],
        amp=options["dtype"] == "bf16",
        symmetries=True,
        epochs=None,
        steps=STEPS,
        batch_size=batch_size,
        eval_rows=options["eval_rows"],
        stop_at_train_accuracy=None,
        gradient_checkpointing=False,
        **options["network"],
    )
    with Trainer(config, workspace=Workspace(Path(options["workspace"]))) as trainer:
        update, inside = trainer.setup.updater.update, 0.0

        def timed(*args: Any, **kwargs: Any) -> Any:
            nonlocal inside
            start = time.perf_counter()
            result = update(*args, **kwargs)
            wait(trainer.setup.device)
            inside = time.perf_counter() - start
            return result

        trainer.setup.updater.update = timed  # type: ignore[method-assign]

        def step() -> Report:
            trainer.step()
            return {"inside_s": inside}

        def more() -> Report:
            task = trainer.task
            assert isinstance(task, PuzzleTask)
            queue = RowQueue(task.train_set, num_slots=batch_size, seed=1, symmetries=True, device=trainer.setup.device)
            start = time.perf_counter()
            queue.fill(0, 0)
            feeding = (time.perf_counter() - start) / queue.capacity
            start = time.perf_counter()
            task.evaluate(batch_size)
            evaluation = (time.perf_counter() - start) / options["eval_rows"]
            assert published.eval_every is not None
            return {
                # at most: every slot takes a fresh row in every step
                "feeding_s": feeding * batch_size,
                "evaluation_s": evaluation * published.eval_rows / published.eval_every,
                "num_parameters": sum(p.numel() for p in trainer.setup.model.parameters()),
            }

        yield Stepper(step, more, trainer.setup.device)


@contextmanager
def reference(options: dict[str, Any]) -> Iterator[Stepper]:
    """The reference implementation from a user's own clone: model and loss head, with torch's fused AdamW.

    Its own optimizer is a CUDA extension; AdamW costs no more. Rows, evaluation and logging are left out, so it only
    does forward and backward passes and the update. Attention comes from a package for GPUs, in whose place stands
    torch's.
    """
    sys.path.insert(0, options["peer"])
    flash = ModuleType("flash_attn")
    flash.flash_attn_func = _attention  # type: ignore[attr-defined]
    sys.modules["flash_attn"] = flash
    from models.hrm.hrm_act_v1 import HierarchicalReasoningModel_ACTV1  # type: ignore[import-not-found]
    from models.losses import ACTLossHead  # type: ignore[import-not-found]

    device, rows = torch.device(options["device"]), options["batch_size"]
    settings = {
        **{"batch_size": rows, "seq_len": SEQ_LEN, "vocab_size": VOCABULARY, "num_puzzle_identifiers": 1},
        **{"H_cycles": 2, "L_cycles": 2, "H_layers": 4, "L_layers": 4, "pos_encodings": "rope"},
        **{"hidden_size": 512, "puzzle_emb_ndim": 512, "num_heads": 8, "expansion": 4},
        **{"halt_max_steps": 16, "halt_exploration_prob": 0.1},
        "forward_dtype": {"bf16": "bfloat16", "fp32": "float32"}[options["dtype"]],
    }
    torch.manual_seed(0)
    with device:
        model = ACTLossHead(HierarchicalReasoningModel_ACTV1(settings), "stablemax_cross_entropy").train()
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=1.0, fused=True)
        batch = {
            "inputs": torch.randint(1, VOCABULARY, (rows, SEQ_LEN), dtype=torch.int32),
            "labels": torch.randint(2, VOCABULARY, (rows, SEQ_LEN), dtype=torch.int32),
            "puzzle_identifiers": torch.zeros(rows, dtype=torch.int32),
        }
        carry = model.initial_carry(batch)

    def step() -> Report:
        nonlocal carry
        with device:
            carry, loss, _, _, _ = model(return_keys=[], carry=carry, batch=batch)
        (loss / rows).backward()
        optimizer.step()
        optimizer.zero_grad()
        return {}

    yield Stepper(step, lambda: {"num_parameters": sum(p.numel() for p in model.parameters())}, device)


def _attention(q: Tensor, k: Tensor, v: Tensor, causal: bool = False) -> Tensor:
    q, k, v = (heads.transpose(1, 2) for heads in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v, is_causal=causal).transpose(1, 2).contiguous()


def main() -> None:
    options = json.loads(sys.argv[1])
    torch.set_num_threads(options["num_threads"])
    with {"ours": ours, "reference": reference}[options["kind"]](options) as stepper:
        for _ in range(options["warmup"]):
            stepper.step()
        restart_peak(stepper.device)
        print("ready", flush=True)
        for _ in sys.stdin:
            print(json.dumps(stepper.timed()), flush=True)
        peak = peak_memory_bytes(stepper.device)
        print(json.dumps({"peak_bytes": peak, **stepper.more()}), flush=True)


if __name__ == "__main__":
    main()
