"""Attaching experts on their page and detaching them, and what the Playground does with one that is switched off."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from dashboard.queries.attachments import Taker, takers
from dashboard.queries.bundles import solver_of
from dashboard.resources import puzzle_bundle
from hrm_engine.bundles.core_config import attached_experts
from hrm_engine.bundles.experts import attach_expert
from hrm_engine.bundles.listing import verify_bundle
from hrm_engine.store.experts import ExpertRegistry
from hrm_engine.store.files import write_json
from hrm_engine.store.paths import Workspace
from tests.dashboard.clicks import confirm, labels, press, toasts
from tests.dashboard.reading import assert_clean, texts
from tests.dashboard.registries import add_expert
from tests.tiny_experts import make_expert
from tests.tiny_solvers import save_solver, tiny_solver

OpenApp = Callable[..., AppTest]
BRAIN = "runs/tiny"


@pytest.fixture
def tiny(lab: Workspace) -> Path:
    """A solver with two modules, and an expert ``digits`` that fits into it."""
    solver = save_solver(tiny_solver(arch="hrm"), lab.runs / "tiny")
    write_json(solver / "training_args.json", {"schema_version": 1, "kind": "puzzle"})
    make_expert(lab, "digits", width=32, inner=32)
    return solver


def test_an_expert_is_attached_and_detached(open_app: OpenApp, lab: Workspace, tiny: Path) -> None:
    app = press(open_app("experts", expert="digits"), "Attach")
    assert app.get_by_key("dialog_yes").disabled
    brain = app.get_by_key("brain_for digits")
    assert brain.options == [BRAIN]
    brain.set_value(BRAIN).run()
    layer = app.get_by_key(f"layer_for digits {BRAIN}")
    assert (layer.options, layer.value) == (["H.0", "L.0"], "H.0")
    layer.set_value("L.0").run()
    app = confirm(app)
    made = lab.runs / "tiny-digits"
    assert "`digits` is attached in `tiny-digits`" in toasts(app)
    assert [entry.layer for entry in attached_experts(made)] == ["L.0"]
    assert verify_bundle(made) == []
    assert "runs/tiny-digits" in texts(app)
    assert {metric.label: metric.value for metric in app.metric}["Attached"] == "1"

    app = press(app, "Detach")
    assert "runs/tiny-digits stays as it is" in texts(app)
    app.get_by_key("child_name").input("back").run()
    app = confirm(app)
    assert "`back` is without `digits`" in toasts(app)
    assert (lab.runs / "back" / "model.safetensors").read_bytes() == (tiny / "model.safetensors").read_bytes()
    assert len(attached_experts(made)) == 1


def test_where_it_stands_already_it_is_not_offered(open_app: OpenApp, lab: Workspace, tiny: Path) -> None:
    both = attach_expert("digits", attach_expert("digits", "tiny", workspace=lab), layer="L.0", workspace=lab)
    app = press(open_app("experts", expert="digits"), "Attach")
    box = app.get_by_key("brain_for digits")
    assert sorted(box.options) == [BRAIN, "runs/tiny-digits"]
    box.set_value("runs/tiny-digits").run()
    assert app.get_by_key("layer_for digits runs/tiny-digits").options == ["L.0"]
    app = app.get_by_key("dialog_no").click().run()
    app = app.get_by_key(f"detach digits runs/{both.name}").click().run()
    assert_clean(app)
    layer = app.get_by_key(f"layer_of digits runs/{both.name}")
    assert layer.options == ["H.0", "L.0"]
    layer.set_value("L.0").run()
    confirm(app)
    assert [entry.layer for entry in attached_experts(lab.runs / f"{both.name}-without-digits")] == ["H.0"]


def test_what_cannot_be_attached_says_why(open_app: OpenApp, lab: Workspace, tiny: Path) -> None:
    add_expert(lab, "empty")
    make_expert(lab, "wide", width=48, inner=64)
    app = open_app("experts", expert="empty")
    assert next(button for button in app.button if button.label == "Attach").disabled
    app = press(open_app("experts", expert="wide"), "Attach")
    assert "no finished brain with the sizes of wide (hidden size 48, intermediate size 64)" in texts(app)
    assert app.get_by_key("dialog_yes").disabled
    app = press(open_app("experts", expert="digits"), "Attach")
    app.get_by_key("brain_for digits").set_value(BRAIN)
    app.get_by_key("child_name").input("tiny").run()
    app = confirm(app)
    assert "tiny exists" in texts(app)
    (tiny / "model.safetensors").write_bytes(b"")
    app.get_by_key("child_name").input("other").run()
    app = confirm(app)
    assert "cannot be loaded" in texts(app)
    assert not (lab.runs / "other").exists()


def test_what_goes_meanwhile_is_a_sentence(open_app: OpenApp, lab: Workspace, tiny: Path) -> None:
    made = attach_expert("digits", "tiny", workspace=lab)
    app = press(open_app("experts", expert="digits"), "Detach")
    made.rename(lab.artifacts / ".elsewhere")
    app = app.run()
    assert "digits is not attached to runs/tiny-digits any more" in texts(app)
    app = press(open_app("experts", expert="digits"), "Attach")
    app.get_by_key("brain_for digits").set_value(BRAIN).run()
    ExpertRegistry(lab).delete("digits")
    app = app.get_by_key("dialog_yes").click().run()
    assert_clean(app)
    assert "no expert 'digits'" in texts(app)
    assert "Attach" not in labels(app)


def test_takers_are_the_brains_that_fit(lab: Workspace, tiny: Path) -> None:
    card = ExpertRegistry(lab).get("digits")
    assert takers(card, lab.run_dirs(), lab) == {BRAIN: Taker(tiny, ("H.0", "L.0"), "H.0")}
    low = ExpertRegistry(lab).update("digits", training_config={**card.training_config, "layer": "L.0"})
    assert takers(low, lab.run_dirs(), lab)[BRAIN].default_layer == "L.0"
    assert takers(low.model_copy(update={"training_config": {"hidden_size": 5}}), lab.run_dirs(), lab) == {}
    (tiny / "config.json").write_text("{")
    assert takers(low, lab.run_dirs(), lab) == {}


def test_a_solver_is_loaded_anew_when_its_expert_is_switched_off(lab: Workspace, tiny: Path) -> None:
    registry = ExpertRegistry(lab)
    made = attach_expert("digits", "tiny", workspace=lab)

    def version() -> object:
        solver = solver_of(made, lab)
        assert solver is not None
        return solver.version

    first, plain = version(), solver_of(tiny, lab)
    registry.update("digits", is_frozen=True)
    assert version() == first, "it routes as before"
    registry.update("digits", is_active=False)
    off = version()
    assert off != first
    assert solver_of(tiny, lab) == plain, "no expert is attached to it"
    text = lab.expert_registry.read_text()
    lab.expert_registry.write_text("{")
    assert version() not in (first, off), "loading it says what is wrong"
    lab.expert_registry.write_text(text)
    registry.update("digits", is_active=True)
    assert version() == first


def test_the_playground_thinks_without_an_expert_that_was_switched_off(
    open_app: OpenApp, lab: Workspace, tiny_solver: Path
) -> None:
    inner = json.loads((tiny_solver / "config.json").read_text())["intermediate_size"]
    make_expert(lab, "digits", width=32, inner=inner, column=1.0)
    made = attach_expert("digits", "tiny", workspace=lab)
    app = press(open_app("playground", bundle="runs/tiny-digits"), "Think")
    before = app.session_state["thought"]
    assert puzzle_bundle(made, before.solver.version).model.experts["H.0"].router.steering.tolist() == [0, 0]
    ExpertRegistry(lab).update("digits", is_active=False)
    app = app.run()
    assert "Think shows here" in texts(app), "what it thought then is no answer of now"
    app = press(app, "Think")
    after = app.session_state["thought"]
    router = puzzle_bundle(made, after.solver.version).model.experts["H.0"].router
    assert router.steering.tolist() == [0, float("-inf")]
    plain = press(open_app("playground", bundle=BRAIN), "Think").session_state["thought"]
    halts = [[segment.q_halt for segment in thought.trace.segments] for thought in (before, after, plain)]
    assert halts[0] != halts[2]
    assert halts[1] == halts[2]
