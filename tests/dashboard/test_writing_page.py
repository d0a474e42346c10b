"""Text in the Playground, without a browser; the brain is a real one."""

from __future__ import annotations

import re
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from dashboard.queries.bundles import brain_of, brains
from hrm_engine.bundles.load import load_bundle
from hrm_engine.inference import generate
from hrm_engine.inference.text.reading import read_tokens
from hrm_engine.store.files import read_json, write_json
from hrm_engine.store.goals import Goals
from hrm_engine.store.manifest import write_sealed
from hrm_engine.store.paths import Workspace
from tests.dashboard.clicks import link_of, press
from tests.dashboard.reading import assert_clean, html, markup, texts
from tests.dashboard.registries import HOSTILE, add_expert
from tests.dashboard.run_folders import write_run

OpenApp = Callable[..., AppTest]
BRAIN = "brains/actv1/writer"


def grounds(app: AppTest) -> list[str]:
    """What is said of each coloured token."""
    return re.findall(r'title="token \d+: ([^"]+)"', html(app))


def test_a_workspace_without_brains_says_what_to_do(open_app: OpenApp, lab: Workspace) -> None:
    app = open_app("playground", play="Text")
    assert_clean(app)
    assert "lab run quickstart" in markup(app)
    assert not app.button


def test_writing_shows_the_text_with_the_depth_of_each_token(
    open_app: OpenApp, lab: Workspace, tiny_brain: Path
) -> None:
    app = open_app("playground")
    assert_clean(app)
    assert "hrm-text, 3 segments in training, context of 32 tokens" in texts(app)
    app.get_by_key("prompt").input("the cat").run()
    app.get_by_key(f"tokens {BRAIN}").set_value(8).run()
    app = press(app, "Write")
    found = generate(load_bundle(tiny_brain, workspace=lab), "the cat", max_new_tokens=8)
    assert grounds(app) == ["3 segments of 3"] * sum(map(bool, found.tokens))
    shown = {metric.label: metric.value for metric in app.metric}
    assert (shown["Mean depth"], shown["Tokens"]) == ("3.00", str(found.num_tokens))
    assert "as many tokens as were asked for" in texts(app) or found.finish_reason == "stop"

    # Another rerun keeps what was written; the same seed writes it again.
    before = html(app)
    app.get_by_key("seed").set_value(0).run()
    assert html(app) == before
    assert grounds(press(app, "Write")) == grounds(app)


def test_adaptive_depth_lets_tokens_stop(open_app: OpenApp, tiny_brain: Path) -> None:
    app = open_app("playground", bundle=BRAIN)
    app.get_by_key("adaptive").set_value(True).run()
    app.get_by_key("threshold").set_value(1.0).run()
    app = press(app, "Write")
    assert set(grounds(app)) == {"1 segment of 3"}
    assert {metric.label: metric.value for metric in app.metric}["Mean depth"] == "1.00"


def test_a_stop_string_ends_the_text(open_app: OpenApp, lab: Workspace, tiny_brain: Path) -> None:
    text = generate(load_bundle(tiny_brain, workspace=lab), "The ", max_new_tokens=31).text
    app = open_app("playground")
    app.get_by_key("stop").input(f"no such text\n{text[3:6]}".replace("\n\n", "\n")).run()
    app = press(app, "Write")
    assert "before a stop string" in texts(app)


def test_a_prompt_that_is_too_long_gets_a_sentence(open_app: OpenApp, tiny_brain: Path) -> None:
    app = open_app("playground")
    app.get_by_key("prompt").input("cat " * 200).run()
    app = press(app, "Write")
    assert "The brain cannot continue this" in texts(app)
    assert "the model's context 32" in texts(app)
    assert not grounds(app)
    # An empty prompt begins a document.
    app.get_by_key("prompt").input("").run()
    assert grounds(press(app, "Write"))


def test_hostile_text_is_escaped(open_app: OpenApp, tiny_brain: Path) -> None:
    app = open_app("playground")
    app.get_by_key("prompt").input("<img src=x>").run()
    app = press(app, "Write")
    assert "&lt;img src=x&gt;" in html(app)
    assert "<img" not in html(app)


@pytest.mark.parametrize("damage", ["model.safetensors", "tokenizer.json", "config.json"])
def test_a_damaged_brain_is_a_sentence(open_app: OpenApp, tiny_brain: Path, damage: str) -> None:
    app = open_app("playground")
    (tiny_brain / damage).write_bytes(b"cut")
    app = press(app, "Write") if damage != "config.json" else app.run()
    assert_clean(app)
    expected = "cannot continue this" if damage != "config.json" else ""
    assert expected in texts(app)
    assert not grounds(app)


def test_a_brain_that_vanishes_is_a_sentence(open_app: OpenApp, tiny_brain: Path) -> None:
    app = open_app("playground", bundle=BRAIN)
    shutil.rmtree(tiny_brain)
    app = app.run()
    assert_clean(app)
    assert not grounds(app)


def test_the_link_decides_between_puzzles_and_text(open_app: OpenApp, tiny_brain: Path, tiny_solver: Path) -> None:
    assert open_app("playground").get_by_key("play").value == "Puzzles"
    app = open_app("playground", bundle=BRAIN)
    assert app.get_by_key("play").value == "Text"
    assert_clean(app)
    app.get_by_key("play").set_value("Puzzles").run()
    assert_clean(app)
    assert link_of(app, "bundle") is None
    assert "4 x 4 Sudoku" in texts(app)
    app.get_by_key("play").set_value("Text").run()
    assert_clean(app)
    assert "context of 32 tokens" in texts(app)
    for wanted in ("runs/tiny", "../../etc", "<script>alert(1)</script>"):
        app = open_app("playground", bundle=wanted, play="Text")
        assert_clean(app)
        assert wanted not in markup(app)


