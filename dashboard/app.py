"""The dashboard as a server: run it with ``lab dashboard``, or ``streamlit run dashboard/app.py`` from anywhere.

On a laptop with nothing trained yet: ``make demo``, then ``make dashboard``. ``router.py`` has what a browser shows.
"""

from __future__ import annotations

import sys
from typing import Any

import streamlit as st

from dashboard.server import OnlyHere, check_address
from hrm_engine.errors import ConfigError

try:
    # Someone may call streamlit by hand with another address; that must not lay the workspace open either.
    check_address(st.get_option("server.address") or "0.0.0.0", option="--server.address")
except ConfigError as problem:
    print(f"error: {problem}", file=sys.stderr)
    raise SystemExit(problem.exit_code) from None

# Streamlit looks for this line, and serves what bears the name in the end.
app: Any = st.App("router.py")
app = OnlyHere(app)
