"""Experts attached to bundles and detached again, on small bundles that were trained."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from hrm_engine.bundles.bundle import PuzzleBundle
from hrm_engine.bundles.core_config import attached_experts
from hrm_engine.bundles.exchange.exporting import export_checkpoint
from hrm_engine.bundles.experts import attach_expert, detach_expert
from hrm_engine.bundles.listing import list_bundles, verify_bundle
from hrm_engine.bundles.load import load_bundle
from hrm_engine.bundles.steering import watch_experts
from hrm_engine.bundles.weights import load_tensors, save_tensors
from hrm_engine.errors import BundleError, CheckpointError, ConfigError
from hrm_engine.inference import solve
from hrm_engine.store.experts import ExpertRegistry, attached_to
from hrm_engine.store.files import sha256_file
from hrm_engine.store.manifest import file_entries, write_sealed
from hrm_engine.store.runs import find_run
from hrm_engine.training.run_folder import saved_config
from tests.bundles.brains import both_kinds, load, logits
from tests.tiny_experts import make_expert
from tests.tiny_puzzles import PuzzleLab, make_puzzles
from tests.tiny_runs import Lab
from tests.tiny_solvers import sudokus


def hashes(folder: Path) -> dict[str, str]:
    """Of every file."""
    return {path.relative_to(folder).as_posix(): sha256_file(path) for path in folder.rglob("*") if path.is_file()}


@both_kinds
def test_a_child_has_the_expert_and_the_parent_stays(lab: Lab, brain: Callable[..., Path], use_moe: bool) -> None:
    parent = brain(use_moe)
    before = hashes(parent)
    own = logits(load(lab, parent))
    child = attach_expert("poems", "base", workspace=lab.workspace)
    assert child == lab.run_dir("base-poems")
    assert hashes(parent) == before
    assert verify_bundle(child) == []
    column = 4 if use_moe else 1
    [entry] = attached_experts(child)
    card = ExpertRegistry(lab.workspace).get("poems")
    assert entry.__dict__ == {
        "expert_id": "poems", "module": "H", "layer": "H.0", "column": column, "sha256": card.sha256
    }  # fmt: skip
    assert attached_to("poems", lab.workspace) == [child]
    metadata = json.loads((child / "metadata.json").read_text())
    assert metadata["parent"] == {"path": str(parent), "sha256": sha256_file(parent / "metadata.json")}
    assert metadata["step"] == 2
    assert "last_metrics" not in metadata
    tensors = load_tensors(child, "model")
    expert = load_tensors(lab.workspace.experts / "poems", "expert")
    at = "H_module.layers.0.mlp"
    for part in ("gate_proj", "up_proj", "down_proj"):
        assert torch.equal(tensors[f"{at}.{part}"][column], expert[part])
    assert torch.equal(tensors[f"{at}.router.weight"][column], expert["router"])
    assert tensors[f"{at}.router.balance_bias"].shape == (column + 1,)
    bundle = load(lab, child)
    assert bundle.messages == []
    assert bundle.config.layer_experts == {"H.0": column + 1}
    assert bundle.config.experts_per_token == 2
    assert not torch.equal(logits(bundle), own)
    [row] = [row for row in list_bundles(lab.workspace) if row.name == "base-poems"]
    assert (row.state, row.problems, row.parent) == ("finished", [], str(parent))
    assert not [path.name for path in child.parent.iterdir() if path.name.startswith(".tmp")]


def test_a_dense_layer_weighs_its_own_network_and_the_expert(lab: Lab, brain: Callable[..., Path]) -> None:
    brain()
    own, child = load(lab, "base"), load(lab, attach_expert("poems", "base", workspace=lab.workspace))
    expert = load_tensors(lab.workspace.experts / "poems", "expert")
    x = torch.randn(2, 3, 64, generator=torch.Generator().manual_seed(0))
    inner = torch.nn.functional.silu(x @ expert["gate_proj"].T) * (x @ expert["up_proj"].T)
    share = torch.sigmoid(x @ expert["router"])[..., None]
    expected = (1 - share) * own.model.get_submodule("H_module.layers.0.mlp")(x) + share * (
        inner @ expert["down_proj"].T
    )
    torch.testing.assert_close(child.model.experts["H.0"](x)[0], expected)


@both_kinds
def test_detaching_gives_back_the_parent(lab: Lab, brain: Callable[..., Path], use_moe: bool) -> None:
    parent = brain(use_moe)
    one = attach_expert("poems", parent, workspace=lab.workspace)
    two = attach_expert("prose", one, name="both", workspace=lab.workspace)
    assert [(entry.expert_id, entry.column) for entry in attached_experts(two)] == [
        ("poems", 4 if use_moe else 1),
        ("prose", 5 if use_moe else 2),
    ]
    rest = detach_expert("poems", two, workspace=lab.workspace)
    assert rest.name == "both-without-poems"
    [left] = attached_experts(rest)
    assert (left.expert_id, left.column) == ("prose", 4 if use_moe else 1)
    direct = attach_expert("prose", parent, workspace=lab.workspace)
    assert torch.equal(logits(load(lab, rest)), logits(load(lab, direct)))
    back = detach_expert("prose", rest, name="back", workspace=lab.workspace)
    assert attached_experts(back) == []
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        assert (back / name).read_bytes() == (parent / name).read_bytes()
    assert torch.equal(logits(load(lab, back)), logits(load(lab, parent)))
    with pytest.raises(BundleError, match="not attached to back. Attached: none"):
        detach_expert("prose", back, workspace=lab.workspace)


def test_layers_and_names(lab: Lab, brain: Callable[..., Path]) -> None:
    brain(h_layers=2)
    inner = load(lab, "base").config.intermediate_size
    make_expert(lab.workspace, "low", inner=inner, layer="L.0")
    make_expert(lab.workspace, "elsewhere", inner=inner, layer="H.7")
    assert [entry.layer for entry in attached_experts(attach_expert("poems", "base", workspace=lab.workspace))] == [
        "H.1"
    ]
    first = attach_expert("poems", "base", layer="L.0", workspace=lab.workspace)
    assert first.name == "base-poems-2"
    both = attach_expert("poems", first, layer="H.0", workspace=lab.workspace)
    assert load(lab, both).config.layer_experts == {"L.0": 2, "H.0": 2}
    with pytest.raises(ConfigError, match=r"several layers.*--layer \(L.0, H.0\)"):
        detach_expert("poems", both, workspace=lab.workspace)
    rest = detach_expert("poems", both, layer="L.0", workspace=lab.workspace)
    assert load(lab, rest).config.layer_experts == {"H.0": 2}
    assert attached_experts(attach_expert("low", "base", workspace=lab.workspace))[0].layer == "L.0"
    assert attached_experts(attach_expert("elsewhere", "base", workspace=lab.workspace))[0].layer == "H.1"
    long = "p" * 64
    make_expert(lab.workspace, long, inner=inner)
    found = [attach_expert(long, "base", workspace=lab.workspace).name for _ in range(2)]
    assert [len(name) for name in found] == [64, 64]
    assert found[1].endswith("-2")


def test_a_solver_takes_an_expert(workspace: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    puzzles = PuzzleLab(workspace, make_puzzles(tmp_path_factory.getbasetemp() / "tiny-puzzles"))
    place = puzzles.workspace
    parent = puzzles.train("four", steps=2, eval_every=2, save_every=2, use_moe=True, num_experts=3).run_dir
    make_expert(place, "digits", width=32, inner=64)
    child = attach_expert("digits", "four", workspace=place)
    assert child == place.runs / "four-digits"
    assert verify_bundle(child) == []
    assert (child / "puzzle.json").read_bytes() == (parent / "puzzle.json").read_bytes()
    assert find_run("four-digits", place) == child
    own, bundle = (load_bundle(path, device="cpu", workspace=place) for path in (parent, child))
    assert bundle.config.experts_in("H.0") == 4
    inputs, _ = sudokus(2)
    with watch_experts(bundle) as found:
        solve(bundle, inputs)
    assert found[0].token_share is not None
    ExpertRegistry(place).update("digits", is_active=False)
    off = load_bundle(child, device="cpu", workspace=place)
    (without, trust), (before, trust_before) = answers(off, inputs), answers(own, inputs)
    assert without == before
    # scores of three experts and of four come from products of other shapes: alike to the last bits of fp32
    assert trust == pytest.approx(trust_before, rel=1e-6)
    with pytest.raises(BundleError, match="it has experts, which the format does not know"):
        export_checkpoint(child, "trm", Path("out/four.pt"), workspace=place)
    back = detach_expert("digits", child, workspace=place)
    assert (back / "model.safetensors").read_bytes() == (parent / "model.safetensors").read_bytes()


def answers(bundle: PuzzleBundle, inputs: Any) -> Any:
    found = solve(bundle, inputs)
    return found.answers.tolist(), found.confidence.tolist()


def test_shards_and_extra_weights_come_along(lab: Lab, brain: Callable[..., Path]) -> None:
    parent = brain()
    tensors = load_tensors(parent, "model")
    (parent / "model.safetensors").unlink()
    names = save_tensors(parent, "model", tensors, max_shard_bytes=200_000)
    names += save_tensors(parent, "unused", {"x": torch.ones(2)})
    metadata = json.loads((parent / "metadata.json").read_text())
    listed = ["config.json", "tokenizer.json", "training_args.json", *names]
    metadata["files"] = file_entries(parent, listed)
    write_sealed(parent / "metadata.json", metadata)
    child = attach_expert("poems", "base", workspace=lab.workspace)
    assert verify_bundle(child) == []
    assert set(json.loads((child / "metadata.json").read_text())["files"]) == {
        "config.json", "model.safetensors", "tokenizer.json", "training_args.json", "unused.safetensors"
    }  # fmt: skip
    assert logits(load(lab, child)).isfinite().all()


def test_a_child_is_no_run_to_resume(lab: Lab, brain: Callable[..., Path]) -> None:
    brain()
    child = attach_expert("poems", "base", workspace=lab.workspace)
    with pytest.raises(CheckpointError, match="no run to resume"):
        saved_config(child, type(lab.config()))
