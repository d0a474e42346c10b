"""Text in notebooks: tokens by depth, still and while they are written."""

from __future__ import annotations

import pytest
import torch

from hrm_engine.data.text.tokenizer import MIN_VOCAB_SIZE, Tokenizer, train_tokenizer
from hrm_engine.data.text.typed import typed_stop_strings
from hrm_engine.errors import ConfigError
from hrm_engine.inference import generate
from hrm_engine.inference.text.reading import read_tokens
from lab.runner.sanitize import clean_html
from lab.widgets import TextPlayground, TextView
from tests.inference.text.bundles import random_bundle

WIDGET = "application/vnd.jupyter.widget-view+json"


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer(["ab"], vocab_size=MIN_VOCAB_SIZE)


def test_a_generated_text_is_coloured(tokenizer: Tokenizer) -> None:
    found = generate(random_bundle(tokenizer, halt_max_steps=3), "ab", max_new_tokens=12, halt_threshold=0.55)
    view = TextView.of(found)
    shown = view._repr_mimebundle_()
    assert shown["text/html"].count('title="token ') == sum(map(bool, found.tokens))
    assert f"mean {found.mean_depth:.2f} of 3" in shown["text/html"]
    assert shown["text/plain"].startswith("ab")
    # Pages made from notebooks keep colours and what is said when a token is pointed at.
    cleaned = clean_html(shown["text/html"])
    assert cleaned.count("background-color: rgba(") == shown["text/html"].count("background-color: rgba(")
    assert cleaned.count('title="token ') == shown["text/html"].count('title="token ')


def test_the_possible_depth_is_shown_where_no_token_needed_it(tokenizer: Tokenizer) -> None:
    bundle = random_bundle(tokenizer, halt_max_steps=3)
    found = generate(bundle, "ab", max_new_tokens=4, halt_threshold=1.0)
    assert set(found.depths) == {1}
    html = TextView.of(found).html()
    assert "1 segment of 3" in html
    assert "mean 1.00 of 3" in html
    assert "2 segments of 2" in TextView.of(generate(bundle, "ab", max_new_tokens=4, segments=2)).html()


def test_a_given_text_is_coloured(tokenizer: Tokenizer) -> None:
    bundle = random_bundle(tokenizer, halt_max_steps=3)
    tokens = read_tokens(bundle, "ab <b>", halt_threshold=0.55)
    view = TextView.read(bundle, "ab <b>", halt_threshold=0.55)
    assert (view.num_segments, "".join(view.tokens)) == (3, "ab <b>")
    assert view.depths == [token.depth for token in tokens]
    assert f"{tokens[0].depth} segment" in view.html()
    assert f" of 3, loss {tokens[0].loss:.3f}" in view.html()
    mean = f"mean loss {sum(token.loss for token in tokens) / len(tokens):.3f} nats/token"
    assert mean in view.html()
    assert mean in view.text()
    assert "no token" in TextView.read(bundle, "").html()
    with pytest.raises(ConfigError, match="probability from 0"):
        TextView.read(bundle, "ab", halt_threshold=2)
    with pytest.raises(ConfigError, match="the model's context"):
        TextView.read(bundle, "ab" * 400)
    with pytest.raises(ConfigError, match="one segment at every token"):
        TextView.read(random_bundle(tokenizer, halt_max_steps=1), "ab")


def test_depths_that_do_not_fit_are_refused() -> None:
    assert TextView(["a", "b"], [1, 5]).num_segments == 5
    assert "no token" in TextView([], []).html()
    with pytest.raises(ValueError, match="2 tokens and 1 depths"):
        TextView(["a", "b"], [1])
    with pytest.raises(ValueError, match="1 tokens and 2 losses"):
        TextView(["a"], [1], losses=[0.5, 0.5])
    for depth in (0, 4):
        with pytest.raises(ValueError, match="1 to 3 are possible"):
            TextView(["a"], [depth], num_segments=3)


def test_the_form_writes_with_its_settings(tokenizer: Tokenizer) -> None:
    bundle = random_bundle(tokenizer, halt_max_steps=3)
    form = TextPlayground(bundle, "ab")
    expected = generate(bundle, "ab", max_new_tokens=form.settings["max_new_tokens"].value)
    assert form.view is not None
    assert list(form.view.tokens) == expected.tokens
    assert form.view.html() == form.shown.value
    assert form._repr_mimebundle_()["text/html"] == form.view.html()
    assert WIDGET in form._repr_mimebundle_()
    form.settings["seed"].value, form.settings["max_new_tokens"].value = 5, 8
    form.adaptive.value, form.settings["halt_threshold"].value = True, 1.0
    form.button.click()
    assert list(form.view.tokens) == generate(bundle, "ab", max_new_tokens=8, seed=5, halt_threshold=1.0).tokens
    assert set(form.view.depths) == {1}
    assert not form.button.disabled
    form.close_all()


def test_the_form_has_stop_strings_and_top_k(tokenizer: Tokenizer) -> None:
    bundle = random_bundle(tokenizer, halt_max_steps=3)
    form = TextPlayground(bundle, "ab", write=False)
    form.settings["top_k"].value, form.settings["max_new_tokens"].value = 2, 20
    form.button.click()
    assert form.view is not None
    whole = generate(bundle, "ab", max_new_tokens=20, top_k=2)
    assert list(form.view.tokens) == whole.tokens != generate(bundle, "ab", max_new_tokens=20).tokens
    form.stop.value = f"no such text\n\n{whole.text[5:7]}"
    form.button.click()
    assert "".join(form.view.tokens) == whole.text[: whole.text.index(whole.text[5:7])]
    form.settings["top_k"].value = -1
    form.button.click()
    assert "--top-k -1: must be" in form.shown.value
    form.close_all()


def test_what_is_typed_as_stop_strings() -> None:
    assert typed_stop_strings("") == []
    assert typed_stop_strings("END\n\n\\n\\n\n a\\nb") == ["END", "\n\n", " a\nb"]


def test_what_is_wrong_is_said_in_place_of_the_text(tokenizer: Tokenizer) -> None:
    form = TextPlayground(random_bundle(tokenizer), "<b>" * 30, write=False)
    assert form.view is None
    form.button.click()
    assert "the prompt has 91 tokens" in form.shown.value
    assert form.view is None
    assert "text/html" not in form._repr_mimebundle_()
    form.settings["seed"].value, form.prompt.value = -1, "a"
    form.button.click()
    assert "--seed -1: must be" in form.shown.value
    form.close_all()


def test_a_model_of_one_segment_has_no_threshold(tokenizer: Tokenizer) -> None:
    form = TextPlayground(random_bundle(tokenizer, halt_max_steps=1, dtype=torch.float32), "a")
    assert form.adaptive is None
    assert "halt_threshold" not in form.settings
    assert form.view is not None
    form.close_all()
