"""Write the pages that are made from declarations in the code: `python docs/generate.py`, or `make docs`.

flags.md and puzzle-flags.md come from the configuration models, metrics.md from the table of metrics. A test fails when
a page and its declaration differ, so none is edited by hand.
"""

from __future__ import annotations

import types
import typing
from functools import partial
from pathlib import Path

from annotated_types import Ge, Gt, Le, Lt
from pydantic_core import PydanticUndefined

from hrm_engine.config import Leaf, PuzzleTrainConfig, TextTrainConfig, TrainConfig, kinds, leaves
from hrm_engine.config.base import presets_of
from hrm_engine.store.metrics import docs_table

DOCS = Path(__file__).parent
HEAD = "| flag | values | default | resume | meaning |\n|---|---|---|---|---|\n"
NOTE = "<!-- made by docs/generate.py; edit the declaration in the code, then run: make docs -->\n"

FLAGS_INTRO = """# Flags of `lab train {kind}`

Every setting is declared once, in [`hrm_engine/config/`](../hrm_engine/config). The same names are keys of the YAML
files for `--config`, parameters of the library and entries of `training_args.json`; on the command line `--batch-size`
and `--batch_size` are the same flag, and a switch is turned off with `--no-` before its name.

Order of precedence: the default, then `--config NAME|FILE`, then the flags. **R** marks what a run may change when it
goes on with `--resume`; any other difference is refused, naming both values.

Flags that are not settings of the training:

| flag | meaning |
|---|---|
| `--config NAME\\|FILE` | start from a preset or a YAML file. Presets: {presets} |
| `--resume` | continue the run named by `{name_flag}` from its newest valid checkpoint |
| `--allow-changed-data` | with `--resume`: go on although the data is not what it was |
| `--fresh` | begin again under a name that exists; the old folder moves to `.archive/` |
| `--from-checkpoint PATH` | fork: begin with the state and settings of a checkpoint, or of a run's newest |
| `--extend-schedule` | with `--resume` and more `--steps`: recompute the learning rate over all of them |
"""


def flags_page(config: type[TrainConfig]) -> str:
    """One table for each group of a configuration."""
    presets = ", ".join(f"`{name}`" for name in presets_of(config))
    parts = [NOTE, FLAGS_INTRO.format(presets=presets, kind=config.kind, name_flag=kinds.of(config).run.name_flag)]
    group = ""
    for leaf in leaves(config).values():
        if leaf.path[0] != group:
            group = leaf.path[0]
            model = config.model_fields[group].annotation
            parts.append(f"\n## {group}\n\n{model.__doc__}\n\n{HEAD}")
        resume = "R" if leaf.may_change_on_resume else ""
        cells = (f"`{leaf.flag}`", _values(leaf), _default(leaf), resume, leaf.description)
        parts.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n")
    return "".join(parts)


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
    if leaf.default is None:
        return ""
    if isinstance(leaf.default, bool):
        return "on" if leaf.default else "off"
    if isinstance(leaf.default, Path):
        return f"`{leaf.default.as_posix()}`"
    return f"`{leaf.default}`"


PAGES = {
    "flags.md": partial(flags_page, TextTrainConfig),
    "puzzle-flags.md": partial(flags_page, PuzzleTrainConfig),
    "metrics.md": metrics_page,
}


def main() -> None:
    """Write all generated pages."""
    for name, page in PAGES.items():
        (DOCS / name).write_text(page(), encoding="utf8", newline="\n")


if __name__ == "__main__":
    main()
