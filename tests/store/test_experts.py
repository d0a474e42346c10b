"""The expert registry: cards, what may be changed of them, and a tree that stays a tree."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hrm_engine.errors import (
    ConfigError,
    RegistryError,
)
from hrm_engine.store.expert_cards import ExpertCard
from hrm_engine.store.expert_content import REGISTRY_VERSION, RegistryContent
from hrm_engine.store.experts import ExpertRegistry
from hrm_engine.store.files import write_json
from tests.store.registries import add


def test_a_card_is_written_with_all_its_fields(registry: ExpertRegistry) -> None:
    registry.add(ExpertCard(expert_id="poems", name="Poems"), base_model="artifacts/hf_implant/base_model")
    raw = json.loads(registry.path.read_text())
    assert raw["version"] == REGISTRY_VERSION
    assert raw["base_model"] == "artifacts/hf_implant/base_model"
    assert raw["created_at"]
    assert set(raw["experts"][0]) == {
        "expert_id",
        "name",
        "description",
        "category",
        "goals",
        "created_at",
        "last_trained",
        "training_datasets",
        "performance_metrics",
        "total_activations",
        "avg_routing_weight",
        "is_active",
        "is_frozen",
        "parent_expert_id",
        "child_expert_ids",
        "model_architecture",
        "checkpoint_path",
        "training_config",
        "sha256",
    }
    assert registry.get("poems").name == "Poems"
    assert list(registry.path.parent.glob(".tmp-*")) == []


def test_reading_an_empty_workspace_writes_nothing(registry: ExpertRegistry) -> None:
    assert registry.cards() == []
    assert not registry.path.parent.exists()
    with pytest.raises(RegistryError, match="none yet"):
        registry.update("poems", is_frozen=True)
    assert not registry.path.exists()


def test_what_a_training_reports_stands_on_the_card(registry: ExpertRegistry) -> None:
    add(registry, "poems")
    card = registry.update(
        "poems",
        last_trained="2026-03-01T12:00:00.000+00:00",
        training_datasets=["training_data/poems.txt"],
        performance_metrics={"loss_with": 2.0, "loss_without": float("nan")},
        checkpoint_path="artifacts\\experts\\poems\\expert.safetensors",
        training_config={"hidden_size": 64, "base": {"path": "artifacts/runs/base", "sha256": "0" * 64}},
        sha256="a" * 64,
    )
    assert card.checkpoint_path == "artifacts/experts/poems/expert.safetensors"
    assert registry.get("poems") == ExpertCard.model_validate(card.dump())
    assert registry.get("poems").performance_metrics == {"loss_with": 2.0, "loss_without": None}
    with registry.changing() as content:
        content.update("poems", total_activations=content.get("poems").total_activations + 512)
    assert registry.get("poems").total_activations == 512


def test_states_can_be_set_twice(registry: ExpertRegistry) -> None:
    add(registry, "poems")
    assert registry.update("poems", is_frozen=True).is_frozen
    assert registry.update("poems", is_frozen=True).is_frozen
    assert not registry.update("poems", is_frozen=False).is_frozen
    assert not registry.update("poems", is_active=False).is_active
    assert registry.update("poems", is_active=True).is_active


@pytest.mark.parametrize(
    "name",
    [
        "",
        "Poems",
        "../poems",
        "a/b",
        "a\\b",
        ".hidden",
        "-x",
        "a b",
        "ä",
        "a\0",
        "a\n",
        "x" * 65,
        "%2e",
        "registry.json",
    ],
)
def test_ids_that_no_expert_can_have(registry: ExpertRegistry, name: str) -> None:
    for action in (
        lambda: add(registry, name),
        lambda: registry.get(name),
        lambda: registry.folder(name),
        lambda: registry.delete(name),
    ):
        with pytest.raises(ConfigError, match="expert id"):
            action()
    assert not registry.path.exists()


@pytest.mark.parametrize(
    "path", ["/etc/passwd", "../out", "artifacts/../../out", "C:\\x", "\\\\host\\x", "a//b", "a\0b"]
)
def test_weights_are_inside_the_workspace(registry: ExpertRegistry, path: str) -> None:
    add(registry, "poems")
    with pytest.raises(RegistryError, match="inside the workspace"):
        registry.update("poems", checkpoint_path=path)
    raw = json.loads(registry.path.read_text())
    raw["experts"][0]["checkpoint_path"] = path
    write_json(registry.path, raw)
    with pytest.raises(RegistryError, match=r"experts\[0\]: checkpoint_path: .*inside the workspace"):
        registry.cards()


def test_weights_behind_a_link_that_leads_out_are_refused(registry: ExpertRegistry, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("x")
    folder = registry.folder("poems")
    folder.mkdir(parents=True)
    (folder / "expert.safetensors").symlink_to(tmp_path / "secret")
    add(registry, "poems", checkpoint_path="artifacts/experts/poems/expert.safetensors")
    with pytest.raises(ConfigError, match="leads out"):
        registry.export("poems", tmp_path / "copy")
    with pytest.raises(ConfigError, match="leads out"):
        registry.place(folder / "expert.safetensors")


def test_an_unknown_expert_is_answered_with_near_matches(registry: ExpertRegistry) -> None:
    add(registry, "test-expert-004", "poems")
    with pytest.raises(RegistryError, match=r"Did you mean test-expert-004\?"):
        registry.get("test-expert-04")
    with pytest.raises(RegistryError, match="Experts: test-expert-004, poems"):
        registry.get("zzz")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"is_frosen": True}, "no field 'is_frosen'. Did you mean is_frozen"),
        ({"expert_id": "other"}, "keeps its id"),
        ({"goals": []}, "link-expert"),
        ({"parent_expert_id": "poems"}, "set_parent"),
        ({"child_expert_ids": []}, "set_parent"),
        ({"total_activations": -1}, "total_activations"),
        ({"avg_routing_weight": float("nan")}, "avg_routing_weight"),
        ({"sha256": "xyz"}, "sha256"),
    ],
)
def test_changes_that_are_refused(registry: ExpertRegistry, change: dict[str, Any], told: str) -> None:
    add(registry, "poems")
    before = registry.path.read_bytes()
    with pytest.raises(RegistryError, match=told):
        registry.update("poems", **change)
    assert registry.path.read_bytes() == before


def test_additions_that_are_refused(registry: ExpertRegistry) -> None:
    add(registry, "poems")
    with pytest.raises(RegistryError, match="already"):
        add(registry, "poems")
    with pytest.raises(RegistryError, match="no field 'nmae'. Did you mean name"):
        add(registry, "other", nmae="x")
    with pytest.raises(RegistryError, match="no expert 'nobody'"):
        add(registry, "other", parent_expert_id="nobody")
    with pytest.raises(RegistryError, match="goals must be empty"):
        add(registry, "other", goals=["a goal"])
    assert [card.expert_id for card in registry.cards()] == ["poems"]


def test_parents_and_children_are_two_sides_of_one_thing(registry: ExpertRegistry) -> None:
    add(registry, "root", "branch", "leaf")
    registry.set_parent("branch", "root")
    registry.set_parent("leaf", "branch")
    for child, parent in (("root", "leaf"), ("root", "root"), ("branch", "leaf")):
        with pytest.raises(RegistryError, match="cycle"):
            registry.set_parent(child, parent)
    assert registry.get("root").child_expert_ids == ("branch",)
    with pytest.raises(RegistryError, match=r"children \(leaf\).*--reparent"):
        registry.delete("branch")
    registry.delete("branch", reparent=True)
    assert registry.get("root").child_expert_ids == ("leaf",)
    assert registry.get("leaf").parent_expert_id == "root"
    registry.set_parent("leaf", None)
    assert registry.get("root").child_expert_ids == ()


IDS = ("a", "b", "c", "d", "e")


OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.sampled_from(IDS), st.sampled_from((*IDS, None))),
        st.tuples(st.just("set_parent"), st.sampled_from(IDS), st.sampled_from((*IDS, None))),
        st.tuples(st.just("remove"), st.sampled_from(IDS), st.booleans()),
    ),
    max_size=30,
)


@given(OPERATIONS)
def test_any_order_of_changes_keeps_the_tree_a_tree(operations: list[tuple[str, str, Any]]) -> None:
    content = RegistryContent.empty(Path("registry.json"))
    for name, expert_id, argument in operations:
        try:
            if name == "add":
                content.add(ExpertCard(expert_id=expert_id, parent_expert_id=argument))
            elif name == "set_parent":
                content.set_parent(expert_id, argument)
            else:
                content.remove(expert_id, reparent=argument)
        except RegistryError:
            pass
        for card in content.cards:
            ancestors = [card]
            while (parent := ancestors[-1].parent_expert_id) is not None:
                assert parent in content
                assert len(ancestors) <= len(content.cards)
                ancestors.append(content.get(parent))
            children = [other.expert_id for other in content.cards if other.parent_expert_id == card.expert_id]
            assert sorted(card.child_expert_ids) == sorted(children)
        again = RegistryContent.parse(json.loads(content.to_json()), content.where)
        assert again.to_json() == content.to_json()
