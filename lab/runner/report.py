"""The HTML of an executed notebook: one file that shows everything offline and runs nothing of what cells put out.

nbconvert makes the page, from outputs that have been cleaned. Scripts of outputs are left out; plotly figures, which
are data, are drawn by plotly.js from the installed package, put into the page once if there is a figure. A content
security policy allows exactly these scripts by their hash and no request to anywhere.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from nbconvert.exporters import HTMLExporter
from nbformat import NotebookNode
from traitlets.config import Config

from lab.runner.record import RunRecord
from lab.runner.sanitize import clean_html

TEMPLATES = Path(__file__).parent / "templates"
PLOTLY_MIME = "application/vnd.plotly.v1+json"
# What a page shows of an output, the first of these that it has. Scripts and widgets are not among them.
_SHOWN = [PLOTLY_MIME, "text/html", "image/svg+xml", "image/png", "image/jpeg", "text/markdown", "text/latex",
          "text/plain"]  # fmt: skip
_SCRIPTS_GO_HERE = "<!--hrm-lab: scripts-->"
_DRAW = """
for (const script of document.querySelectorAll("script.hrm-figure")) {
  const figure = JSON.parse(script.textContent);
  const place = document.createElement("div");
  script.replaceWith(place);
  Plotly.newPlot(place, figure.data, figure.layout, {responsive: true, displaylogo: false});
}
"""


def report_html(notebook: NotebookNode, record: RunRecord) -> str:
    """The page of a run; the failing cell, if there is one, stands at its top."""
    scripts = _scripts(notebook.cells)
    failed = record.error.cell if record.error else None
    settings = Config()
    settings.NbConvertBase.display_data_priority = _SHOWN
    settings.HTMLExporter.sanitize_html = True
    settings.HTMLExporter.extra_template_basedirs = [str(TEMPLATES)]
    settings.HTMLExporter.template_name = "report"
    # nbconvert's own cleaning knows neither headings nor paragraphs, and would show their tags as text.
    filters = {"clean_html": clean_html, "as_script_data": _as_script_data, "as_value": _as_value}
    settings.HTMLExporter.filters = filters
    # The states of widgets are for JupyterLab; here they would only make the page heavy.
    metadata = {name: value for name, value in notebook.metadata.items() if name != "widgets"}
    page, _ = HTMLExporter(config=settings).from_notebook_node(
        NotebookNode({**notebook, "metadata": NotebookNode(metadata)}),
        resources={
            "metadata": {"name": record.run_id},
            "policy": _policy(scripts),
            "run": record,
            "failed_cell": None if failed is None else notebook.cells[failed - 1],
        },
    )
    tags = "".join(f"<script>{script}</script>\n" for script in scripts)
    before, _, after = page.rpartition(_SCRIPTS_GO_HERE)
    return before + tags + after


def _scripts(cells: Iterable[NotebookNode]) -> list[str]:
    """What draws the figures; nothing where there are none."""
    if not any(PLOTLY_MIME in output.get("data", {}) for cell in cells for output in cell.get("outputs", ())):
        return []
    from plotly.offline import get_plotlyjs

    # A script element ends at this tag wherever it stands, also within a string.
    return [get_plotlyjs().replace("</script", "<\\/script"), _DRAW]


def _policy(scripts: Iterable[str]) -> str:
    hashes = [f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'" for script in scripts]
    return (
        "default-src 'none'; style-src 'unsafe-inline'; img-src data: blob:; font-src data:; "
        f"base-uri 'none'; form-action 'none'; script-src {' '.join(hashes) or repr('none')}"
    )


def _as_script_data(value: Any) -> str:
    """JSON that can stand in a script element: without '<' nothing in it can end the element."""
    return json.dumps(value).replace("<", "\\u003c")


def _as_value(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
