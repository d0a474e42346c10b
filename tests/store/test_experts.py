"""The expert registry: nothing is lost between processes, nothing damaged is overwritten, the tree stays a tree."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hrm_engine.errors import ConfigError, HRMError, LockedError, RegistryError, StorageError
from hrm_engine.store.expert_cards import ExpertCard
from hrm_engine.store.expert_content import REGISTRY_VERSION, RegistryContent
from hrm_engine.store.experts import ExpertRegistry, attached_to
from hrm_engine.store.files import sha256_file, write_json
from hrm_engine.store.goals import Goals
from hrm_engine.store.locks import FolderLock
from hrm_engine.store.paths import Workspace


@pytest.fixture
def registry(workspace: Path) -> ExpertRegistry:
    return ExpertRegistry(Workspace(workspace))


def add(registry: ExpertRegistry, *names: str, **fields: Any) -> None:
    for name in names:
        registry.add(ExpertCard(expert_id=name, **fields))


def with_weights(registry: ExpertRegistry, name: str) -> Path:
    """An expert as a training leaves it."""
    folder = registry.folder(name)
    folder.mkdir(parents=True)
    (folder / "expert.safetensors").write_bytes(b"weights of " + name.encode())
    write_json(folder / "metadata.json", {"schema_version": 1, "expert_id": name})
    weights = folder / "expert.safetensors"
    add(registry, name, checkpoint_path=registry.place(weights), sha256=sha256_file(weights))
    return folder


def attach(workspace: Path, expert_id: str, bundle: str = "runs/with-expert") -> Path:
    folder = workspace / "artifacts" / bundle
    entry = {"expert_id": expert_id, "module": "H", "layer": 0, "column": 8, "sha256": "0" * 64}
    write_json(folder / "training_args.json", {})
    write_json(folder / "metadata.json", {"schema_version": 1, "experts": [entry]})
    return folder


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
        registry.freeze("poems")
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
    assert registry.freeze("poems").is_frozen
    assert registry.freeze("poems").is_frozen
    assert not registry.unfreeze("poems").is_frozen
    assert not registry.deactivate("poems").is_active
    assert registry.activate("poems").is_active


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
        assert again == content


def change_version(content: dict[str, Any], version: object) -> str:
    return json.dumps({**content, "version": version})


DAMAGE: list[tuple[Callable[[str], str], str]] = [
    (lambda text: text[: len(text) // 2], "line"),
    (lambda text: "", "line 1"),
    (lambda text: "\0" * 50, "line 1"),
    (lambda text: "[]", "object"),
    (lambda text: change_version(json.loads(text), REGISTRY_VERSION + 1), "newer"),
    (lambda text: change_version(json.loads(text), "2.0"), "newer"),
    (lambda text: change_version(json.loads(text), [1]), "version"),
    (lambda text: text.replace('"is_frozen": false', '"is_frozen": "perhaps"'), r"experts\[0\]: is_frozen"),
    (lambda text: text.replace('"poems"', '"../poems"'), r"experts\[0\]: expert id '../poems' is not allowed"),
    (lambda text: text.replace('"songs"', '"poems"'), "twice"),
    (lambda text: text.replace('"parent_expert_id": null', '"parent_expert_id": "poems"'), "cycle"),
    (lambda text: text.replace('"parent_expert_id": null', '"parent_expert_id": "gone"'), "'gone'.*does not exist"),
    (lambda text: json.dumps({**json.loads(text), "experts": {}}), "a list is expected"),
    (lambda text: json.dumps({**json.loads(text), "experts": ["x"]}), r"experts\[0\]"),
]


@pytest.mark.parametrize(("damage", "told"), DAMAGE)
def test_a_registry_that_cannot_be_used_is_named_and_kept(
    registry: ExpertRegistry, damage: Callable[[str], str], told: str
) -> None:
    add(registry, "poems", "songs")
    goal = Goals(registry.workspace).add("a goal")
    registry.path.write_text(damage(registry.path.read_text()))
    before = registry.path.read_bytes()
    goals = Goals(registry.workspace)
    for action in (
        lambda: registry.cards(),
        lambda: add(registry, "new"),
        lambda: registry.freeze("poems"),
        lambda: registry.delete("poems"),
        lambda: goals.link_expert(goal.id, "poems"),
    ):
        with pytest.raises(RegistryError, match=told) as caught:
            action()
        assert "registry.json" in str(caught.value)
    assert registry.path.read_bytes() == before


def test_an_older_registry_is_read_and_its_goals_get_numbers(registry: ExpertRegistry) -> None:
    old = {
        "version": "1.0",
        "experts": [
            {
                "expert_id": "test-expert-004",
                "name": "test",
                "goals": ["Improve summarization quality"],
                "checkpoint_path": "artifacts\\experts\\test-expert-004\\expert.safetensors",
            }
        ],
    }
    write_json(registry.path, old)
    (card,) = registry.cards()
    assert card.checkpoint_path == "artifacts/experts/test-expert-004/expert.safetensors"
    assert [(goal.id, goal.text) for goal in card.goals] == [(None, "Improve summarization quality")]
    assert json.loads(registry.path.read_text()) == old
    registry.freeze("test-expert-004")
    (goal,) = Goals(registry.workspace).list_for_expert("test-expert-004")
    assert goal.text == "Improve summarization quality"
    raw = json.loads(registry.path.read_text())
    assert raw["version"] == REGISTRY_VERSION
    assert raw["experts"][0]["goals"] == [{"id": goal.id, "text": goal.text}]
    write_json(registry.path, {"experts": []})
    assert registry.cards() == []


def test_fields_of_others_are_kept(registry: ExpertRegistry) -> None:
    add(registry, "poems")
    raw = json.loads(registry.path.read_text())
    raw["note"] = "ours"
    raw["experts"][0]["colour"] = "blue"
    write_json(registry.path, raw)
    registry.freeze("poems")
    raw = json.loads(registry.path.read_text())
    assert raw["note"] == "ours"
    assert raw["experts"][0]["colour"] == "blue"


def test_deleting_takes_card_goals_and_folder(registry: ExpertRegistry) -> None:
    folder = with_weights(registry, "poems")
    add(registry, "songs")
    goals = Goals(registry.workspace)
    goal = goals.add("rhyme", expert_id="poems")
    assert registry.delete("poems").goals[0].text == "rhyme"
    assert not folder.exists()
    assert [card.expert_id for card in registry.cards()] == ["songs"]
    assert goals.get_expert(goal.id) == []
    add(registry, "poems")
    assert registry.get("poems").goals == ()
    with pytest.raises(RegistryError, match="no expert"):
        registry.delete("gone")


def test_an_attached_expert_is_not_deleted(registry: ExpertRegistry) -> None:
    root = registry.workspace.root
    folder = with_weights(registry, "poems")
    first = attach(root, "poems")
    second = attach(root, "poems", "brains/actv1/second")
    attach(root, "songs", "runs/third")
    for name, text in (("damaged", "{"), ("odd", '{"experts": [1, {}]}'), ("none", '{"experts": 5}')):
        write_json(root / "artifacts" / "runs" / name / "training_args.json", {})
        (root / "artifacts" / "runs" / name / "metadata.json").write_text(text)
    assert attached_to("poems", registry.workspace) == [second, first]
    with pytest.raises(RegistryError, match="attached to artifacts/brains/actv1/second, artifacts/runs/with-expert"):
        registry.delete("poems")
    assert (folder / "expert.safetensors").is_file()
    for bundle in (first, second):
        shutil.rmtree(bundle)
    registry.delete("poems")


def test_an_expert_in_training_is_not_deleted(registry: ExpertRegistry) -> None:
    folder = with_weights(registry, "poems")
    with FolderLock(folder), pytest.raises(LockedError, match="poems"):
        registry.delete("poems")
    assert registry.get("poems").checkpoint_path is not None
    assert (folder / "expert.safetensors").is_file()


def test_a_folder_that_is_a_link_is_not_emptied(registry: ExpertRegistry) -> None:
    other = with_weights(registry, "songs")
    add(registry, "poems")
    (registry.path.parent / "poems").symlink_to(other, target_is_directory=True)
    with pytest.raises(ConfigError, match="is a link"):
        registry.delete("poems")
    assert (other / "expert.safetensors").is_file()


def test_export_copies_what_was_saved_and_overwrites_nothing(registry: ExpertRegistry) -> None:
    folder = with_weights(registry, "poems")
    target = registry.export("poems", Path("out/poems"))
    assert target == registry.workspace.root / "out" / "poems"
    assert sorted(path.name for path in target.iterdir()) == ["expert.safetensors", "metadata.json"]
    assert (target / "expert.safetensors").read_bytes() == b"weights of poems"
    with pytest.raises(ConfigError, match="nothing is overwritten"):
        registry.export("poems", target)
    (folder / "expert.safetensors").write_bytes(b"other weights")
    with pytest.raises(RegistryError, match="not what was saved"):
        registry.export("poems", Path("other"))
    (folder / "metadata.json").unlink()
    with pytest.raises(RegistryError, match=r"metadata.json is missing"):
        registry.export("poems", Path("other"))
    (folder / "expert.safetensors").unlink()
    with pytest.raises(RegistryError, match="weights of expert 'poems' are missing"):
        registry.export("poems", Path("other"))
    add(registry, "songs")
    with pytest.raises(RegistryError, match="no weights yet"):
        registry.export("songs", Path("other"))
    assert not (registry.workspace.root / "other").exists()


def test_a_full_disk_leaves_the_registry_as_it_was(small_disk: Callable[[str], Path]) -> None:
    root = small_disk("256k")
    registry = ExpertRegistry(Workspace(root))
    add(registry, "poems")
    with pytest.raises(StorageError, match="disk is full"):
        registry.update("poems", description="x" * 300_000)
    assert registry.get("poems").description == ""
    assert list(registry.path.parent.glob(".tmp-*")) == []


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(position=st.integers(0, 10**6), byte=st.integers(0, 255))
def test_a_changed_byte_is_read_or_named(registry: ExpertRegistry, position: int, byte: int) -> None:
    if not registry.path.exists():
        add(registry, "poems", "songs")
    whole = registry.path.read_bytes()
    damaged = bytearray(whole)
    damaged[position % len(whole)] = byte
    registry.path.write_bytes(damaged)
    told = "registry.json"
    try:
        registry.cards()
    except HRMError as problem:
        told = str(problem)
    finally:
        registry.path.write_bytes(whole)
    assert "registry.json" in told
