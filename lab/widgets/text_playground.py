"""Try a text model in a notebook: a prompt, settings, and the text with the depth of each token while it is written."""

from __future__ import annotations

import time
from html import escape
from typing import Any

import ipywidgets

from hrm_engine.bundles.bundle import Bundle
from hrm_engine.config import leaves
from hrm_engine.config.core import MAX_SEGMENTS
from hrm_engine.config.forms import Field, form_field
from hrm_engine.config.writing import WritingConfig
from hrm_engine.data.text.typed import typed_stop_strings
from hrm_engine.errors import HRMError
from hrm_engine.inference import stream
from lab.widgets.text_view import TextView

_REDRAW_S = 0.15
_STYLE = {"description_width": "130px"}


class TextPlayground(ipywidgets.VBox):  # type: ignore[misc]
    """A form over :func:`hrm_engine.generate`; ``Write`` continues the prompt. The last text stays in ``view``.

    Where there is no kernel to press the button for, the page shows the last text that was written.

    Args:
        bundle: the text model.
        prompt: what stands in the form at first.
        write: continue it at once.
    """

    def __init__(self, bundle: Bundle, prompt: str = "The list", *, write: bool = True) -> None:
        self.bundle = bundle
        self.view: TextView | None = None
        self.prompt = ipywidgets.Textarea(prompt, layout=ipywidgets.Layout(width="670px", height="70px"))
        most, segments = bundle.config.max_seq_len - 1, bundle.config.halt_max_steps
        narrower: dict[str, dict[str, Any]] = {
            "max_new_tokens": {"high": most, "value": 60, "label": "tokens"},
            "segments": {"high": max(segments, min(2 * segments, MAX_SEGMENTS)), "value": segments},
            "halt_threshold": {"value": 0.5},
        }
        has_head = bundle.model.halt_head is not None
        names = [name for name in leaves(WritingConfig) if name != "stop" and (has_head or name != "halt_threshold")]
        self.settings: dict[str, Any] = {
            name: _widget(form_field(WritingConfig, name, **narrower.get(name, {}))) for name in names
        }
        self.adaptive = None
        if has_head:
            self.adaptive = ipywidgets.Checkbox(False, description="adaptive depth", layout=_wide(), style=_STYLE)
        self.stop = ipywidgets.Textarea(
            placeholder=r"one a line; \n stands for a line break",
            description="stop strings",
            layout=ipywidgets.Layout(width="670px", height="50px"),
            style=_STYLE,
        )
        self.button = ipywidgets.Button(description="Write", button_style="primary")
        self.shown = ipywidgets.HTML()
        self.button.on_click(lambda _: self.write())
        forms = [*self.settings.values(), *([self.adaptive] if self.adaptive else [])]
        pairs = [ipywidgets.HBox(forms[start : start + 2]) for start in range(0, len(forms), 2)]
        super().__init__([self.prompt, *pairs, self.stop, self.button, self.shown])
        if write:
            self.write()

    def write(self) -> None:
        """Continue the prompt with the settings of the form; what is wrong with them is said in place of the text."""
        how = {name: control.value for name, control in self.settings.items()}
        if self.adaptive is not None and not self.adaptive.value:
            del how["halt_threshold"]
        self.button.disabled = True
        try:
            writing = stream(self.bundle, self.prompt.value, stop=typed_stop_strings(self.stop.value), **how)
            drawn_at = 0.0
            for _ in writing:
                if time.monotonic() - drawn_at > _REDRAW_S:
                    self._show(writing.tokens, writing.depths, writing.num_segments)
                    drawn_at = time.monotonic()
            self._show(writing.tokens, writing.depths, writing.num_segments)
        except HRMError as problem:
            self.view, self.shown.value = None, f"<p>{escape(str(problem))}</p>"
        finally:
            self.button.disabled = False

    def _show(self, tokens: list[str], depths: list[int], num_segments: int) -> None:
        self.view = TextView(tokens, depths, num_segments=num_segments, prompt=self.prompt.value)
        self.shown.value = self.view.html()

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, Any]:
        bundle: dict[str, Any] = super()._repr_mimebundle_(**kwargs)
        return bundle if self.view is None else {**bundle, **self.view._repr_mimebundle_()}


def _wide() -> ipywidgets.Layout:
    """The width of a field; each control has a layout of its own, which is closed with it."""
    return ipywidgets.Layout(width="330px")


def _widget(field: Field) -> Any:
    """The control of a field; its ``value`` is that of the leaf, which is checked when it is used."""
    common = {"description": field.label.lower(), "tooltip": field.help, "layout": _wide(), "style": _STYLE}
    if field.is_slider or field.high is not None:
        kind = ipywidgets.IntSlider if field.is_whole else ipywidgets.FloatSlider
        return kind(value=field.value, min=field.low, max=field.high, step=field.step, **common)
    return (ipywidgets.IntText if field.is_whole else ipywidgets.FloatText)(field.value, **common)
