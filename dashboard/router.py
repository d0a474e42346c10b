"""The script that Streamlit runs for each browser: the frame around every page, and the page that the address names."""

from __future__ import annotations

import streamlit as st
from streamlit.runtime.scriptrunner import RerunData, get_script_run_ctx

from dashboard.app_pages.parts import house_style, problem_box
from dashboard.resources import workspace
from dashboard.timers import let_timers_give_way
from hrm_engine.errors import HRMError


def main() -> None:
    """Draw the frame around every page, and the page that the address names."""
    let_timers_give_way()
    st.set_page_config(page_title="HRM Lab", layout="wide", initial_sidebar_state="collapsed")
    house_style()
    names = ("run", "puzzles", "playground", "experts", "goals", "disk")
    others = [st.Page(f"app_pages/{name}.py", title=name.capitalize(), url_path=name) for name in names]
    page = st.navigation([st.Page("app_pages/runs.py", title="Runs", default=True), *others], position="top")
    try:
        workspace()
    except HRMError as problem:
        problem_box("The dashboard cannot be shown.", str(problem))
        st.stop()
    forget_other_page(page.url_path)
    page.run()


def forget_other_page(name: str) -> None:
    """On the way to another page, drop what the timers of the one before have asked for.

    Streamlit 1.67 answers such a request, if it was under way while the page changed, as a run of the old page: the
    browser empties the new page, cannot place what comes next, and stays white. Seen in 4 of 10 clicks on a run while
    a training kept the processor busy.
    """
    before = st.session_state.get("page_shown", name)
    st.session_state["page_shown"] = name
    context = get_script_run_ctx()
    if before == name or context is None or context.script_requests is None:
        return
    # Later requests are refused for fragments that are not stored. Those that wait already are absorbed by a request
    # to draw the whole page; it is obeyed at the next element, where this function has nothing to do any more.
    context.fragment_storage.clear()
    context.script_requests.request_rerun(
        RerunData(query_string=context.query_string, page_script_hash=context.page_script_hash)
    )


if __name__ == "__main__":
    main()
