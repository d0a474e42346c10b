"""Small models as transformers saves them, and text brains of ours, with random weights and one tokenizer."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, PreTrainedTokenizerFast
from transformers.models.hrm_text.configuration_hrm_text import HrmTextConfig
from transformers.models.hrm_text.modeling_hrm_text import HrmTextForCausalLM

from hrm_engine.bundles.save import seal_bundle, write_model
from hrm_engine.config.kinds import TEXT
from hrm_engine.data.text.tokenizer import BOS, EOS, PAD, Tokenizer, train_tokenizer
from hrm_engine.store.files import write_json
from hrm_engine.store.paths import Workspace
from tests.models.tiny import tiny_core
from tests.tiny_runs import text

TOKENS = 300
TEXTS = ("the cat runs", "", "  a dog\n\tsleeps under the tree ", "été 🙂 ≠", f"no end {EOS} inside", "return x\n" * 40)


@cache
def tokenizer() -> Tokenizer:
    """A byte-level tokenizer of 300 tokens."""
    return train_tokenizer([text()], vocab_size=TOKENS)


def own_brain(workspace: Workspace, name: str = "own", arch: str = "hrm-text", **changes: Any) -> Path:
    """A finished text bundle with its first weights; by default one segment."""
    settings = {"vocab_size": TOKENS, "halt_max_steps": 1, "max_seq_len": 64, **changes}
    core = tiny_core(arch, dtype=torch.float32, sharpness=1.0, **settings)
    if core.config.initial_z_l == "random":
        core.z_L_init.normal_(generator=torch.Generator().manual_seed(3))
    folder = workspace.brains / name
    folder.mkdir(parents=True)
    files = write_model(folder, TEXT.name, core.config, core.state_dict(), tokenizer())
    write_json(folder / "training_args.json", {})
    seal_bundle(folder, TEXT.name, files, {"step": 1})
    return folder


def their_model(
    folder: Path,
    *,
    dtype: torch.dtype = torch.float32,
    adds_bos: bool = True,
    begins_at_zero: bool = True,
    shard: str = "5GB",
    generation: dict[str, Any] | None = None,
    **settings: Any,
) -> Path:
    """A folder as `save_pretrained` of model and tokenizer leaves it."""
    sizes: dict[str, Any] = {
        **{"vocab_size": TOKENS, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2},
        **{"num_attention_heads": 2, "head_dim": 16, "max_position_embeddings": 64, "initializer_range": 0.1},
        **{"L_cycles": 2, "prefix_lm": False, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2},
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        model = HrmTextForCausalLM(HrmTextConfig(**{**sizes, **settings}))
        if not begins_at_zero:
            torch.nn.init.normal_(model.model.z_L_init)
    if generation is not None:
        model.generation_config = GenerationConfig(**generation)
    model.to(dtype).save_pretrained(folder, max_shard_size=shard)
    tokenizer().save(folder / "tokenizer.json")
    PreTrainedTokenizerFast(
        tokenizer_file=str(folder / "tokenizer.json"),
        **{"bos_token": BOS, "eos_token": EOS, "pad_token": PAD, "add_bos_token": adds_bos},
    ).save_pretrained(folder)
    return folder


def load(folder: Path) -> tuple[Any, Any]:
    """Model and tokenizer by nothing but transformers, fp32; no weight may be missing or too many, no code of ours."""
    model, report = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    assert not any(report.values())
    assert "auto_map" not in json.loads((folder / "config.json").read_text())
    return model.eval(), AutoTokenizer.from_pretrained(folder)


@torch.no_grad()
def greedy(model: Any, prompts: Tensor, count: int) -> Tensor:
    """New tokens (B, count) by their `generate` with its cache; padding follows the end of a row."""
    types = {"token_type_ids": torch.ones_like(prompts)} if model.config.prefix_lm else {}
    found = model.generate(
        input_ids=prompts, attention_mask=torch.ones_like(prompts), max_new_tokens=count, do_sample=False, **types
    )
    return found[:, prompts.shape[1] :]
