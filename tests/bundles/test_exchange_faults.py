"""Checkpoints that cannot be imported, and what is said about them; nothing in them is executed."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from hrm_engine.errors import BundleError
from hrm_engine.store.paths import Workspace
from lab.cli.app import main
from tests.bundles.their_checkpoints import ARCH, SIZES, WIDTH, import_as, own_bundle, save, their_tensors, workspace

__all__ = ["workspace"]


def without(name: str) -> Callable[[dict[str, Any]], object]:
    return lambda tensors: tensors.pop(name)


def replaced(name: str, value: object) -> Callable[[dict[str, Any]], object]:
    return lambda tensors: tensors.update({name: value})


DAMAGE: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "no-head": (without("lm_head.weight"), r"lm_head\.weight is missing"),
    "no-attention": (
        without("H_level.layers.1.self_attn.qkv_proj.weight"),
        r"H_level\.layers\.1\.self_attn\.qkv_proj\.weight is missing",
    ),
    "no-state": (without("L_init"), "L_init is missing"),
    "no-inner": (without("L_level.layers.0.mlp.down_proj.weight"), r"mlp\.down_proj\.weight is missing"),
    "one-more": (replaced("H_level.layers.0.extra.weight", torch.ones(2)), r"extra\.weight is not part of this model"),
    "shape": (replaced("q_head.weight", torch.ones(3, WIDTH)), r"q_head\.weight has shape \(3, 16\), the model needs"),
    "infinite": (
        replaced("q_head.bias", torch.tensor([0.0, torch.inf])),
        r"1 of the 2 numbers of q_head\.bias are NaN",
    ),
    "dimensions": (replaced("embed_tokens.embedding_weight", torch.ones(3)), "two dimensions are needed"),
    "integers": (replaced("lm_head.weight", torch.ones(2, 2, dtype=torch.int32)), "not a plain tensor of floating"),
    "a-number": (replaced("step", 7), "'step' is not a plain tensor|step' is not a plain tensor"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_weights_that_do_not_fit_are_named(workspace: Workspace, name: str) -> None:
    damage, words = DAMAGE[name]
    tensors: dict[str, Any] = their_tensors("sapient-hrm")
    damage(tensors)
    path = save(workspace.root / "checkpoint", tensors)
    with pytest.raises(BundleError, match=words) as raised:
        import_as("sapient-hrm", path, workspace, name="x", sizes=SIZES)
    assert str(path) in str(raised.value)
    assert not workspace.runs.exists() or not list(workspace.runs.iterdir())


class Runs:
    """What a pickle can carry."""

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("ran"),)


def test_nothing_in_a_file_is_executed(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(workspace.root)
    path = workspace.root / "evil"
    for content in (lambda: torch.save({"embed": Runs()}, path), lambda: path.write_bytes(pickle.dumps(Runs()))):
        content()
        with pytest.raises(BundleError, match="holds more than weights, or is damaged.*can run programs"):
            import_as("trm", path, workspace, name="x", sizes=SIZES)
        assert not (workspace.root / "ran").exists()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "torch.load can read"),
        (b"no checkpoint at all", "more than weights, or is damaged"),
        (b"PK\x03\x04" + bytes(100), "torch.load can read|damaged"),
    ],
)
def test_other_files_are_refused(workspace: Workspace, content: bytes, words: str) -> None:
    path = workspace.root / "file"
    path.write_bytes(content)
    with pytest.raises(BundleError, match=words):
        import_as("trm", path, workspace, name="x", sizes=SIZES)


def test_a_small_file_that_would_fill_the_memory_is_refused(workspace: Workspace) -> None:
    path = workspace.root / "checkpoint"
    one = torch.zeros(1)
    save(path, {name: one.expand(1 << 20, 1 << 10) for name in ("embed_tokens.embedding_weight", "lm_head.weight")})
    with pytest.raises(BundleError, match=r"its tensors would need \d,\d{3},\d{3},\d{3}: it names the same numbers"):
        import_as("trm", path, workspace, name="x", sizes=SIZES)
    save(path, {"embed_tokens.embedding_weight": torch.zeros(1 << 20)})
    packed = workspace.root / "packed"
    with zipfile.ZipFile(path) as plain, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for part in plain.infolist():
            archive.writestr(part.filename, plain.read(part))
    with pytest.raises(BundleError, match=r"packed tighter than torch\.save packs"):
        import_as("trm", packed, workspace, name="x", sizes=SIZES)
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    with pytest.raises(BundleError, match="pointer of Git LFS"):
        import_as("trm", path, workspace, name="x", sizes=SIZES)


def test_a_cut_off_checkpoint_is_refused(workspace: Workspace) -> None:
    path = save(workspace.root / "checkpoint", their_tensors("trm"))
    whole = path.read_bytes()
    for size in (10, len(whole) // 2, len(whole) - 10):
        path.write_bytes(whole[:size])
        with pytest.raises(BundleError, match="checkpoint"):
            import_as("trm", path, workspace, name="x", sizes=SIZES)


def test_what_the_command_line_says_of_bad_input(workspace: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    root = workspace.root
    save(root / "hrm" / "checkpoint", their_tensors("sapient-hrm"))
    torch.save([torch.ones(2)], root / "list")
    torch.save({"weight": torch.ones(2)}, root / "other")
    (root / "bad.yaml").write_text("arch: {name: [")
    (root / "no-arch.yaml").write_text("lr: 1")
    (root / "of-trm.yaml").write_text(yaml.safe_dump({"arch": ARCH["trm"]}))
    heads = {**ARCH["sapient-hrm"], "num_heads": "many"}
    (root / "heads.yaml").write_text(yaml.safe_dump({"arch": heads}))
    own_bundle(workspace, "taken")

    def complaint(*words: str) -> str:
        assert main(["bundle", *words]) == 2
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err
        return " ".join(captured.err.split())

    hrm = ("import", "hrm/checkpoint", "--format", "sapient-hrm", "--seq-len", "9", "--num-heads", "2", "--name")
    assert "no such file" in complaint("import", "nowhere", "--format", "trm", "--name", "x")
    assert "it is a folder; name the file in it: checkpoint" in complaint(
        "import", "hrm", "--format", "trm", "--name", "x"
    )
    assert "holds a list" in complaint("import", "list", "--format", "trm", "--name", "x")
    assert "embed_tokens.embedding_weight is missing" in complaint("import", "other", "--format", "trm", "--name", "x")
    assert "Its first names are weight" in complaint("import", "other", "--format", "trm", "--name", "x")
    assert "H_level" in complaint(
        "import", "hrm/checkpoint", "--format", "trm", "--seq-len", "9", "--num-heads", "2", "--name", "x"
    )
    assert "--seq-len (9x9 Sudoku: 81" in complaint(*hrm[:4], "--name", "x")
    assert "exists: choose another --name" in complaint(*hrm, "taken")
    assert "not allowed" in complaint(*hrm, "../up")
    assert "does not give 3 heads" in complaint(*hrm[:6], "--num-heads", "3", "--name", "x")
    assert "not plain YAML" in complaint(*hrm, "x", "--model-config", "bad.yaml")
    assert "no section 'arch'" in complaint(*hrm, "x", "--model-config", "no-arch.yaml")
    assert "--format sapient-hrm reads hrm.hrm_act_v1" in complaint(*hrm, "x", "--model-config", "of-trm.yaml")
    assert "num_heads is 'many'" in complaint(*hrm[:6], "--name", "x", "--model-config", "heads.yaml")
    assert "has 1" in complaint(*hrm, "x", "--puzzle-tokens", "4")
    assert "embed_pos.embedding_weight is missing" in complaint(*hrm, "x", "--pos-encodings", "learned")
    assert "no run" in complaint("export", "nobody", "out", "--format", "trm")
    assert "exists: choose another path" in complaint("export", "taken", "list", "--format", "sapient-hrm")
    assert "shared_modules is False" in complaint("export", "taken", "out", "--format", "trm")
    assert not (root / "out").exists()
    assert [path.name for path in workspace.runs.iterdir()] == ["taken"]
