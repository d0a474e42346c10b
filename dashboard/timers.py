"""Timers of pages give way to clicks. Streamlit 1.67 lets them run into each other, and what was clicked is lost."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

from streamlit.runtime.app_session import AppSession
from streamlit.runtime.scriptrunner_utils.script_requests import ScriptRequestType

_PART_LIMIT_S = 2.0
_request_rerun = AppSession.request_rerun


def let_timers_give_way() -> None:
    """Let a click and a timer follow each other, in all sessions; other versions of Streamlit are left as they are.

    A click draws the whole page, a timer a part of it, each in a thread. Faults of a busy machine that are mended:

    - A click after a timer: the thread of the part read the address as it was before the click, so that the whole was
      drawn without what had been chosen. The part is ended first.
    - A timer after a click, before the whole has begun: both were merged into the page of the timer. And one when the
      whole has ended: what had not been sent was dropped. The timer is refused; it asks again soon.
    """
    session_class: Any = AppSession
    if version("streamlit").startswith("1.67."):
        session_class.request_rerun = _request_in_turn


def _request_in_turn(session: Any, client_state: Any) -> None:
    runner = session._scriptrunner
    if runner is not None and client_state is not None:
        requests = runner._requests
        latest, has_ended = requests._rerun_data, requests._state is ScriptRequestType.STOP
        if client_state.is_auto_rerun and (has_ended or not latest.fragment_id_queue):
            return
        if latest.is_auto_rerun and not client_state.fragment_id and not has_ended:
            requests.request_stop()
            runner._script_thread.join(_PART_LIMIT_S)
    _request_rerun(session, client_state)
