"""Experts attached to bundles and detached again, and routing that is steered: on small bundles that were trained."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from hrm_engine.bundles import (
    Bundle,
    PuzzleBundle,
    find_run,
    list_bundles,
    load_bundle,
    load_puzzle_bundle,
    verify_bundle,
)
from hrm_engine.bundles.exchange import export_checkpoint
from hrm_engine.bundles.experts import attach_expert, attached_experts, detach_expert, steer
from hrm_engine.bundles.save import seal_bundle
from hrm_engine.bundles.steering import watch_experts
from hrm_engine.bundles.weights import load_tensors, save_tensors
from hrm_engine.errors import BundleError, CheckpointError, ConfigError, HRMError, RegistryError
from hrm_engine.inference import generate, solve
from hrm_engine.inference.decoding import Decoder
from hrm_engine.models.act import TextBatch, run_segments
from hrm_engine.store.expert_cards import ExpertCard
from hrm_engine.store.experts import ExpertRegistry, attached_to
from hrm_engine.store.files import sha256_file
from hrm_engine.store.goals import Goals
from hrm_engine.store.manifest import file_entries
from hrm_engine.store.paths import Workspace
from hrm_engine.training.run_folder import saved_config
from tests.tiny_experts import make_expert
from tests.tiny_puzzles import PuzzleLab, make_puzzles
from tests.tiny_runs import Lab
from tests.tiny_solvers import save_solver, sudokus, tiny_solver

TOKENS = torch.randint(4, 300, (4, 16), generator=torch.Generator().manual_seed(5))
SMALL = {"steps": 2, "eval_every": 2, "save_every": 2, "halt_max_steps": 2}
both_kinds = pytest.mark.parametrize("use_moe", [False, True], ids=["dense", "moe"])


@pytest.fixture
def brain(lab: Lab) -> Callable[..., Path]:
    """Trains a tiny brain ``base`` and makes two experts of its sizes, ``poems`` and ``prose``."""

    def make(use_moe: bool = False, **changed: Any) -> Path:
        settings = {**SMALL, "use_moe": use_moe, **({"num_experts": 4} if use_moe else {}), **changed}
        path = lab.train("base", **settings).run_dir
        inner = json.loads((path / "config.json").read_text())["intermediate_size"]
        for seed, expert_id in enumerate(("poems", "prose")):
            make_expert(lab.workspace, expert_id, inner=inner, seed=seed)
        return path

    return make


def load(lab: Lab, bundle: str | Path) -> Bundle:
    return load_bundle(bundle, device="cpu", workspace=lab.workspace)


@torch.no_grad()
def logits(bundle: Bundle) -> Tensor:
    """At the deepest segment, without a cache."""
    batch = TextBatch(TOKENS, TOKENS, torch.arange(TOKENS.shape[1])[None], None)
    *_, carry = run_segments(bundle.model, batch, num_segments=2)
    return bundle.model.logits(carry.z_h)


def hashes(folder: Path) -> dict[str, str]:
    """Of every file."""
    return {path.relative_to(folder).as_posix(): sha256_file(path) for path in folder.rglob("*") if path.is_file()}


def usage(bundle: Bundle, **how: Any) -> tuple[float, float]:
    """Share of the tokens and mean probability of the first attached expert, steered so."""
    steer(bundle, **how)
    with watch_experts(bundle) as found:
        logits(bundle)
    assert found[0].token_share is not None
    assert found[0].mean_probability is not None
    return found[0].token_share, found[0].mean_probability


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


def test_what_cannot_be_attached(lab: Lab, brain: Callable[..., Path]) -> None:
    parent = brain()
    inner = load(lab, "base").config.intermediate_size
    child = attach_expert("poems", "base", workspace=lab.workspace)
    registry = ExpertRegistry(lab.workspace)
    make_expert(lab.workspace, "wide", width=32, inner=inner)
    make_expert(lab.workspace, "thin", inner=inner - 1)
    make_expert(lab.workspace, "broken", inner=inner)
    make_expert(lab.workspace, "endless", inner=inner, column=float("inf"))
    registry.add(ExpertCard(expert_id="empty"))
    (registry.weights("broken")).write_bytes(registry.weights("prose").read_bytes())
    make_expert(lab.workspace, "other", inner=inner)
    write_junk(registry, "other")
    before = sorted(path.name for path in child.parent.iterdir())
    cases: list[tuple[dict[str, Any], type[HRMError], str]] = [
        ({"expert_id": "poem"}, RegistryError, "no expert 'poem'.*Did you mean poems"),
        ({"expert_id": "empty"}, RegistryError, "has no weights yet"),
        ({"expert_id": "broken"}, RegistryError, "sha256 is not the one in the registry"),
        ({"expert_id": "other"}, RegistryError, "is not a safetensors file"),
        ({"expert_id": "wide"}, BundleError, rf"gate_proj has shape \({inner}, 32\), needed is \({inner}, 64\)"),
        ({"expert_id": "thin"}, BundleError, f"intermediate size {inner}"),
        ({"expert_id": "endless"}, BundleError, "not finite"),
        ({"expert_id": "prose", "layer": "H.5"}, ConfigError, "no layer 'H.5': use one of H.0, L.0"),
        ({"expert_id": "prose", "name": "base"}, ConfigError, "exists: choose another --name"),
        ({"expert_id": "prose", "name": "../up"}, ConfigError, "--name"),
        ({"expert_id": "prose", "bundle": "nothing"}, BundleError, "no bundle 'nothing'"),
        ({"expert_id": "prose", "bundle": parent / "best"}, BundleError, "name the finished bundle"),
        ({"expert_id": "poems", "bundle": child}, BundleError, "attached to layer H.0 of base-poems already"),
        ({"expert_id": "Poems!"}, ConfigError, "not allowed"),
    ]
    for given, error, told in cases:
        with pytest.raises(error, match=told):
            attach_expert(**{"bundle": "base", "workspace": lab.workspace, **given})
    tokenizer = parent / "tokenizer.json"
    kept = tokenizer.read_bytes()
    tokenizer.write_bytes(kept + b" ")
    with pytest.raises(BundleError, match="tokenizer.json has changed"):
        attach_expert("prose", "base", workspace=lab.workspace)
    tokenizer.write_bytes(kept)
    (parent / "metadata.json").unlink()
    with pytest.raises(BundleError, match="has not finished"):
        attach_expert("prose", "base", workspace=lab.workspace)
    assert sorted(path.name for path in child.parent.iterdir()) == before


def write_junk(registry: ExpertRegistry, expert_id: str) -> None:
    """Weights that fit their hash and are none."""
    path = registry.weights(expert_id)
    path.write_bytes(b"no weights at all")
    registry.update(expert_id, sha256=sha256_file(path))


def test_a_network_of_another_kind_takes_no_expert(workspace: Path) -> None:
    place = Workspace(workspace)
    solver = save_solver(tiny_solver(activation="gated_norm"), place.runs / "gated")
    (solver / "training_args.json").write_text('{"schema_version": 1, "kind": "puzzle"}')
    make_expert(place, "poems", width=32, inner=32)
    with pytest.raises(BundleError, match="experts are SwiGLUs"):
        attach_expert("poems", "gated", workspace=place)


def test_a_child_is_no_run_to_resume(lab: Lab, brain: Callable[..., Path]) -> None:
    brain()
    child = attach_expert("poems", "base", workspace=lab.workspace)
    with pytest.raises(CheckpointError, match="no run to resume"):
        saved_config(child, type(lab.config()))


@both_kinds
def test_goals_draw_tokens(lab: Lab, brain: Callable[..., Path], use_moe: bool) -> None:
    brain(use_moe)
    child = attach_expert("poems", "base", workspace=lab.workspace)
    bundle, goals = load(lab, child), Goals(lab.workspace)
    goal = goals.add("Rhyme", expert_id="poems")
    plain = logits(bundle)
    how: dict[str, Any] = {"goals": [goal.id], "workspace": lab.workspace}
    assert steer(bundle, strength=0, **how) == []
    assert torch.equal(logits(bundle), plain)
    found = [usage(bundle, strength=strength, **how) for strength in (0, 0.02, 0.1, 0.5, 1, 2, 5)]
    shares, probabilities = zip(*found, strict=True)
    assert list(shares) == sorted(shares)
    assert list(probabilities) == sorted(set(probabilities))
    if use_moe:  # a layer that was dense sends every token to both
        assert shares[0] < shares[3] <= shares[-1]
        assert shares[-1] == 1
    assert usage(bundle, goals="active", workspace=lab.workspace) == found[4]
    steer(bundle, workspace=lab.workspace)
    assert torch.equal(logits(bundle), plain)


def test_goals_that_steer_nothing(lab: Lab, brain: Callable[..., Path]) -> None:
    brain()
    bundle, goals = load(lab, attach_expert("poems", "base", workspace=lab.workspace)), Goals(lab.workspace)
    where: dict[str, Any] = {"workspace": lab.workspace}
    plain = logits(bundle)
    assert steer(bundle, goals="active", **where) == ["no goal is active: nothing is steered"]
    other = goals.add("Explain", expert_id="prose")
    assert steer(bundle, goals="active", **where) == [
        "no active goal is served by an expert that is attached to base-poems: nothing is steered"
    ]
    assert steer(bundle, goals=[other.id], **where) == [
        "goal 1 is served by no expert that is attached to base-poems: it steers nothing (its experts: prose)"
    ]
    assert torch.equal(logits(bundle), plain)
    with pytest.raises(RegistryError, match="7"):
        steer(bundle, goals=[7], **where)
    for strength in (-0.1, 5.1, float("nan")):
        with pytest.raises(ConfigError, match="--goal-bias-strength"):
            steer(bundle, goals=[other.id], strength=strength, **where)
    goals.link_expert(other.id, "poems")
    goals.deactivate(other.id)
    assert steer(bundle, goals=[other.id], **where) == []  # named goals need not be active
    assert not torch.equal(logits(bundle), plain)
    assert steer(load(lab, "base"), goals=[other.id], **where) == [
        "goal 1 is served by no expert that is attached to base: it steers nothing (its experts: poems, prose)"
    ]


@both_kinds
def test_an_inactive_expert_gets_no_token(lab: Lab, brain: Callable[..., Path], use_moe: bool) -> None:
    brain(use_moe)
    child, registry = attach_expert("poems", "base", workspace=lab.workspace), ExpertRegistry(lab.workspace)
    goal = Goals(lab.workspace).add("Rhyme", expert_id="poems")
    registry.deactivate("poems")
    bundle = load(lab, child)
    assert torch.equal(logits(bundle), logits(load(lab, "base")))
    told = steer(bundle, goals=[goal.id], strength=5, workspace=lab.workspace)
    assert told == ["expert poems is inactive: it gets no token, whatever goal it serves"]
    with watch_experts(bundle) as found:
        logits(bundle)
        generate(bundle, "the cat", max_new_tokens=3)
    assert [(use.is_active, use.token_share, use.mean_probability) for use in found] == [(False, 0, 0)]
    registry.activate("poems")
    assert usage(bundle, workspace=lab.workspace)[1] > 0
    assert torch.equal(logits(bundle), logits(load(lab, child)))


def test_without_a_registry_the_expert_is_routable_and_that_is_said(lab: Lab, brain: Callable[..., Path]) -> None:
    brain()
    child = attach_expert("poems", "base", workspace=lab.workspace)
    expected = logits(load(lab, child))
    registry = lab.workspace.expert_registry
    registry.rename(registry.with_name("kept"))
    bundle = load(lab, child)
    [told] = bundle.messages
    assert "expert poems has no card in" in told
    assert torch.equal(logits(bundle), expected)
    registry.write_text("{")
    with pytest.raises(RegistryError, match="not valid JSON"):
        load(lab, child)
    load(lab, "base")  # nothing is asked of the registry where no expert is attached


@both_kinds
def test_generation_with_and_without_cache_agree(lab: Lab, brain: Callable[..., Path], use_moe: bool) -> None:
    brain(use_moe)
    child = attach_expert("poems", "base", layer="L.0", workspace=lab.workspace)
    bundle = load(lab, attach_expert("prose", child, name="both", workspace=lab.workspace))
    goal = Goals(lab.workspace).add("Rhyme", expert_id="poems")
    steer(bundle, goals=[goal.id], workspace=lab.workspace)
    decoder = Decoder(bundle.model, num_segments=2, batch=4)
    step_by_step = torch.stack([decoder.feed(TOKENS[:, place : place + 1]) for place in range(TOKENS.shape[1])], 1)
    torch.testing.assert_close(step_by_step, logits(bundle), atol=1e-4, rtol=1e-4)


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
    own, bundle = (load_puzzle_bundle(path, device="cpu", workspace=place) for path in (parent, child))
    assert bundle.config.experts_in("H.0") == 4
    inputs, _ = sudokus(2)
    with watch_experts(bundle) as found:
        solve(bundle, inputs)
    assert found[0].token_share is not None
    ExpertRegistry(place).deactivate("digits")
    off = load_puzzle_bundle(child, device="cpu", workspace=place)
    assert answers(off, inputs) == answers(own, inputs)
    with pytest.raises(BundleError, match="it has experts, which the format does not know"):
        export_checkpoint(child, "trm", Path("out/four.pt"), workspace=place)
    back = detach_expert("digits", child, workspace=place)
    assert (back / "model.safetensors").read_bytes() == (parent / "model.safetensors").read_bytes()


def answers(bundle: PuzzleBundle, inputs: Any) -> Any:
    found = solve(bundle, inputs)
    return found.answers.tolist(), found.confidence.tolist()


def test_a_damaged_list_of_experts_is_refused(lab: Lab, brain: Callable[..., Path]) -> None:
    brain()
    child = attach_expert("poems", "base", workspace=lab.workspace)
    [entry] = attached_experts(child)
    metadata = json.loads((child / "metadata.json").read_text())
    for wrong in (replace(entry, column=0), replace(entry, column=2), replace(entry, layer="H.9")):
        (child / "metadata.json").write_text(json.dumps({**metadata, "experts": [wrong.__dict__]}))
        with pytest.raises(BundleError, match="where no attached expert is"):
            load(lab, child)
        [problem] = verify_bundle(child)
        assert "where no attached expert is" in problem
    for broken in ("poems", [{"expert_id": "poems"}], [1]):
        (child / "metadata.json").write_text(json.dumps({**metadata, "experts": broken}))
        with pytest.raises(BundleError, match="list of experts is damaged"):
            load(lab, child)


def test_nothing_is_left_when_the_expert_goes_meanwhile(
    lab: Lab, brain: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    parent = brain()
    before = sorted(path.name for path in parent.parent.iterdir())
    registry = ExpertRegistry(lab.workspace)
    monkeypatch.setattr("hrm_engine.bundles.child.seal_bundle", lambda *given: registry.delete("poems"))
    with pytest.raises(RegistryError, match="no expert 'poems'"):
        attach_expert("poems", "base", workspace=lab.workspace)
    monkeypatch.setattr("hrm_engine.bundles.child.seal_bundle", lambda *given: retrain(registry, "prose"))
    with pytest.raises(RegistryError, match="trained further just now"):
        attach_expert("prose", "base", workspace=lab.workspace)
    monkeypatch.setattr("hrm_engine.bundles.child.seal_bundle", lambda *given: touch(parent / "metadata.json"))
    registry.update("prose", sha256=sha256_file(registry.weights("prose")))
    with pytest.raises(BundleError, match="changed while it was read"):
        attach_expert("prose", "base", workspace=lab.workspace)
    assert sorted(path.name for path in parent.parent.iterdir()) == before


def retrain(registry: ExpertRegistry, expert_id: str) -> None:
    registry.update(expert_id, sha256="0" * 64)


def touch(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\n")


def test_two_that_attach_at_once_take_two_names(
    lab: Lab, brain: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    parent = brain()
    names = ["base-poems", "base-poems-2"]

    def somebody_is_quicker(*given: Any) -> None:
        seal_bundle(*given)
        if names:
            (parent.parent / names.pop(0)).mkdir()

    monkeypatch.setattr("hrm_engine.bundles.child.seal_bundle", somebody_is_quicker)
    assert attach_expert("poems", "base", workspace=lab.workspace).name == "base-poems-3"
    names.append("mine")
    with pytest.raises(ConfigError, match="mine exists: choose another --name"):
        attach_expert("poems", "base", name="mine", workspace=lab.workspace)
    assert list((parent.parent / "mine").iterdir()) == []


DELETES = """
import sys, time
from pathlib import Path
from hrm_engine.errors import RegistryError
from hrm_engine.store.expert_cards import ExpertCard
from hrm_engine.store.experts import ExpertRegistry
from hrm_engine.store.paths import Workspace
registry = ExpertRegistry(Workspace(Path(sys.argv[1])))
input()
for number in range(6):
    time.sleep(float(sys.argv[2]) * number)
    try:
        registry.delete(f"e{number}")
        print("deleted", number)
    except RegistryError:
        print("refused", number)
