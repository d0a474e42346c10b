"""Checkpoints of the reference implementations: equal logits as a bundle, and every bit back."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torch import Tensor

from hrm_engine.bundles.exchange.exporting import export_checkpoint, inexpressible
from hrm_engine.bundles.exchange.names import FORMATS
from hrm_engine.bundles.listing import list_bundles, verify_bundle
from hrm_engine.bundles.load import load_bundle
from hrm_engine.bundles.save import seal_bundle
from hrm_engine.config import PuzzleNetworkConfig, resolve_puzzle_core
from hrm_engine.config.exchange import SizesConfig
from hrm_engine.errors import BundleError, ConfigError, DataError
from hrm_engine.models.slots import embed_rows
from hrm_engine.store.paths import Workspace
from lab.cli.app import main
from tests.bundles.their_checkpoints import (
    ARCH,
    CELLS,
    HEADS,
    INNER,
    NAMES,
    VOCAB,
    WIDTH,
    import_as,
    own_bundle,
    save,
    their_tensors,
    workspace,
)
from tests.parity import reference_puzzle as reference


def slow_weights(theirs: dict[str, Tensor]) -> dict[str, Tensor]:
    """Their matrices cut up by hand for the slow re-implementation, in float64."""
    names = {"embed_tokens.embedding_weight": "embed_tokens.weight", "H_init": "z_H_init", "L_init": "z_L_init"}
    names |= {"embed_pos.embedding_weight": "embed_positions.weight", "puzzle_emb.weights": "puzzle_embedding.weight"}
    ours = {names.get(name, name): tensor.double() for name, tensor in theirs.items() if "layers" not in name}
    levels = {
        "H_level": "H_module",
        "L_level": "L_module" if "H_level.layers.0.mlp.down_proj.weight" in theirs else "H_module",
    }
    for name, tensor in theirs.items():
        if "layers" not in name:
            continue
        level, _, number, block, matrix, _ = name.split(".")
        place = f"{levels[level]}.layers.{number}.{'self_attn.mlp' if block == 'mlp_t' else block}."
        wide = tensor.double()
        if matrix == "qkv_proj":
            for part, letter in enumerate("qkv"):
                ours[f"{place}{letter}_proj.weight"] = wide[part * WIDTH : (part + 1) * WIDTH]
        elif matrix == "gate_up_proj":
            half = len(wide) // 2
            ours[place + "gate_proj.weight"], ours[place + "up_proj.weight"] = wide[:half], wide[half:]
        else:
            ours[f"{place}{matrix}.weight"] = wide
    return ours


def slow_results(theirs: dict[str, Tensor], shape: reference.Shape, rows: list[list[int]], segments: int) -> Tensor:
    """Logits (B, C, V) after so many segments, in float64."""
    weights = slow_weights(theirs)
    results = []
    for number, row in enumerate(rows):
        table = weights.get("puzzle_embedding.weight")
        x = reference.input_of(weights, shape, row, None if table is None else table[number])
        [high], [low] = reference.first_states(weights, shape, x)
        for _ in range(segments):
            high, low = reference.segment(weights, shape, high, low, x)
        results.append(high[shape.prefix :] @ weights["lm_head.weight"].T)
    return torch.stack(results)


@torch.no_grad()
def bundle_results(path: Path, workspace: Workspace, rows: list[list[int]], segments: int) -> Tensor:
    """The same from a bundle, computed in float64."""
    core = load_bundle(path, device="cpu", workspace=workspace).model.double()
    puzzle = None if core.puzzle_embedding is None else core.puzzle_embedding(torch.arange(len(rows)))
    x = embed_rows(core, torch.tensor(rows), puzzle)
    context, carry = core.context(torch.arange(core.config.max_seq_len)[None]), core.initial_carry(x)
    for _ in range(segments):
        carry = core.segment(carry, x, context)
    return core.logits(carry.z_h)


__all__ = ["workspace"]

CASES: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    # format, what the checkpoint has, what its network is
    "hrm": ("sapient-hrm", {}, {"arch": "hrm"}),
    "hrm-learned": ("sapient-hrm", {"positions": CELLS + 2, "embedding": 2 * WIDTH}, {"arch": "hrm", "prefix": 2}),
    "hrm-no-embedding": ("sapient-hrm", {"embedding": 0}, {"arch": "hrm", "prefix": 0}),
    "hrm-partial-embedding": ("sapient-hrm", {"embedding": WIDTH + 4}, {"arch": "hrm", "prefix": 2}),
    "trm": ("trm", {}, {"arch": "trm", "prefix": 3}),
    "trm-learned": ("trm", {"positions": CELLS + 3, "embedding": 3 * WIDTH}, {"arch": "trm", "prefix": 3}),
    "trm-mlp": ("trm", {"positions": CELLS + 3, "mlp_t": True}, {"arch": "trm-mlp", "prefix": 3}),
    "trm-no-embedding": ("trm", {"embedding": 0}, {"arch": "trm", "prefix": 0}),
}


PREFIXES = ("model.inner.", "inner.", "", "_orig_mod.")


@pytest.mark.parametrize(
    ("name", "prefix"),
    [*((name, "_orig_mod.model.inner.") for name in CASES), *((n, p) for n in ("hrm", "trm-mlp") for p in PREFIXES)],
)
def test_a_checkpoint_becomes_a_bundle_with_equal_logits_and_comes_back(
    workspace: Workspace, name: str, prefix: str
) -> None:
    kind, has, network = CASES[name]
    theirs = their_tensors(kind, **has)
    path = save(workspace.root / "theirs" / "step_120", theirs, prefix)
    (path.parent / "all_config.yaml").write_text(yaml.safe_dump({"arch": ARCH[kind], "lr": 1e-4}))
    report = import_as(kind, path, workspace, name="solver", sizes=SizesConfig(seq_len=CELLS))
    assert report.assumed == "nothing"
    assert verify_bundle(report.bundle) == []

    arch = ARCH[kind]
    shape = reference.Shape(
        **{"prefix": 1, **network},
        heads=HEADS,
        h_layers=2,
        l_layers=2,
        h_cycles=arch["H_cycles"],
        l_cycles=arch["L_cycles"],
        halt_max_steps=arch["halt_max_steps"],
        positions="learned" if "learned" in name else "rope",
    )
    rows = torch.randint(VOCAB, (3, CELLS), generator=torch.Generator().manual_seed(1)).tolist()
    wanted = slow_results(theirs, shape, rows, 2)
    # the slow sines are of float64, those of the engine of float64 too; weights are the fp32 ones of the file
    torch.testing.assert_close(bundle_results(report.bundle, workspace, rows, 2), wanted, rtol=0, atol=1e-9)

    back = workspace.root / "back" / "step_120"
    export_checkpoint("solver", kind, back, workspace=workspace)
    plain = {key.removeprefix(prefix): tensor for key, tensor in torch.load(path, weights_only=True).items()}
    full = ("_orig_mod." if prefix.startswith("_orig_mod.") else "") + "model.inner."
    again = torch.load(back, weights_only=True)
    assert set(again) == {full + key for key in plain}
    for key, tensor in plain.items():
        assert again[full + key].dtype == tensor.dtype
        assert torch.equal(again[full + key], tensor), key

    # what was exported is imported without a word about it
    second = import_as(kind, back, workspace, name="again", sizes=SizesConfig(seq_len=CELLS))
    assert second.assumed == "nothing"
    first, other = (json.loads((p / "config.json").read_text()) for p in (report.bundle, second.bundle))
    assert first == other


@pytest.mark.parametrize(("kind", "arch"), [("sapient-hrm", "hrm"), ("trm", "trm"), ("trm", "trm-mlp")])
def test_our_own_solver_goes_there_and_comes_back(workspace: Workspace, kind: str, arch: str) -> None:
    bundle = own_bundle(workspace, arch=arch)
    path = workspace.root / "out" / "checkpoint"
    assert main(["bundle", "export", "own", str(path), "--format", kind, "--forward-dtype", "float32"]) == 0
    names = torch.load(path, weights_only=True)
    assert all(name.startswith("_orig_mod.model.inner.") for name in names)
    assert names["_orig_mod.model.inner.q_head.weight"].shape == (2, WIDTH)
    words = ["bundle", "import", str(path), "--format", kind, "--name", "back", "--seq-len", str(CELLS)]
    assert main(words) == 0
    back = workspace.runs / "back"
    first = load_bundle(bundle, device="cpu", workspace=workspace)
    again = load_bundle(back, device="cpu", workspace=workspace)
    assert again.config == first.config
    weights = first.model.state_dict()
    for name, tensor in again.model.state_dict().items():
        assert torch.equal(tensor, weights[name]), name


def test_what_an_imported_bundle_says(workspace: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    path = save(workspace.root / "sudoku" / "step_44", their_tensors("sapient-hrm"))
    words = ["bundle", "import", "sudoku/step_44", "--format", "sapient-hrm", "--name", "theirs", "--seq-len", "9"]
    assert main([*words, "--num-heads", "2"]) == 0
    out = capsys.readouterr().out
    assert "artifacts/runs/theirs" in out
    # what nobody has said is told
    for assumed in ("h_cycles 2", "l_cycles 2", "halt_max_steps 16", "pos_encodings rope"):
        assert assumed in out
    [info] = list_bundles(workspace)
    assert (info.name, info.kind, info.arch, info.step) == ("theirs", "puzzle", "hrm", 44)
    assert (info.state, info.parent, info.problems) == ("finished", str(path), [])
    metadata = json.loads((info.path / "metadata.json").read_text())
    assert metadata["imported"]["format"] == "sapient-hrm"
    assert "num_heads" not in metadata["imported"]["assumed"]
    assert len(metadata["parent"]["sha256"]) == 64
    assert main(["bundle", "verify", "theirs"]) == 0
    assert main(["bundle", "list"]) == 0
    assert "theirs" in capsys.readouterr().out


def make_dataset(folder: Path, *, vocab: int = VOCAB, names: int = NAMES, cells: int = CELLS) -> Path:
    """A dataset in the reference format with one row."""
    split = folder / "train"
    split.mkdir(parents=True)
    info = {"pad_id": 0, "ignore_label_id": 0, "blank_identifier_id": 0, "vocab_size": vocab, "seq_len": cells}
    info |= {"num_puzzle_identifiers": names, "total_groups": 1, "mean_puzzle_examples": 1.0, "sets": ["all"]}
    (split / "dataset.json").write_text(json.dumps(info))
    (folder / "identifiers.json").write_text(json.dumps([f"puzzle {n}" for n in range(names)]))
    for part, values in {"inputs": np.ones((1, cells)), "labels": np.ones((1, cells))}.items():
        np.save(split / f"all__{part}.npy", values.astype(np.uint8))
    for part, numbers in {"puzzle_identifiers": [0], "puzzle_indices": [0, 1], "group_indices": [0, 1]}.items():
        np.save(split / f"all__{part}.npy", np.array(numbers))
    return folder


def test_a_dataset_tells_boards_names_and_length(workspace: Workspace) -> None:
    path = save(workspace.root / "checkpoint", their_tensors("trm"))
    data = make_dataset(workspace.root / "data")
    sizes = SizesConfig(num_heads=HEADS, puzzle_tokens=4)
    report = import_as("trm", path, workspace, name="a", data_path=data, sizes=sizes)
    loaded = load_bundle("a", device="cpu", workspace=workspace)
    assert (loaded.card.puzzle, loaded.card.height, loaded.config.max_seq_len) == ("maze", 3, CELLS + 4)
    assert loaded.card.identifiers == tuple(f"puzzle {n}" for n in range(NAMES))
    assert loaded.config.identifier_width == WIDTH
    assert "h_cycles 3" in report.assumed
    for number, (wrong, words) in enumerate(
        [({"vocab": 7}, "7 tokens: it was trained on another"), ({"names": 6}, "6 identifiers")]
    ):
        other = make_dataset(workspace.root / f"other-{number}", **wrong)
        with pytest.raises(BundleError, match=words):
            import_as("trm", path, workspace, name="b", data_path=other, sizes=sizes)
    with pytest.raises(DataError, match="no dataset"):
        import_as("trm", path, workspace, name="b", data_path=Path("nowhere"))
    with pytest.raises(ConfigError, match=r"--seq-len 8.*have 9 cells"):
        import_as("trm", path, workspace, name="b", data_path=data, sizes=SizesConfig(seq_len=8))
    assert [info.name for info in list_bundles(workspace)] == ["a"]


@pytest.mark.parametrize(
    ("kind", "chosen", "words"),
    [
        ("sapient-hrm", {"arch": "trm"}, "shared_modules is True"),
        ("sapient-hrm", {"q_continue": False}, "halting is q_halt"),
        ("sapient-hrm", {"pos_encodings": "none"}, "pos_encodings is none"),
        ("sapient-hrm", {"puzzle_tokens": 4}, "4 positions for the width of 1"),
        ("sapient-hrm", {"intermediate_size": 100}, "multiples of 256"),
        ("sapient-hrm", {"attention_gate": True}, "attention_gate is True"),
        ("sapient-hrm", {"initial_state": "noise"}, "initial_z_h is noise"),
        ("sapient-hrm", {"damping": 0.9}, "damping is 0.9"),
        ("trm", {"arch": "trm", "num_latents": 2}, "num_latents is 2"),
        ("trm", {"arch": "trm-fast"}, "activation is gated_norm.*mixer_norm is hidden"),
        ("trm", {"arch": "transformer", "halt_max_steps": 1}, "norm is pre"),
        ("trm", {"arch": "transformer", "halt_max_steps": 1}, "no low-level calls"),
    ],
)
def test_networks_that_a_format_cannot_express(kind: Any, chosen: dict[str, Any], words: str) -> None:
    sizes = {"hidden_size": WIDTH, "num_heads": HEADS, "halt_max_steps": 3, "intermediate_size": INNER}
    network = PuzzleNetworkConfig.model_validate({**sizes, **chosen})
    config = resolve_puzzle_core(network, vocab_size=VOCAB, seq_len=CELLS, num_identifiers=NAMES)
    assert re.search(words, "; ".join(inexpressible(config, kind)))


def test_a_text_model_is_no_solver(workspace: Workspace) -> None:
    bundle = own_bundle(workspace)
    content = json.loads((bundle / "config.json").read_text())
    (bundle / "config.json").write_text(json.dumps({**content, "kind": "actv1"}))
    seal_bundle(bundle, "actv1", ["model.safetensors"], {"step": 1})
    with pytest.raises(BundleError, match="of kind 'actv1'"):
        export_checkpoint("own", "sapient-hrm", Path("out"), workspace=workspace)


def test_an_existing_configuration_is_left(workspace: Workspace) -> None:
    own_bundle(workspace)
    other = workspace.root / "out" / "all_config.yaml"
    other.parent.mkdir()
    other.write_text("mine")
    report = export_checkpoint("own", "sapient-hrm", other.with_name("step_1"), workspace=workspace)
    assert report.config_file is None
    assert other.read_text() == "mine"


def test_the_formats_of_the_command_line_are_those_of_the_engine() -> None:
    import typing

    from hrm_engine.config.exchange import Format

    assert typing.get_args(Format) == (*FORMATS, "hf")
