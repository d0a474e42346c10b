"""Changing experts, goals and runs from a page: dialogs, what was done, and why something was refused.

An open dialog is remembered in the session and drawn until it is answered, so nothing is lost when the page is drawn
again meanwhile. Every change is a call of the store's own functions, the same that the command line calls.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import streamlit as st

from dashboard.app_pages.parts import sentence
from dashboard.queries.filecache import Signature, signature
from dashboard.resources import workspace
from hrm_engine.errors import HRMError

WATCH_S = 3.0
OPEN_ICON = ":material/arrow_forward:"
"""Of links from something listed to its page."""
_TOGGLE_PIXELS = 112
_DIALOG, _DONE, _REFUSED = "open_dialog", "change_done", "change_refused"

Dialogs = Mapping[str, tuple[str, Callable[..., None]]]
"""Kind of dialog: its title, and what draws it, given the ids that it is about. A HRMError is shown in the dialog."""


def ask(kind: str, *subject: str) -> None:
    """Open the dialog ``kind`` about ``subject`` with the redraw that follows."""
    st.session_state[_DIALOG] = (kind, *subject)


def ask_button(label: str, kind: str, *subject: str, **look: Any) -> None:
    """A button that opens a dialog."""
    action_button(label, partial(ask, kind, *subject), " ".join((kind, *subject)), **look)


def toggle_button(label: str, act: Callable[[], None], key: str) -> None:
    """A button whose label says the opposite after a click. Its place and width stay.

    Otherwise the buttons beside it move while the page is drawn, and a click on one of them, which begins on the button
    and ends beside it, is lost.
    """
    action_button(label, act, key, width=_TOGGLE_PIXELS)


def action_button(label: str, act: Callable[[], None], key: str, **look: Any) -> None:
    """A button about what the page shows; its key names that.

    A page is drawn from above: for a moment the name of what was chosen stands over the buttons of what was shown
    before. A click in that moment does nothing, and says so.
    """
    st.button(label, on_click=_act_if_shown, args=(act, _shown()), key=key, **look)


def _act_if_shown(act: Callable[[], None], drawn: list[str | None]) -> None:
    if drawn == _shown():
        act()
    else:
        st.session_state[_REFUSED] = "Nothing was done: the page was about to show something else. Click again."


def _shown() -> list[str | None]:
    """What the address says is shown."""
    return [st.query_params.get(name) for name in ("expert", "goal")]


def undo(label: str, kind: str, *subject: str) -> None:
    """A quiet button beside something listed, whose dialog takes it away."""
    ask_button(label, kind, *subject, type="tertiary", icon=":material/link_off:")


def forget() -> None:
    """Close whatever dialog is open."""
    st.session_state.pop(_DIALOG, None)


def open_dialog(dialogs: Dialogs) -> None:
    """Draw the open dialog, if it is one of these."""
    kind, *subject = st.session_state.get(_DIALOG, ("",))
    if kind not in dialogs:
        return
    title, content = dialogs[kind]

    def draw() -> None:
        try:
            content(*subject)
        except HRMError as problem:
            sentence(str(problem), key="sentence_dialog")

    st.dialog(title, on_dismiss=forget)(draw)()


def answer(label: str, change: Callable[[], object], done: str | None = None, *, disabled: bool = False) -> None:
    """The two buttons of a dialog. When the change is made the dialog closes; if it is refused, it says why.

    ``done`` is then said: fixed words, numbers and ids; without it, what ``change`` returns.
    """
    with st.container(horizontal=True):
        is_confirmed = st.button(label, type="primary", key="dialog_yes", disabled=disabled)
        if st.button("Cancel", key="dialog_no"):
            forget()
            st.rerun()
    if is_confirmed:
        result = change()
        st.session_state[_DONE] = str(result) if done is None else done
        forget()
        st.rerun()


def confirmation(label: str, text: str, change: Callable[..., object], done: str) -> Callable[..., None]:
    """A dialog that says what a change means; ``{0}``, ``{1}`` in ``text`` and ``done`` are the ids it is about."""

    def draw(*subject: str) -> None:
        st.text(text.format(*subject))
        answer(label, partial(change, *subject), done.format(*subject))

    return draw


def change_now(change: Callable[[], object], done: str) -> None:
    """Make a change that needs no question; for a button."""
    try:
        change()
    except HRMError as problem:
        st.session_state[_REFUSED] = str(problem)
    else:
        st.session_state[_DONE] = done


def tell() -> None:
    """Say what was done or refused by the click before. ``done`` holds fixed words, numbers and ids only."""
    if done := st.session_state.pop(_DONE, ""):
        st.toast(done)
    if refused := st.session_state.pop(_REFUSED, ""):
        sentence(refused, key="sentence_refused")


def files_seen() -> list[Signature | None]:
    """State of the files that pages of experts and goals show, and of the folders in which a new brain appears."""
    files = workspace()
    return [signature(path) for path in (files.expert_registry, files.goals, files.brains, files.runs)]


def start_watching(seen: list[Signature | None]) -> None:
    """Draw the page again when its files are no longer as they were ``seen``: the command line changes them as well."""

    def watch() -> None:
        if files_seen() != seen and _DIALOG not in st.session_state:
            st.rerun()

    st.fragment(watch, run_every=WATCH_S)()
