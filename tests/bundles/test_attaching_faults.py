"""Attaching that is refused or disturbed: nothing is left of it, and what is attached has its card."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hrm_engine.bundles.core_config import attached_experts
from hrm_engine.bundles.experts import attach_expert
from hrm_engine.bundles.listing import verify_bundle
from hrm_engine.bundles.save import seal_bundle
from hrm_engine.errors import BundleError, ConfigError, HRMError, RegistryError
from hrm_engine.store.expert_cards import ExpertCard
from hrm_engine.store.experts import ExpertRegistry, attached_to
from hrm_engine.store.files import sha256_file
from hrm_engine.store.manifest import write_sealed
from hrm_engine.store.paths import Workspace
from tests.bundles.brains import load
from tests.tiny_experts import make_expert
from tests.tiny_runs import Lab
from tests.tiny_solvers import save_solver, tiny_solver


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
        ({"expert_id": "prose", "bundle": "nothing"}, BundleError, "no run 'nothing'"),
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


def test_a_damaged_list_of_experts_is_refused(lab: Lab, brain: Callable[..., Path]) -> None:
    brain()
    child = attach_expert("poems", "base", workspace=lab.workspace)
    [entry] = attached_experts(child)
    metadata = json.loads((child / "metadata.json").read_text())
    for wrong in (replace(entry, column=0), replace(entry, column=2), replace(entry, layer="H.9")):
        write_sealed(child / "metadata.json", {**metadata, "experts": [wrong.__dict__]})
        with pytest.raises(BundleError, match="where no attached expert is"):
            load(lab, child)
        [problem] = verify_bundle(child)
        assert "where no attached expert is" in problem
    for broken in ("poems", [{"expert_id": "poems"}], [1]):
        write_sealed(child / "metadata.json", {**metadata, "experts": broken})
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