"""


def test_attaching_while_another_process_deletes(lab: Lab, brain: Callable[..., Path]) -> None:
    brain()
    inner = load(lab, "base").config.intermediate_size
    registry = ExpertRegistry(lab.workspace)
    for number in range(6):
        make_expert(lab.workspace, f"e{number}", inner=inner, seed=number)
    command = [sys.executable, "-c", DELETES, str(lab.root), "0.01"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdin is not None
        other.stdin.write("\n")
        other.stdin.flush()
        attached, lost = set[int](), set[int]()
        for number in (5, 4, 3, 2, 1, 0):
            try:
                attach_expert(f"e{number}", "base", workspace=lab.workspace)
                attached.add(number)
            except RegistryError:
                lost.add(number)
        out, _ = other.communicate()
    assert other.returncode == 0
    deleted = {int(line.split()[1]) for line in out.splitlines() if line.startswith("deleted")}
    # one of the two has won, each time, and what is attached has its card
    assert attached | lost == set(range(6))
    assert deleted == lost
    assert {card.expert_id for card in registry.cards()} == {"poems", "prose", *(f"e{number}" for number in attached)}
    for number in range(6):
        found = attached_to(f"e{number}", lab.workspace)
        assert len(found) == (number in attached)
        assert [verify_bundle(path) for path in found] == [[]] * len(found)


def test_shards_and_extra_weights_come_along(lab: Lab, brain: Callable[..., Path]) -> None:
    parent = brain()
    tensors = load_tensors(parent, "model")
    (parent / "model.safetensors").unlink()
    names = save_tensors(parent, "model", tensors, max_shard_bytes=200_000)
    names += save_tensors(parent, "unused", {"x": torch.ones(2)})
    metadata = json.loads((parent / "metadata.json").read_text())
    listed = ["config.json", "tokenizer.json", "training_args.json", *names]
    metadata["files"] = file_entries(parent, listed)
    (parent / "metadata.json").write_text(json.dumps(metadata))
    child = attach_expert("poems", "base", workspace=lab.workspace)
    assert verify_bundle(child) == []
    assert set(json.loads((child / "metadata.json").read_text())["files"]) == {
        "config.json", "model.safetensors", "tokenizer.json", "training_args.json", "unused.safetensors"
    }  # fmt: skip
    assert logits(load(lab, child)).isfinite().all()
