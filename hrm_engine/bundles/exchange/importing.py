"""Checkpoints of the reference implementations become bundles with equal logits."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hrm_engine.bundles.exchange.checkpoint import CONFIG_FILE, read_arch, read_checkpoint
from hrm_engine.bundles.exchange.names import COMPILED, Format, to_ours, to_theirs
from hrm_engine.bundles.exchange.sizes import core_of
from hrm_engine.bundles.puzzle_card import PuzzleCard
from hrm_engine.bundles.save import write_history, write_model
from hrm_engine.bundles.weights import check_finite, check_shapes, save_tensors
from hrm_engine.config import CoreConfig
from hrm_engine.config.exchange import ImportConfig
from hrm_engine.config.kinds import PUZZLE
from hrm_engine.data.puzzles.description import INFO_FILE, SPLITS, DatasetInfo, derived_about
from hrm_engine.data.puzzles.format import PuzzleDataset, open_dataset
from hrm_engine.errors import BundleError, ConfigError
from hrm_engine.models.core import RecurrentCore
from hrm_engine.store.files import new_folder, sha256_file
from hrm_engine.store.paths import Workspace
from hrm_engine.store.runs import free_folder

UNUSED_STEM = "unused"
"""Weights that TRM keeps and does not use (its value of going on), so that an export gives back every bit."""


@dataclass(frozen=True)
class ImportReport:
    """The bundle made of a checkpoint; ``assumed`` are published settings that nothing has confirmed."""

    bundle: Path
    arch: str
    num_parameters: int
    assumed: str


def import_checkpoint(
    path: Path, kind: Format, *, workspace: Workspace, settings: ImportConfig, command_line: list[str] | None = None
) -> ImportReport:
    """Write the bundle ``artifacts/runs/NAME`` from a checkpoint.

    Its dataset says what its boards are and how its identifiers are called; the sizes go before its configuration.

    Raises:
        BundleError: the checkpoint, its configuration or its sizes are not what the format says; weights are missing
            or too many (all are named), or not finite. ConfigError: the name is taken or not allowed.
        DataError: no such dataset. StorageError: cannot write.
    """
    sizes = settings.sizes
    target = free_folder(workspace.runs, settings.name, "--name")
    path = workspace.resolve(path)
    tensors, prefix = read_checkpoint(path)
    config_file = workspace.resolve(settings.config_file or path.with_name(CONFIG_FILE))
    arch = read_arch(config_file, kind) if settings.config_file is not None or config_file.is_file() else {}
    dataset = None if settings.data_path is None else _open(workspace.resolve(settings.data_path))
    if dataset is not None:
        if sizes.seq_len not in (None, dataset.info.seq_len):
            raise ConfigError(
                f"--seq-len {sizes.seq_len}: the rows of {dataset.folder} have {dataset.info.seq_len} cells"
            )
        sizes = sizes.model_copy(update={"seq_len": dataset.info.seq_len})
    config, assumed = core_of(tensors, kind, sizes=sizes, arch=arch, where=path)
    with torch.device("meta"):
        expected = theirs_of(RecurrentCore(config).state_dict(), config, kind, {})
    if problems := check_shapes(tensors, expected, where=path):
        more = f"; and {len(problems) - 8} more" if len(problems) > 8 else ""
        raise BundleError(f"not a checkpoint of --format {kind}: {'; '.join(problems[:8])}{more}")
    check_finite(tensors, where=str(path))
    card = _card(config, dataset, path)
    ours, unused = _split_unused(to_ours(tensors, kind), config)
    states_dtype = ours["z_H_init"].dtype
    for state in ("z_H_init", "z_L_init"):
        ours[state] = ours[state].to(ours["embed_tokens.weight"].dtype)
    source = {"path": str(path), "sha256": sha256_file(path)}
    origin = {
        "format": kind,
        "is_compiled": prefix.startswith(COMPILED),
        "forward_dtype": str(states_dtype).removeprefix("torch."),
        "assumed": assumed,
    }
    with new_folder(target) as folder:
        files = write_model(folder, PUZZLE.name, config, ours, card)
        if unused:
            files += save_tensors(folder, UNUSED_STEM, unused)
        write_history(folder, PUZZLE.name, source, origin, {"arch": _plain(arch)}, command_line, files)
    count = sum(tensor.numel() for name, tensor in ours.items() if not name.endswith("_init"))
    unconfirmed = ", ".join(f"{name} {value}" for name, value in assumed.items()) or "nothing"
    return ImportReport(target, config.arch, count, unconfirmed)


def theirs_of(tensors: dict[str, Tensor], config: CoreConfig, kind: Format, unused: dict[str, Tensor]) -> Any:
    """Our tensors under their names, with TRM's second Q value, which it has and does not use."""
    if kind == "trm" and config.halting == "q_halt":
        tensors = dict(tensors)
        for name in ("q_head.weight", "q_head.bias"):
            own = tensors[name]
            first = torch.zeros_like(own) if name == "q_head.weight" else torch.full_like(own, -5.0)
            tensors[name] = torch.cat((own, unused.get(name, first).to(own)))
    return to_theirs(tensors, kind)


def _split_unused(tensors: dict[str, Tensor], config: CoreConfig) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    if config.halting != "q_halt":
        return tensors, {}
    names = ("q_head.weight", "q_head.bias")
    unused = {name: tensors[name][1:].clone() for name in names}
    return tensors | {name: tensors[name][:1].clone() for name in names}, unused


def _open(folder: Path) -> PuzzleDataset:
    split = next((split for split in SPLITS if (folder / split / INFO_FILE).is_file()), SPLITS[0])
    return open_dataset(folder, split, check_tokens=False)


def _card(config: CoreConfig, dataset: PuzzleDataset | None, path: Path) -> PuzzleCard:
    if dataset is not None:
        info = dataset.info
        problems = [f"{info.vocab_size} tokens"] if info.vocab_size != config.vocab_size else []
        if config.num_identifiers not in (0, info.num_puzzle_identifiers):
            problems.append(f"{info.num_puzzle_identifiers} identifiers")
        if problems:
            raise BundleError(
                f"{path} has {config.vocab_size} tokens and {config.num_identifiers} identifiers, the dataset "
                f"{dataset.folder} {' and '.join(problems)}: it was trained on another"
            )
        return PuzzleCard.of_dataset(dataset)
    info = DatasetInfo(
        pad_id=0,
        ignore_label_id=0,
        blank_identifier_id=0,
        vocab_size=config.vocab_size,
        seq_len=config.max_seq_len - config.prefix_tokens,
        num_puzzle_identifiers=max(1, config.num_identifiers),
        total_groups=0,
        mean_puzzle_examples=0,
        sets=["all"],
    )
    return PuzzleCard.of(info, derived_about(info))


def _plain(value: Any) -> Any:
    """YAML knows dates, which JSON does not."""
    if isinstance(value, dict):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    return value if isinstance(value, int | float | str | None) else str(value)
