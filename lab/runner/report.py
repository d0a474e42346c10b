"""The HTML of an executed notebook: it shows everything offline and runs nothing of what cells put out.

nbconvert makes the page, from outputs that have been cleaned. Scripts of outputs are left out; plotly figures, which
are data, are drawn by the plotly.js of the installed package, which is written once for all runs of a folder. A
content security policy allows this file, one script of ours by its hash, and no request to anywhere else.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Any

from nbconvert.exporters import HTMLExporter
from nbformat import NotebookNode
from traitlets.config import Config

from hrm_engine.store.files import write_text
from lab.cli.console import human_seconds
from lab.runner.record import RunRecord
from lab.runner.sanitize import clean_html

TEMPLATES = Path(__file__).parent / "templates"
PLOTLY_MIME = "application/vnd.plotly.v1+json"
# What a page shows of an output, the first of these that it has. Scripts and widgets are not among them.
_SHOWN = [PLOTLY_MIME, "text/html", "image/svg+xml", "image/png", "image/jpeg", "text/markdown", "text/latex",
          "text/plain"]  # fmt: skip
_SCRIPTS_GO_HERE = "<!--hrm-lab: scripts-->"
_CONTENTS_GO_HERE = "<!--hrm-lab: contents-->"
_HEADING = re.compile(r'<h([1-3]) id="([^"]+)">(.*?)<a class="anchor-link"', re.DOTALL)
_DRAW = """
const clear = "rgba(0,0,0,0)", dark = matchMedia("(prefers-color-scheme: dark)").matches;
for (const script of document.querySelectorAll("script.hrm-figure")) {
  const figure = JSON.parse(script.textContent);
  const place = document.createElement("div");
  script.replaceWith(place);
  if (typeof Plotly === "undefined") {
    place.textContent = "This figure is drawn by LIBRARY, which belongs into the folder above this page.";
    continue;
  }
  const layout = figure.layout;
  if (dark) {
    Object.assign(layout, {paper_bgcolor: clear, plot_bgcolor: clear, font: {...layout.font, color: "#d8dee6"}});
    const axes = new Set(["xaxis", "yaxis", ...Object.keys(layout).filter((name) => /^[xy]axis/.test(name))]);
    for (const axis of axes) layout[axis] = {...layout[axis], gridcolor: "#333c47", zerolinecolor: "#333c47"};
  }
  Plotly.newPlot(place, figure.data, layout, {responsive: true, displaylogo: false});
}
"""


def report_html(notebook: NotebookNode, record: RunRecord) -> str:
    """The page of a run; the failing cell, if there is one, stands at its top.

    Where it has figures, the file of plotly.js is written beside the folder of the run, unless it is there.

    Raises:
        StorageError: that file cannot be written.
    """
    library = _library(notebook.cells, record.folder.parent)
    draw = _DRAW.replace("LIBRARY", library or "")
    failed = record.error.cell if record.error else None
    settings = Config()
    settings.NbConvertBase.display_data_priority = _SHOWN
    settings.HTMLExporter.sanitize_html = True
    settings.HTMLExporter.extra_template_basedirs = [str(TEMPLATES)]
    settings.HTMLExporter.template_name = "report"
    # nbconvert's own cleaning knows neither headings nor paragraphs, and would show their tags as text.
    filters = {
        "clean_html": clean_html,
        "as_script_data": _as_script_data,
        "as_value": _as_value,
        "as_time": _as_time,
        "human_seconds": human_seconds,
    }
    settings.HTMLExporter.filters = filters
    # The states of widgets are for JupyterLab; here they would only make the page heavy.
    metadata = {name: value for name, value in notebook.metadata.items() if name != "widgets"}
    page, _ = HTMLExporter(config=settings).from_notebook_node(
        NotebookNode({**notebook, "metadata": NotebookNode(metadata)}),
        resources={
            "metadata": {"name": record.run_id},
            "policy": _policy([draw] if library else []),
            "run": record,
            "failed_cell": None if failed is None else notebook.cells[failed - 1],
        },
    )
    tags = f'<script src="../{library}"></script>\n<script>{draw}</script>\n' if library else ""
    before, _, after = page.rpartition(_SCRIPTS_GO_HERE)
    above, _, below = before.partition(_CONTENTS_GO_HERE)
    return above + _contents(below) + below + tags + after


def _library(cells: Iterable[NotebookNode], folder: Path) -> str | None:
    """The name of the file of plotly.js in a folder, written if it is not there; None where no cell has a figure."""
    if not any(PLOTLY_MIME in output.get("data", {}) for cell in cells for output in cell.get("outputs", ())):
        return None
    from plotly import __version__
    from plotly.offline import get_plotlyjs

    name = f"plotly-{__version__}.min.js"
    if not (folder / name).is_file():
        write_text(folder / name, get_plotlyjs())
    return name


def _contents(page: str) -> str:
    """Links to the headings of a page; nothing for fewer than three."""
    headings = _HEADING.findall(page)
    if len(headings) < 3:
        return ""
    items = [f'<li class="hrm-level-{level}"><a href="#{anchor}">{text}</a></li>' for level, anchor, text in headings]
    return f'<nav class="hrm-contents" aria-label="Contents"><ul>{"".join(items)}</ul></nav>'


def _policy(scripts: Iterable[str]) -> str:
    hashes = [f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'" for script in scripts]
    allowed = " ".join(["'self'", "file:", *hashes]) if hashes else "'none'"  # a file is not 'self' in every browser
    return (
        "default-src 'none'; style-src 'unsafe-inline'; img-src data: blob:; font-src data:; "
        f"base-uri 'none'; form-action 'none'; script-src {allowed}"
    )


def _as_script_data(value: Any) -> str:
    """JSON that can stand in a script element: without '<' nothing in it can end the element."""
    return json.dumps(value).replace("<", "\\u003c")


def _as_time(text: str) -> str:
    """``1 December 2026, 09:31 UTC``; what is no time in ISO form stays as it is."""
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        return text
    return f"{time.day} {time:%B %Y, %H:%M} {time.tzname() or ''}".strip()


def _as_value(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
