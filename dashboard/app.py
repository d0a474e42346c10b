"""The dashboard's router. Run it with ``lab dashboard``, or ``streamlit run dashboard/app.py`` from anywhere.

On a laptop with nothing trained yet: ``make demo``, then ``make dashboard``.
"""

from __future__ import annotations

import streamlit as st

from dashboard.app_pages.parts import house_style, problem_box
from dashboard.resources import workspace
from dashboard.server import check_address
from hrm_engine.errors import HRMError


def main() -> None:
    """Draw the frame around every page, and the page that the address names."""
    st.set_page_config(page_title="HRM Lab", layout="wide", initial_sidebar_state="collapsed")
    house_style()
    page = st.navigation(
        [
            st.Page("app_pages/runs.py", title="Runs", default=True),
            st.Page("app_pages/run.py", title="Run", url_path="run"),
            st.Page("app_pages/puzzles.py", title="Puzzles", url_path="puzzles"),
            st.Page("app_pages/playground.py", title="Playground", url_path="playground"),
            st.Page("app_pages/experts.py", title="Experts", url_path="experts"),
            st.Page("app_pages/goals.py", title="Goals", url_path="goals"),
            st.Page("app_pages/disk.py", title="Disk", url_path="disk"),
        ],
        position="top",
    )
    try:
        # Someone may have called streamlit by hand with another address; that must not lay the workspace open either.
        check_address(st.get_option("server.address") or "0.0.0.0")
        workspace()
    except HRMError as problem:
        problem_box("The dashboard cannot be shown.", str(problem))
        st.stop()
    page.run()


if __name__ == "__main__":
    main()
