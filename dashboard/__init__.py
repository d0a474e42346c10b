"""The dashboard of HRM Lab: pages that look at run folders.

``lab dashboard`` starts it, or ``streamlit run dashboard/app.py``. It reads files, never a trainer's memory. Importing
this package loads neither streamlit nor duckdb, pandas or plotly; the modules below it that need them do.
"""

from __future__ import annotations
