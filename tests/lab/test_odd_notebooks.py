"""Notebooks as other programs, older versions and accidents leave them: run where that can be, else a sentence."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from hrm_engine.errors import NotebookError
from lab.runner.execute import read_notebook
from lab.runner.parameters import read_parameters
from tests.lab.notebooks import executed, printed, run

CODE = {"cell_type": "code", "source": "x: int = 1", "metadata": {"tags": ["parameters"]}, "outputs": []}
PLAIN = {"cells": [{**CODE, "execution_count": None}], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
VERSION_3 = {
    "metadata": {"name": ""},
    "nbformat": 3,
    "nbformat_minor": 0,
    "worksheets": [
        {"cells": [{"cell_type": "code", "input": ["print(", "'old')"], "language": "python", "outputs": []}]}
    ],
}


def notebook(path: Path, content: object) -> Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def cell(**fields: Any) -> dict[str, Any]:
    return {**PLAIN, "cells": [{**CODE, **fields}]}


@pytest.mark.parametrize(
    "content",
    [
        PLAIN,
        cell(source=["x: int", " = 1\n"]),
        cell(source="x: int = 1  # \ud800"),
        {name: PLAIN[name] for name in ("cells", "nbformat", "nbformat_minor")},
        {**PLAIN, "nbformat_minor": 99},
        {**PLAIN, "metadata": {"kernelspec": {"language": "python"}}},
        {**PLAIN, "cells": [*PLAIN["cells"], {"cell_type": "code"}, {"cell_type": "markdown"}]},
    ],
    ids=str,
)
def test_what_is_left_out_is_made_up_for(tmp_path: Path, content: object) -> None:
    read = read_notebook(notebook(tmp_path / "a.ipynb", content))
    assert read_parameters(read)["x"].default == 1


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("[]", "it has no cells"),
        ("null", "it has no cells"),
        ("{", "not valid JSON"),
        ('{"cells": [], "cells": []}', "'cells' stands twice"),
        ("[" * 100_000, "nested too deep"),
        ({**PLAIN, "cells": None}, "its cells are no list"),
        ({**PLAIN, "cells": [None]}, "its cells are no list"),
        ({**PLAIN, "metadata": []}, "its metadata is no object"),
        ({**PLAIN, "metadata": {"kernelspec": None}}, "is not a notebook that can be run"),
        ({**PLAIN, "nbformat": 99}, "Unsupported nbformat version 99"),
        ({**PLAIN, "nbformat": "4"}, "Unsupported nbformat version 4"),
        ({**VERSION_3, "worksheets": None}, "is not a notebook that can be run"),
        (cell(source=None), "is not a notebook that can be run"),
        (cell(source=[1]), "is not a notebook that can be run"),
        (cell(metadata=None), "is not a notebook that can be run"),
        (cell(metadata={"tags": None}), "is not a notebook that can be run"),
        (cell(outputs=[{"output_type": "odd"}]), "is not a notebook that can be run"),
        (cell(cell_type="odd"), "is not a notebook that can be run"),
        ({**PLAIN, "metadata": {"language_info": {"name": "julia"}}}, "is written in julia"),
    ],
    ids=str,
)
def test_what_is_no_notebook_is_refused(tmp_path: Path, content: object, words: str) -> None:
    file = notebook(tmp_path / "a.ipynb", content)
    with pytest.raises(NotebookError, match=rf"a\.ipynb.*{words}") as caught:
        read_notebook(file)
    assert len(str(caught.value)) < 700


def test_a_notebook_that_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.ipynb")
    with pytest.raises(NotebookError, match="no regular file"):
        read_notebook(tmp_path / "a.ipynb")


def test_a_notebook_of_format_3_runs(workspace: Path) -> None:
    record = run(notebook(workspace / "old.ipynb", VERSION_3), workspace)
    assert record.status == "finished"
    assert [printed(cell) for cell in executed(record).cells] == ["old\n"]
