"""Files and names made to do harm: refused quickly, nothing executed, nothing read or written elsewhere."""

from __future__ import annotations

import io
import json
import os
import pickle
import shutil
import struct
import zipfile
from pathlib import Path
from typing import Any

import pyarrow
import pytest
import torch
from safetensors.torch import save_file

from dashboard.queries.experts import ExpertTable, card_fields, goal_frame, served_goals
from dashboard.queries.folder import parameters
from dashboard.queries.runs import RunIndex
from hrm_engine.bundles.listing import list_bundles, verify_bundle
from hrm_engine.bundles.load import load_bundle
from hrm_engine.config import load_preset
from hrm_engine.errors import BundleError, ConfigError, HRMError
from hrm_engine.starting.implant import starting_point
from hrm_engine.store.expert_cards import ExpertCard
from hrm_engine.store.experts import ExpertRegistry
from hrm_engine.store.goals import Goals
from hrm_engine.store.manifest import file_entries, write_sealed
from lab.cli.app import main
from tests.tiny_runs import TEXT, Forks, Lab


class Bomb:
    """Makes a file when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (str(self.target),))


def pickled(target: Path) -> bytes:
    """A plain pickle that explodes."""
    return pickle.dumps(Bomb(target))


def torch_saved(target: Path) -> bytes:
    """What ``torch.save`` writes, with the bomb inside."""
    buffer = io.BytesIO()
    torch.save({"lm_head.weight": Bomb(target)}, buffer)
    return buffer.getvalue()


def with_header(header: bytes, data: bytes = b"", length: int | None = None) -> bytes:
    """A safetensors file with any header and any length of it."""
    return struct.pack("<Q", len(header) if length is None else length) + header + data


def tensors(**entries: tuple[str, list[int], list[int]]) -> bytes:
    """A safetensors header."""
    return json.dumps(
        {name: {"dtype": d, "shape": s, "data_offsets": o} for name, (d, s, o) in entries.items()}
    ).encode()


def harmful(target: Path) -> dict[str, bytes]:
    """Contents of files that call themselves weights."""
    return {
        "pickle": pickled(target),
        "torch.save": torch_saved(target),
        "pickle that begins like safetensors": with_header(b"{" + pickled(target)),
        "header of an exabyte": with_header(b"{}", length=1 << 60),
        "header longer than the file": with_header(b"{}", length=1 << 20),
        "header of 200 MB": with_header(b"{" + b" " * (200 << 20)),
        "deep header": with_header(b'{"a":' * 100_000),
        "overlapping tensors": with_header(tensors(a=("F32", [2], [0, 8]), b=("F32", [2], [4, 12])), bytes(12)),
        "tensor beyond the end": with_header(tensors(a=("F32", [1000], [0, 4000])), bytes(8)),
        "offsets that go backwards": with_header(tensors(a=("F32", [1], [4, 0])), bytes(4)),
        "shape of 2**80 numbers": with_header(tensors(a=("F32", [1 << 40, 1 << 40], [0, 4])), bytes(4)),
        "negative shape": with_header(tensors(a=("F32", [-1], [0, 4])), bytes(4)),
        "unknown type": with_header(tensors(a=("P64", [1], [0, 4])), bytes(4)),
        "no object": with_header(b"[]"),
        "not UTF-8": with_header(b'{"\xff\xfe": 1}'),
        "empty": b"",
        "zeros": bytes(64),
    }


def test_weights_that_are_none(lab: Lab) -> None:
    target = lab.root / "executed"
    for what, content in harmful(target).items():
        for suffix in (".pt", ".safetensors"):
            file = lab.root / f"weights{suffix}"
            file.write_bytes(content)
            with pytest.raises(BundleError, match=rf"weights{suffix} is not a safetensors file"):
                lab.train("run", student_init=file.name)
            assert not target.exists(), what
            if len(content) > 1 << 20:
                break
    assert not lab.run_dir("run").exists()


def reseal(run_dir: Path) -> None:
    """Give a bundle hashes that fit, as somebody who passes on a harmful one would."""
    metadata = json.loads((run_dir / "metadata.json").read_text())
    metadata["files"] = file_entries(run_dir, [name for name in metadata["files"] if (run_dir / name).exists()])
    write_sealed(run_dir / "metadata.json", metadata)


def test_a_bundle_whose_weights_are_none(lab: Lab) -> None:
    run_dir = lab.train("run", steps=1, eval_batches=0).run_dir
    target = lab.root / "executed"
    for what, content in harmful(target).items():
        (run_dir / "model.safetensors").write_bytes(content)
        reseal(run_dir)
        with pytest.raises(BundleError, match="model.safetensors is not a safetensors file"):
            load_bundle("run", workspace=lab.workspace)
        assert "is not a safetensors file" in verify_bundle(run_dir)[0], what
        assert [info.num_parameters for info in list_bundles(lab.workspace)] == [None]
        assert not target.exists(), what


@pytest.mark.parametrize(
    "index",
    [
        {"weight_map": {"a": "../../../../outside.safetensors"}},
        {"weight_map": {"a": "/etc/passwd"}},
        {"weight_map": {"a": "pytorch_model.bin"}},
        {"weight_map": {"a": 3}},
        {"weight_map": ["model.safetensors"]},
        {"weight_map": None},
        {},
    ],
)
def test_an_index_of_shards_that_leads_elsewhere(lab: Lab, index: dict[str, Any]) -> None:
    run_dir = lab.train("run", steps=1, eval_batches=0).run_dir
    shutil.copy(run_dir / "model.safetensors", lab.root / "outside.safetensors")
    (run_dir / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(BundleError, match="no usable weight_map"):
        load_bundle(run_dir, workspace=lab.workspace)
    assert "no usable weight_map" in verify_bundle(run_dir)[0]
    assert [info.num_parameters for info in list_bundles(lab.workspace)] == [None]


@pytest.mark.parametrize("name", ["../outside.json", "/etc/hostname", "..\\outside.json", "a/../../outside.json", ""])
def test_metadata_that_lists_files_elsewhere(lab: Lab, name: str) -> None:
    run_dir = lab.train("run", steps=1, eval_batches=0).run_dir
    (run_dir.parent / "outside.json").write_text("{}")
    metadata = json.loads((run_dir / "metadata.json").read_text())
    metadata["files"][name] = {"sha256": "0" * 64, "bytes": 2}
    write_sealed(run_dir / "metadata.json", metadata)
    with pytest.raises(BundleError, match=r"cannot be loaded: .*(leads out of the folder|is missing)"):
        load_bundle("run", workspace=lab.workspace)


def test_weights_that_are_a_link_out_of_the_bundle(lab: Lab) -> None:
    run_dir = lab.train("run", steps=1, eval_batches=0).run_dir
    (run_dir / "model.safetensors").rename(lab.root / "outside.safetensors")
    (run_dir / "model.safetensors").symlink_to(lab.root / "outside.safetensors")
    with pytest.raises(BundleError, match=r"'model\.safetensors'.* leads out of the folder"):
        load_bundle("run", workspace=lab.workspace)


@pytest.mark.parametrize(
    "metadata",
    [
        "[]",
        "{",
        '{"schema_version": 1}',
        '{"schema_version": 1, "files": []}',
        '{"schema_version": 1, "files": {"config.json": 3}}',
        '{"schema_version": "1", "files": {}}',
        '{"schema_version": 1, "files": {}, "created": 5, "parent": 7, "step": [], "kind": {}}',
        '{"schema_version": 1e400}',
        "\0" * 100,
    ],
)
def test_damaged_metadata_is_only_a_problem_in_the_list(lab: Lab, metadata: str) -> None:
    lab.train("good", steps=1, eval_batches=0)
    run_dir = lab.train("bad", steps=1, eval_batches=0).run_dir
    (run_dir / "metadata.json").write_text(metadata)
    infos = {info.name: info for info in list_bundles(lab.workspace)}
    assert infos["good"].problems == []
    assert infos["bad"].name == "bad"
    if '"created"' not in metadata:
        assert infos["bad"].problems
        with pytest.raises(BundleError, match="metadata.json|config.json|list of files"):
            load_bundle("bad", workspace=lab.workspace)


def test_names_and_paths_of_bundles(lab: Lab, tmp_path: Path) -> None:
    outside = lab.train("inside", steps=1, eval_batches=0).run_dir.rename(tmp_path / "outside")
    lab.run_dir("link").symlink_to(outside, target_is_directory=True)
    for name in ("a\0b", "x" * 300, "", " ", "%252e%252e", ".archive", "a\n", "é", "link"):
        with pytest.raises(ConfigError, match="not allowed|leads out of"):
            load_bundle(name, workspace=lab.workspace)
    for path in ("../inside", "..\\inside", "/nowhere/at/all", "artifacts/brains/actv1/nobody", "a/../../b"):
        with pytest.raises(BundleError, match="no run"):
            load_bundle(path, workspace=lab.workspace)
    # links are not listed either, and a path that somebody gives on purpose is followed
    assert list_bundles(lab.workspace) == []
    assert load_bundle(outside, workspace=lab.workspace).path == outside


@pytest.mark.parametrize(
    "content",
    [
        "!!python/object/apply:os.mkdir ['{target}']",
        "run: !!python/object/new:os.mkdir ['{target}']",
        "run: {{steps: !!python/name:os.mkdir }}",
        "data: !!python/module:os",
        "- a list",
        "just text",
        "run: [unclosed",
        "run:\n  steps: 5\n\tbad: tab",
        "\0",
    ],
)
def test_presets_with_code_or_without_sense(lab: Lab, forks: Forks, content: str) -> None:
    target = lab.root / "executed"
    preset = lab.root / "preset.yaml"
    preset.write_text(content.format(target=target))
    with pytest.raises(ConfigError, match=r"preset\.yaml"):
        load_preset(preset)
    assert not target.exists()


def test_a_harmful_preset_on_the_command_line(lab: Lab, forks: Forks) -> None:
    (lab.root / "preset.yaml").write_text(f"run: !!python/object/apply:os.mkdir ['{lab.root / 'executed'}']")
    assert forks.run(lab.root, "train", "actv1", "--config", "preset.yaml", "--dataset-file", TEXT) == 2
    assert "preset.yaml, line 1: not plain YAML" in lab.output().replace("\n", " ")
    assert not (lab.root / "executed").exists()


def test_a_base_model_that_needs_code_or_pickle(lab: Lab, source: Path) -> None:
    target = lab.root / "executed"
    model = lab.root / "model"
    shutil.copytree(source / "artifacts" / "hf_implant" / "base_model", model)
    weights = (model / "model.safetensors").read_bytes()

    def attempt() -> HRMError:
        with pytest.raises(ConfigError, match=f"--model {model}") as raised:
            starting_point(str(model), hidden_size=64, workspace=lab.workspace)
        assert not target.exists()
        return raised.value

    (model / "model.safetensors").unlink()
    (model / "pytorch_model.bin").write_bytes(torch_saved(target))
    attempt()
    (model / "model.safetensors").write_bytes(torch_saved(target))
    attempt()
    (model / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    attempt()
    (model / "model.safetensors").write_bytes(weights)
    config = json.loads((model / "config.json").read_text())
    (model / "code.py").write_text(f"import os\nos.mkdir({str(target)!r})\nclass Model: ...\n")
    (model / "config.json").write_text(
        json.dumps(
            {"auto_map": {"AutoConfig": "code.Model", "AutoModelForCausalLM": "code.Model"}, "model_type": "own"}
        )
    )
    attempt()
    (model / "config.json").write_text(json.dumps({**config, "hidden_size": 128}))
    attempt()
    (model / "config.json").write_text("{")
    attempt()
    (model / "config.json").write_text(json.dumps(config))
    save_file({"unrelated.weight": torch.zeros(2)}, model / "model.safetensors", {"format": "pt"})
    assert "hold no model.embed_tokens.weight" in str(attempt())
    (model / "model.safetensors").write_bytes(weights)
    (model / "config.json").write_text(json.dumps(config))
    (model / "tokenizer.json").write_text("{}")
    attempt()


def test_an_archive_is_no_bundle(lab: Lab) -> None:
    with zipfile.ZipFile(lab.root / "bundle.zip", "w") as archive:
        archive.writestr("../escaped.txt", "outside")
    with pytest.raises(BundleError, match="no run"):
        load_bundle(lab.root / "bundle.zip", workspace=lab.workspace)
    with pytest.raises(BundleError, match="is not a safetensors file"):
        lab.train("run", student_init="bundle.zip")
    assert not (lab.root.parent / "escaped.txt").exists()


HALVES = "a\\ud800b\\udc80c\\udfffd"


def test_halves_of_characters_in_any_json(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    """Not even UTF-8 has them, and no terminal, page or file of ours may fail for them."""
    run_dir = lab.trained("run").run_dir
    for name in ("metadata.json", "config.json", "status.json", "training_args.json"):
        text = (run_dir / name).read_text()
        (run_dir / name).write_text(text.replace('"actv1"', f'"{HALVES}"').replace("finished", f"finished {HALVES}"))
    workspace = lab.workspace
    registry, goals = ExpertRegistry(workspace), Goals(workspace)
    registry.add(ExpertCard(expert_id="poems", name="NAME", description="NAME", category="NAME"))
    goals.add("rhyme", expert_id="poems")
    registry.path.write_text(registry.path.read_text().replace("NAME", HALVES))
    for words in (
        ["bundle", "list"],
        *(["bundle", verb, "run"] for verb in ("show", "verify")),
        *(["experts", *verb] for verb in (["list"], ["show", "poems"], ["freeze", "poems"])),
        ["goals", "list"],
    ):
        for more in ([], ["--json"]):
            assert main([*words, *more]) in (0, 2), words
    printed = capsys.readouterr()
    assert "Traceback" not in printed.err
    table = ExpertTable(registry.cards())
    frames = [RunIndex(workspace).refresh().frame(), table.find(), card_fields(registry.get("poems"))]
    for frame in (*frames, goal_frame(served_goals(goals)), parameters(run_dir).frame()):
        pyarrow.Table.from_pandas(frame)  # as a page sends it
    str(table.categories()).encode()
