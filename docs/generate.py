"""Write the pages that are made from declarations in the code: `python docs/generate.py`, or `make docs`.

flags.md and puzzle-flags.md come from the configuration models, metrics.md from the table of metrics. A test fails when
a page and its declaration differ, so none is edited by hand.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Annotated

from annotated_types import Ge, Gt, Le, Lt
from pydantic_core import PydanticUndefined

from hrm_engine.config import Config, Leaf, PuzzleTrainConfig, TextTrainConfig, TrainConfig, leaves
from hrm_engine.config.base import presets_of
from hrm_engine.config.datasets import ArcConfig, ImplantConfig, MazeConfig, PythonDocsConfig, SudokuConfig
from hrm_engine.config.exchange import ExportConfig, ImportConfig
from hrm_engine.config.solving import EvaluatePuzzleConfig, SolveConfig
from hrm_engine.config.training import Beginning, TrialConfig
from hrm_engine.config.writing import EvaluateTextConfig, GenerateConfig
from hrm_engine.store.metric_table import docs_table

DOCS = Path(__file__).parent
HEAD = "| flag | values | default | resume | meaning |\n|---|---|---|---|---|\n"
NOTE = "<!-- made by docs/generate.py; edit the declaration in the code, then run: make docs -->\n"

FLAGS_INTRO = """# Flags of `lab train {kind}`

Every setting is declared once, in [`hrm_engine/config/`](../hrm_engine/config). The same names are keys of the YAML
files for `--config`, parameters of the library and entries of `training_args.json`; on the command line `--batch-size`
and `--batch_size` are the same flag, and a switch is turned off with `--no-` before its name. In a YAML file they stand
in the groups below (`run: {{batch_size: 8}}`) or flat, by the names of the flags (`batch-size: 8`).

Order of precedence: the default, then `--config NAME|FILE`, then the flags. **R** marks what a run may change when it
goes on with `--resume`; any other difference is refused, naming both values. A flag that would do nothing beside the
others is refused, naming what it goes with.

Flags that are not settings of the training:

| flag | meaning |
|---|---|
| `--config NAME\\|FILE` | start from a preset or a YAML file. Presets: {presets} |
"""


def flags_page(config: type[TrainConfig]) -> str:
    """One table for each group of a configuration."""
    presets = ", ".join(f"`{name}`" for name in presets_of(config))
    parts = [NOTE, FLAGS_INTRO.format(presets=presets, kind=config.kind)]
    parts += [_row(_flags(leaf), _meaning(leaf, {})) for leaf in leaves(Beginning).values()]
    group, known = "", leaves(config)
    for leaf in known.values():
        if leaf.path[0] != group:
            group = leaf.path[0]
            model = config.model_fields[group].annotation
            parts.append(f"\n## {group}\n\n{model.__doc__}\n\n{HEAD}")
        resume = "R" if leaf.may_change_on_resume else ""
        parts.append(_row(_flags(leaf), _values(leaf), _default(leaf), resume, _meaning(leaf, known)))
    return "".join(parts)


def text_page() -> str:
    """flags.md: the flags of the text training, then those of every command that is no training."""
    parts = [flags_page(TextTrainConfig), "\n# Flags of other commands\n\n"]
    parts.append("`lab train puzzle` has [a page of its own](puzzle-flags.md); `lab estimate` also takes the\n")
    parts.append("flags of the training that it is about.\n")
    for command, config in COMMANDS.items():
        parts.append(f"\n## {command}\n\n| flag | values | default | meaning |\n|---|---|---|---|\n")
        known = leaves(config)
        parts += [_row(_flags(leaf), _values(leaf), _default(leaf), _meaning(leaf, known)) for leaf in known.values()]
    return "".join(parts)


def _row(*cells: str) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"


def _flags(leaf: Leaf) -> str:
    return ", ".join(f"`--{name.replace('_', '-')}`" for name in (leaf.name, *leaf.aliases))


def _meaning(leaf: Leaf, known: Mapping[str, Leaf]) -> str:
    always = {name for name, other in known.items() if other.default is PydanticUndefined}
    needs = [
        f"{'Not with' if need.but else 'Goes with'} `{need.other}`."
        for need in leaf.needs
        if need.value or need.name not in always
    ]
    return " ".join([leaf.description, *needs])


def metrics_page() -> str:
    """metrics.md: the events and fields of metrics.jsonl."""
    return (
        f"{NOTE}# What stands in `metrics.jsonl`\n\n"
        "One JSON object a line, appended and never changed. A number that is not finite is written as null, and its "
        "name\nis added to `nonfinite`. `--log-file` writes a second copy.\n\n" + docs_table()
    )


def _values(leaf: Leaf) -> str:
    text = " or ".join(dict.fromkeys(_type_words(leaf.annotation)))
    bounds = [
        f"{sign} {getattr(bound, name)}"
        for bound in leaf.field.metadata
        for kind, name, sign in ((Ge, "ge", "≥"), (Gt, "gt", ">"), (Le, "le", "≤"), (Lt, "lt", "<"))
        if isinstance(bound, kind)
    ]
    return f"{text}, {', '.join(bounds)}" if bounds else text


def _type_words(annotation: object) -> list[str]:
    if typing.get_origin(annotation) is Annotated:
        return _type_words(typing.get_args(annotation)[0])
    if typing.get_origin(annotation) is tuple:
        return [f"{word}, several" for word in _type_words(typing.get_args(annotation)[0])]
    if typing.get_origin(annotation) is dict:
        return ["JSON or a Python literal"]
    if typing.get_origin(annotation) is typing.Literal:
        return [f"`{value}`" for value in typing.get_args(annotation)]
    if isinstance(annotation, types.UnionType) or typing.get_origin(annotation) is typing.Union:
        return [word for part in typing.get_args(annotation) if part is not type(None) for word in _type_words(part)]
    words = {bool: "on/off", int: "whole number", float: "number", str: "text", Path: "path"}
    if isinstance(annotation, type) and annotation in words:
        return [words[annotation]]
    raise TypeError(f"docs/generate.py has no word for the type {annotation}")


def _default(leaf: Leaf) -> str:
    if leaf.default is PydanticUndefined:
        return "**required**"
    if leaf.default is None or leaf.default == ():
        return ""
    if isinstance(leaf.default, tuple):
        return ", ".join(f"`{value}`" for value in leaf.default)
    if isinstance(leaf.default, bool):
        return "on" if leaf.default else "off"
    if isinstance(leaf.default, Path):
        return f"`{leaf.default.as_posix()}`"
    return f"`{leaf.default}`"


COMMANDS: dict[str, type[Config]] = {
    "lab estimate": TrialConfig,
    "lab generate": GenerateConfig,
    "lab eval text": EvaluateTextConfig,
    "lab eval puzzle": EvaluatePuzzleConfig,
    "lab solve": SolveConfig,
    "lab bundle import": ImportConfig,
    "lab bundle export": ExportConfig,
    "lab implant": ImplantConfig,
    "lab data build-python-docs": PythonDocsConfig,
    "lab data build-sudoku": SudokuConfig,
    "lab data build-maze": MazeConfig,
    "lab data build-arc": ArcConfig,
}

PAGES = {
    "flags.md": text_page,
    "puzzle-flags.md": partial(flags_page, PuzzleTrainConfig),
    "metrics.md": metrics_page,
}


def main() -> None:
    """Write all generated pages."""
    for name, page in PAGES.items():
        (DOCS / name).write_text(page(), encoding="utf8", newline="\n")


if __name__ == "__main__":
    main()