def test_goals_of_attached_experts_can_be_chosen(open_app: OpenApp, lab: Workspace, tiny_brain: Path) -> None:
    metadata = read_json(tiny_brain / "metadata.json")
    write_sealed(tiny_brain / "metadata.json", {**metadata, "experts": [{"expert_id": "docs"}, {"expert_id": 3}, 7]})
    add_expert(lab, "docs")
    app = open_app("playground")
    assert_clean(app)
    assert "no goal is served by them" in texts(app)
    Goals(lab).add(HOSTILE, expert_id="docs")
    app = open_app("playground")
    assert_clean(app)
    assert app.multiselect[0].options == [f"1: {HOSTILE}"]
    # The list of experts does not fit this model: a sentence.
    app.multiselect[0].set_value([1]).run()
    app = press(app, "Write")
    assert "cannot continue this" in texts(app)


def test_only_saved_text_models_are_brains(lab: Workspace, tiny_brain: Path, tiny_solver: Path) -> None:
    unsaved = write_run(lab.root, "unsaved", last=10)
    odd = lab.brains / "odd"
    shutil.copytree(tiny_brain, odd)
    (brain, _) = brains([tiny_brain, tiny_solver, unsaved, odd], lab)
    assert (brain.segments, brain.context, brain.experts) == (3, 32, ())
    config = read_json(odd / "config.json")
    for changed in ({"max_seq_len": True}, {"max_seq_len": 1}, {"halt_max_steps": 65}, {"kind": "puzzle"}):
        write_json(odd / "config.json", {**config, **changed})
        assert brain_of(odd, lab) is None
    (odd / "config.json").write_text("[")
    assert brain_of(odd, lab) is None


def test_sessions_write_one_after_another(lab: Workspace, tiny_brain: Path) -> None:
    from dashboard.queries.filecache import signature
    from dashboard.resources import text_bundle

    version = signature(tiny_brain / "metadata.json")
    assert version is not None
    shared = text_bundle(tiny_brain, version)
    assert text_bundle(tiny_brain, version).lock is shared.lock
    with shared.lock:
        other = threading.Thread(target=shared.lock.acquire, daemon=True)
        other.start()
        other.join(0.05)
        assert other.is_alive()
    other.join(5)
    assert not other.is_alive()


def reads(app: AppTest, text: str, threshold: float = 0.5) -> AppTest:
    """The brain reads a text."""
    app.get_by_key("mode").set_value("Read").run()
    app.get_by_key("read_text").input(text).run()
    app.get_by_key("read_threshold").set_value(threshold).run()
    return press(app, "Read")


@pytest.mark.parametrize("threshold", [0.0, 0.5, 1.0])
def test_a_given_text_is_read(open_app: OpenApp, lab: Workspace, tiny_brain: Path, threshold: float) -> None:
    text = "the cat <b>runs</b>"
    app = reads(open_app("playground"), text, threshold)
    tokens = read_tokens(load_bundle(tiny_brain, workspace=lab), text, halt_threshold=threshold)
    assert grounds(app) == [
        f"{token.depth} segment{'s' * (token.depth > 1)} of 3, loss {token.loss:.3f}" for token in tokens if token.text
    ]
    assert "&lt;" in html(app)
    assert "<b>" not in html(app)
    mean = [sum(values) / len(tokens) for values in zip(*((one.depth, one.loss) for one in tokens), strict=True)]
    assert {metric.label: metric.value for metric in app.metric} == {
        "Mean depth": f"{mean[0]:.2f}",
        "Mean loss": f"{mean[1]:.3f}",
        "Tokens": str(len(tokens)),
    }
    # Another rerun keeps it, and writing has a page of its own.
    before = html(app)
    assert html(app.run()) == before
    app.get_by_key("mode").set_value("Write").run()
    assert_clean(app)
    assert not grounds(app)


def test_goals_of_a_written_text_are_not_read_with(
    open_app: OpenApp, lab: Workspace, tiny_brain: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[dict[str, object]] = []
    monkeypatch.setattr("hrm_engine.bundles.steering.steer", lambda bundle, **how: given.append(how) or [])
    reads(open_app("playground"), "the cat")
    assert given == [{"workspace": lab}]


def test_what_cannot_be_read_is_a_sentence(open_app: OpenApp, tiny_brain: Path) -> None:
    app = reads(open_app("playground"), "cat " * 200)
    assert "The brain cannot read this: the text has" in texts(app)
    assert "the model's context 32" in texts(app)
    assert not grounds(app)
    assert "There is no text to read" in texts(reads(app, ""))


def test_a_damaged_brain_cannot_read(open_app: OpenApp, tiny_brain: Path) -> None:
    (tiny_brain / "model.safetensors").write_bytes(b"cut")
    app = reads(open_app("playground"), "the cat")
    assert "The brain cannot read this" in texts(app)
    assert not grounds(app)


def test_a_brain_of_one_segment_has_no_depth_to_look_at(open_app: OpenApp, tiny_brain: Path) -> None:
    write_json(tiny_brain / "config.json", {**read_json(tiny_brain / "config.json"), "halt_max_steps": 1})
    app = open_app("playground")
    app.get_by_key("mode").set_value("Read").run()
    assert_clean(app)
    assert "one segment at every token" in texts(app)
    assert "Read" not in [button.label for button in app.button]
