"""Real rows of real documents: micro-batches of any size are one large batch."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from hrm_engine.config.text import load_config
from hrm_engine.data.text.tokenizer import MIN_VOCAB_SIZE, train_tokenizer
from hrm_engine.store.paths import Workspace
from hrm_engine.training.state import TrainState
from hrm_engine.training.tasks.text import TextTask
from tests.models.tiny import gradients, tiny_core

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> TextTask:
    """Documents of 1 to 40 letters in rows of 12: some rows hold ten documents and half as many labels."""
    root = tmp_path_factory.mktemp("task")
    words = ["abcdefgh" * 5, "a", "b", "c", "d", "e", "f", "abcd" * 9, "gg", "h"]
    (root / "text.txt").write_text("\n\n".join(words), encoding="utf8")
    (root / "held.txt").write_text("abc", encoding="utf8")
    config = load_config(dataset_file="text.txt", eval_file="held.txt", max_seq_len=12, batch_size=8, use_moe=False)
    return TextTask(config, train_tokenizer(["ab"], vocab_size=MIN_VOCAB_SIZE), Workspace(root))


@pytest.mark.parametrize("arch", ["hrm", "hrm-text"])
@pytest.mark.parametrize("micro_batch", [1, 3, 4])
def test_the_size_of_the_micro_batch_does_not_matter(task: TextTask, arch: str, micro_batch: int) -> None:
    core = tiny_core(arch, dtype=torch.float32, sharpness=1.0, vocab_size=task.tokenizer.vocab_size)
    task.begin(core, CPU, TrainState())

    def step(size: int) -> tuple[list[int], Tensor, dict[str, Tensor]]:
        core.zero_grad(set_to_none=True)
        rows = task.rows_of_step(0, size)
        losses = task.losses(core, rows, lambda loss: loss.backward(), step=1, checkpointing=False)
        labels = [int((batch.labels >= 0).sum()) for batch in rows.parts]
        assert sum(labels) == rows.num_tokens
        return labels, losses.ce_by_segment / rows.num_tokens, gradients(core)

    _, whole_loss, whole = step(8)
    labels, loss, summed = step(micro_batch)
    assert len(labels) == -(-8 // micro_batch)
    assert len(set(labels)) > 1  # uneven, or a mean of means would pass
    torch.testing.assert_close(loss, whole_loss, rtol=1e-6, atol=0)
    for name, wanted in whole.items():
        torch.testing.assert_close(summed[name], wanted, rtol=0, atol=1e-6, msg=lambda t, n=name: f"{n}: {t}")
