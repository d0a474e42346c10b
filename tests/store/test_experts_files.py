"""Files of the registry and of experts: damaged, older, deleted, exported, on a full disk."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hrm_engine.errors import (
    ConfigError,
    HRMError,
    LockedError,
    RegistryError,
    StorageError,
)
from hrm_engine.store.expert_content import REGISTRY_VERSION
from hrm_engine.store.experts import ExpertRegistry, attached_to
from hrm_engine.store.files import write_json
from hrm_engine.store.goals import Goals
from hrm_engine.store.locks import FolderLock
from hrm_engine.store.paths import Workspace
from tests.store.registries import add, attach, with_weights


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
        lambda: registry.update("poems", is_frozen=True),
        lambda: registry.delete("poems"),
        lambda: goals.link_expert(goal.id, "poems"),
    ):
        with pytest.raises(RegistryError, match=told) as caught:
            action()
        assert "registry.json" in str(caught.value)
        cures = ("put a copy of the file back", "update HRM Lab")
        assert any(cure in str(caught.value) for cure in cures)
    assert registry.path.read_bytes() == before


def test_a_long_line_of_parents_is_read_at_once(registry: ExpertRegistry) -> None:
    cards = [{"expert_id": f"e{n}", "parent_expert_id": f"e{n + 1}"} for n in range(3000)] + [{"expert_id": "e3000"}]
    registry.path.parent.mkdir(parents=True)
    registry.path.write_text(json.dumps({"version": 1, "experts": cards}))
    assert len(registry.cards()) == 3001
    cards[-1]["parent_expert_id"] = "e0"
    registry.path.write_text(json.dumps({"version": 1, "experts": cards}))
    with pytest.raises(RegistryError, match="form a cycle"):
        registry.cards()


def test_half_a_character_in_a_card_is_kept_readable(registry: ExpertRegistry) -> None:
    add(registry, "poems")
    text = registry.path.read_text().replace('"description": ""', r'"description": "a\ud800b\udc80c"')
    registry.path.write_text(text)
    registry.update("poems", is_frozen=True)
    assert registry.get("poems").description == "a\ufffdb\udc80c"
    assert registry.get("poems").is_frozen


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
    registry.update("test-expert-004", is_frozen=True)
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
    registry.update("poems", is_frozen=True)
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
