"""Text brains in transformers and back: equal logits, equal tokens, equal bits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from hrm_engine.bundles.exchange.hf_config import hf_problems
from hrm_engine.bundles.exchange.hf_export import export_folder
from hrm_engine.bundles.exchange.hf_import import import_model
from hrm_engine.bundles.listing import list_bundles, verify_bundle
from hrm_engine.bundles.load import load_bundle
from hrm_engine.config import TextTrainConfig, build_config
from hrm_engine.inference import generate
from hrm_engine.inference.text.decoding import Decoder
from hrm_engine.models.core import RecurrentCore
from hrm_engine.store.paths import Workspace
from hrm_engine.training import train
from lab.cli.app import main
from tests.bundles.hub_models import TEXTS, TOKENS, greedy, load, own_brain, their_model, tokenizer
from tests.bundles.their_checkpoints import workspace
from tests.models.tiny import random_tokens, tiny_config
from tests.tiny_runs import one_thread, row_of, text

__all__ = ["one_thread", "workspace"]

NEW = 12


@torch.no_grad()
def logits(core: RecurrentCore, tokens: Tensor, segments: int = 1) -> Tensor:
    """(B, S, V) after so many segments."""
    positions = torch.arange(tokens.shape[1])[None]
    x = core.embed(tokens, positions)
    context, carry = core.context(positions), core.initial_carry(x)
    for index in range(segments):
        carry = core.segment(carry, x, context, index=index)
    return core.logits(carry.z_h)


def written(core: RecurrentCore, prompts: Tensor, count: int, segments: int = 1) -> Tensor:
    """The likeliest new tokens (B, count)."""
    decoder = Decoder(core, num_segments=segments, batch=len(prompts))
    feed, found = prompts, []
    for _ in range(count):
        feed = decoder.feed(feed).argmax(-1, keepdim=True)
        found.append(feed)
    return torch.cat(found, 1)


def assert_same_text(theirs: Tensor, ours: Tensor, end: int) -> None:
    """Equal up to the end token of each row, after which theirs are padded."""
    for one, other in zip(theirs.tolist(), ours.tolist(), strict=True):
        length = one.index(end) + 1 if end in one else len(one)
        assert one[:length] == other[:length]


OURS: dict[str, dict[str, Any]] = {
    "plain": {},
    "no-gate": {"attention_gate": False},
    "deeper": {"h_layers": 3, "l_layers": 3, "h_cycles": 3, "l_cycles": 1, "grad_calls": 6},
    "numbers": {"norm_eps": 1e-4, "rope_theta": 500.0, "embedding_scale": 9.5, "num_heads": 4},
    "a-state": {"initial_z_l": "random"},
    "wide-heads": {"head_width": 24, "attention_gate": False},
    "prefix": {"prefix_lm": True},
}


@pytest.mark.parametrize("name", OURS)
def test_an_exported_brain_thinks_and_writes_the_same(workspace: Workspace, name: str) -> None:
    own_brain(workspace, **OURS[name])
    report = export_folder("own", Path("out"), workspace=workspace)
    assert report.lost == "nothing"
    model, fast = load(report.folder)
    bundle = load_bundle("own", device="cpu", workspace=workspace)
    tokens = random_tokens(2, 20, vocab=TOKENS)
    torch.testing.assert_close(model(input_ids=tokens).logits, logits(bundle.model, tokens), rtol=0, atol=1e-5)
    prompts = random_tokens(8, 9, seed=2, vocab=TOKENS)
    assert_same_text(greedy(model, prompts, NEW), written(bundle.model, prompts, NEW), end=fast.eos_token_id)

    ours = generate(bundle, TEXTS[0], max_new_tokens=NEW, temperature=0).text
    new = greedy(model, fast(TEXTS[0], return_tensors="pt").input_ids, NEW)[0]
    assert fast.decode(new, skip_special_tokens=True) == ours

    # and it comes back as it went
    back = import_model("out", name="back", workspace=workspace)
    assert verify_bundle(back.bundle) == []
    assert back.notes == "none"
    again = load_bundle("back", device="cpu", workspace=workspace)
    changed = {"attention_gate", "grad_calls"}
    assert again.config.model_dump(exclude=changed) == bundle.config.model_dump(exclude=changed)
    torch.testing.assert_close(logits(again.model, tokens), logits(bundle.model, tokens), rtol=0, atol=1e-5)
    for key, tensor in bundle.model.state_dict().items():
        is_doubled = key.endswith("o_proj.weight") and not bundle.config.attention_gate
        assert torch.equal(again.model.state_dict()[key], 2 * tensor if is_doubled else tensor), key


def test_a_missing_gate_changes_no_bit(workspace: Workspace) -> None:
    """A half and a factor of two are exact."""
    own_brain(workspace, attention_gate=False)
    report = export_folder("own", Path("out"), workspace=workspace)
    assert "o_proj twice as large" in report.changed
    import_model("out", name="back", workspace=workspace)
    plain, gated = (load_bundle(name, device="cpu", workspace=workspace) for name in ("own", "back"))
    assert gated.config.attention_gate
    tokens = random_tokens(2, 20, vocab=TOKENS)
    assert torch.equal(logits(gated.model, tokens), logits(plain.model, tokens))


@pytest.mark.parametrize("segments", [1, 2, 4])
def test_several_segments_are_more_cycles(workspace: Workspace, segments: int) -> None:
    own_brain(workspace, halt_max_steps=2)
    report = export_folder("own", Path("out"), workspace=workspace, segments=segments)
    assert report.lost == f"the halting head, and every depth but {segments} of 2 segments"
    model, _ = load(report.folder)
    assert model.config.H_cycles == 2 * segments
    core = load_bundle("own", device="cpu", workspace=workspace).model
    tokens = random_tokens(2, 20, vocab=TOKENS)
    torch.testing.assert_close(model(input_ids=tokens).logits, logits(core, tokens, segments), rtol=0, atol=1e-5)
    prompts = random_tokens(3, 9, seed=2, vocab=TOKENS)
    assert_same_text(greedy(model, prompts, NEW), written(core, prompts, NEW, segments), end=1)


THEIRS: dict[str, dict[str, Any]] = {
    "plain": {},
    "prefix": {"prefix_lm": True, "H_cycles": 3, "L_cycles": 1, "L_bp_cycles": [1]},
    "default-heads": {"head_dim": 128},
    "tied": {"tie_word_embeddings": True},
    "a-state": {"begins_at_zero": False, "embedding_scale": 7.0, "rms_norm_eps": 1e-5},
    "bf16": {"dtype": torch.bfloat16},
    "shards": {"shard": "30KB"},
    "rope": {
        "rope_parameters": {"rope_type": "default", "rope_theta": 123.0},
        "num_attention_heads": 1,
        "head_dim": 32,
    },
    "padded-vocabulary": {"vocab_size": TOKENS + 20},
    "no-bos": {"adds_bos": False},
}


@pytest.mark.parametrize("name", THEIRS)
def test_their_model_becomes_a_bundle_and_comes_back_bit_for_bit(workspace: Workspace, name: str) -> None:
    source = their_model(workspace.root / "theirs", **THEIRS[name])
    report = import_model("theirs", name="brain", workspace=workspace)
    assert report.bundle == workspace.brains / "brain"
    assert verify_bundle(report.bundle) == []
    model, fast = load(source)
    stored = load_bundle("brain", device="cpu", workspace=workspace)
    assert stored.model.lm_head.weight.dtype == THEIRS[name].get("dtype", torch.float32)
    bundle = load_bundle("brain", device="cpu", dtype=torch.float32, workspace=workspace)
    tokens = random_tokens(2, 20, vocab=TOKENS)
    torch.testing.assert_close(logits(bundle.model, tokens), model(input_ids=tokens).logits, rtol=0, atol=1e-5)
    prompts = random_tokens(8, 9, seed=2, vocab=TOKENS)
    assert_same_text(greedy(model, prompts, NEW), written(bundle.model, prompts, NEW), end=fast.eos_token_id)
    ids = fast(TEXTS[0], return_tensors="pt").input_ids
    theirs = fast.decode(greedy(model, ids, NEW)[0], skip_special_tokens=True)
    assert generate(bundle, TEXTS[0], max_new_tokens=NEW, temperature=0).text == theirs
    assert ("no begin token" in report.notes) == (name == "no-bos")
    assert ("are two" in report.notes) == (name == "tied")

    back = export_folder("brain", Path("back"), workspace=workspace).folder
    again, their_fast = load(back)
    wanted = model.state_dict()
    assert set(again.state_dict()) == set(wanted)
    for key, tensor in again.state_dict().items():
        assert torch.equal(tensor, wanted[key]), key
    first, second = (json.loads((folder / "config.json").read_text()) for folder in (source, back))
    assert {**second, "tie_word_embeddings": first["tie_word_embeddings"]} == first
    first, second = (json.loads((folder / "tokenizer.json").read_text()) for folder in (source, back))
    assert second == first
    if name not in ("shards", "tied"):
        assert (back / "model.safetensors").read_bytes() == (source / "model.safetensors").read_bytes()
    for sentence in TEXTS:
        assert their_fast(sentence).input_ids == fast(sentence).input_ids


def test_tokenizers_give_the_same_ids(workspace: Workspace) -> None:
    own_brain(workspace)
    _, fast = load(export_folder("own", Path("out"), workspace=workspace).folder)
    ours = tokenizer()
    assert (fast.bos_token_id, fast.eos_token_id, fast.pad_token_id) == (ours.bos_id, ours.eos_id, ours.pad_id)
    assert (fast.padding_side, fast.model_max_length) == ("left", 64)
    import_model("out", name="back", workspace=workspace)
    back = load_bundle("back", device="cpu", workspace=workspace)
    assert back.begins_with_bos
    for sentence in TEXTS:
        ids = ours.encode(sentence).tolist()
        assert fast(sentence).input_ids == [ours.bos_id, *ids]
        assert back.tokenizer.encode(sentence).tolist() == ids
        assert back.tokenizer.decode(ids) == fast.decode(ids) == ours.decode(ids)


def test_what_stops_their_generation_stops_ours(workspace: Workspace) -> None:
    stops = {"eos_token_id": [7, 8], "bos_token_id": 0, "pad_token_id": 2, "max_new_tokens": 5}
    source = their_model(workspace.root / "theirs", generation=stops)
    report = import_model("theirs", name="brain", workspace=workspace)
    bundle = load_bundle("brain", device="cpu", workspace=workspace)
    assert (bundle.tokenizer.eos_id, bundle.tokenizer.end_ids) == (7, {7, 8})
    assert report.notes == "none"
    back = export_folder("brain", Path("back"), workspace=workspace).folder
    first, second = (json.loads((folder / "generation_config.json").read_text()) for folder in (source, back))
    assert {name: second[name] for name in stops} == {name: first[name] for name in stops} == stops


def test_a_text_ends_at_any_of_several_end_tokens(workspace: Workspace) -> None:
    """The end is the fifth token of what a model writes when nothing ends it; its tokenizer does not know 345."""
    plain, fast = load(their_model(workspace.root / "plain", vocab_size=TOKENS + 50, eos_token_id=None))
    ids = fast(TEXTS[0], return_tensors="pt").input_ids
    free = greedy(plain, ids, NEW)[0].tolist()
    ends = [345, 1, free[4]]
    source = their_model(workspace.root / "theirs", vocab_size=TOKENS + 50, eos_token_id=ends)
    model, _ = load(source)
    theirs = greedy(model, ids, NEW)[0].tolist()
    assert theirs == free[: free.index(free[4]) + 1]

    assert import_model("theirs", name="brain", workspace=workspace).notes == "none"
    bundle = load_bundle("brain", device="cpu", workspace=workspace)
    assert bundle.tokenizer.end_ids == set(ends)
    found = generate(bundle, TEXTS[0], max_new_tokens=NEW, temperature=0)
    assert (found.finish_reason, found.num_tokens) == ("stop", len(theirs) - 1)
    assert found.text == bundle.tokenizer.decode(theirs[:-1])

    back = export_folder("brain", Path("back"), workspace=workspace).folder
    for file in ("config.json", "generation_config.json"):
        told = [json.loads((folder / file).read_text())["eos_token_id"] for folder in (source, back)]
        assert told == [ends, ends]


def test_an_imported_brain_is_fine_tuned_resumed_and_exported(workspace: Workspace) -> None:
    """Nothing but the text is said: sizes, numbers that no flag says, and the tokenizer follow the bundle."""
    settings = {"embedding_scale": 7.0, "vocab_size": TOKENS + 4, "prefix_lm": True, "rms_norm_eps": 1e-5}
    settings |= {"eos_token_id": [1, 9]}
    their_model(workspace.root / "theirs", begins_at_zero=False, head_dim=20, H_cycles=1, **settings)
    import_model("theirs", name="brain", workspace=workspace)
    (workspace.root / "text.txt").write_text(text())
    given: dict[str, Any] = {"dataset_file": "text.txt", "student_init": "artifacts/brains/actv1/brain"}
    given |= {"max_seq_len": 16, "batch_size": 2, "steps": 2, "eval_batches": 1, "device": "cpu", "amp": False}
    config = build_config(TextTrainConfig, overrides={**given, "brain_name": "tuned", "save_every": 1})
    run_dir = train(config, workspace=workspace).run_dir
    before, tuned = (load_bundle(name, device="cpu", workspace=workspace) for name in ("brain", "tuned"))
    assert tuned.config == before.config.model_copy(update={"max_seq_len": 16})
    assert tuned.tokenizer.fingerprint == before.tokenizer.fingerprint
    assert tuned.tokenizer.end_ids == {1, 9}
    assert tuned.metadata["parent"]["path"] == str(before.path)
    assert not torch.equal(tuned.model.lm_head.weight, before.model.lm_head.weight)
    assert row_of(run_dir, "eval")["step"] == 2
    assert verify_bundle(run_dir) == []

    again = build_config(TextTrainConfig, overrides={**given, "brain_name": "tuned"})
    assert train(again, resume=True, given={"steps": 3}, workspace=workspace).step == 3
    source = Path("artifacts/brains/actv1/tuned")
    fork = {"brain_name": "fork", "steps": 4}
    assert train(again, from_checkpoint=source, given=fork, workspace=workspace).step == 4

    model, _ = load(export_folder("tuned", Path("out"), workspace=workspace).folder)
    assert model.generation_config.eos_token_id == [1, 9]
    tuned = load_bundle("tuned", device="cpu", workspace=workspace)
    tokens = random_tokens(2, 16, vocab=TOKENS)
    torch.testing.assert_close(model(input_ids=tokens).logits, logits(tuned.model, tokens), rtol=0, atol=1e-5)


def test_what_the_commands_say(workspace: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    own_brain(workspace, halt_max_steps=2)
    words = ["bundle", "export", "own", "out", "--format", "hf", "--segments", "2"]
    assert main(words) == 0
    assert "the halting head" in capsys.readouterr().out
    assert main(["bundle", "import", "out", "--format", "hf", "--name", "back", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["arch"], said["notes"]) == ("hrm-text", "none")
    info = next(info for info in list_bundles(workspace) if info.name == "back")
    assert (info.kind, info.arch, info.state, info.problems) == ("actv1", "hrm-text", "finished", [])
    assert info.parent == str(workspace.root / "out")
    metadata = json.loads((info.path / "metadata.json").read_text())
    assert metadata["imported"]["format"] == "hf"
    assert len(metadata["parent"]["sha256"]) == 64
    assert main(["bundle", "verify", "back"]) == 0
    capsys.readouterr()
    assert main(["generate", "--bundle", "back", "--prompt", "the", "--max-new-tokens", "3", "--device", "cpu"]) == 0
    assert capsys.readouterr().out.startswith("the")


@pytest.mark.parametrize(
    ("arch", "changes", "words"),
    [
        ("hrm", {}, "norm is post, there it is pre"),
        ("hrm", {}, "inject_input is True"),
        ("transformer", {"l_cycles": 0, "h_cycles": 1, "grad_calls": 1}, "it has no low-level calls"),
        ("transformer", {"l_cycles": 0, "h_cycles": 1, "grad_calls": 1}, "shared_modules is True"),
        ("hrm-text", {"window_size": 4}, "window_size is 4, there it is None"),
        ("hrm-text", {"pos_encodings": "learned"}, "pos_encodings is learned, there it is rope"),
        ("hrm-text", {"feed_forward": "moe", "num_experts": 2, "experts_per_token": 1}, "it has experts"),
        ("hrm-text", {"layer_experts": {"H.0": 2}, "experts_per_token": 1}, "it has experts"),
        ("hrm-text", {"h_layers": 2}, "2 and 1 layers"),
        ("hrm-text", {"damping": 0.5}, "damping is 0.5"),
    ],
)
def test_networks_that_the_format_cannot_express(arch: str, changes: dict[str, Any], words: str) -> None:
    assert words in "; ".join(hf_problems(tiny_config(arch, **changes)))
