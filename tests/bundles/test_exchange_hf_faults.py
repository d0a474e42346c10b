"""What cannot be imported from transformers or written for it, and what is said about it; nothing is left half done."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from hrm_engine.bundles.exchange.hf_export import export_folder
from hrm_engine.bundles.exchange.hf_import import import_model
from hrm_engine.config import TextTrainConfig, build_config
from hrm_engine.errors import BundleError, ConfigError
from hrm_engine.store.paths import Workspace
from hrm_engine.training import train
from lab.cli.app import main
from tests.bundles import their_checkpoints
from tests.bundles.hub_models import TOKENS, own_brain, their_model
from tests.bundles.their_checkpoints import workspace
from tests.tiny_runs import one_thread, text

__all__ = ["one_thread", "workspace"]


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that can be imported."""
    return their_model(tmp_path_factory.mktemp("sound") / "model")


@pytest.fixture
def theirs(workspace: Workspace, sound: Path) -> Iterator[Path]:
    """A copy of it, to be damaged; after the test no bundle may be there, nor a part of one."""
    folder = workspace.root / "theirs"
    shutil.copytree(sound, folder)
    yield folder
    assert not workspace.brains.exists() or not list(workspace.brains.iterdir())


def with_settings(**settings: Any) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        file = folder / "config.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), **settings}))

    return change


def with_weights(change: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Path], object]:
    def damage(folder: Path) -> None:
        tensors = load_file(folder / "model.safetensors")
        change(tensors)
        save_file(tensors, folder / "model.safetensors", {"format": "pt"})

    return damage


def with_ends(ends: object) -> Callable[[Path], object]:
    return lambda folder: (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": ends}))


def cut(share: float) -> Callable[[Path], object]:
    def damage(folder: Path) -> None:
        content = (folder / "model.safetensors").read_bytes()
        (folder / "model.safetensors").write_bytes(content[: int(share * len(content))])

    return damage


def without(*names: str) -> Callable[[Path], object]:
    return lambda folder: [(folder / name).unlink() for name in names]


def as_pickle(folder: Path) -> None:
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


DOWN = "model.H_module.layers.1.mlp.down_proj.weight"
YARN = {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 2.0}
DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "no-config": (without("config.json"), "no model in Hugging Face format: config.json is missing"),
    "no-json": (lambda f: (f / "config.json").write_text("{"), "not valid JSON"),
    "other-type": (with_settings(model_type="llama"), "of model type 'llama', and only 'hrm_text'"),
    "no-type": (with_settings(model_type=None), "of model type None"),
    "wrong-setting": (with_settings(hidden_size="many"), "cannot be loaded: .*'hidden_size': TypeError: .*got str"),
    "heads": (with_settings(num_attention_heads=3), "its configuration cannot be loaded"),
    "no-heads": (with_settings(num_attention_heads=0), "cannot be loaded: integer modulo by zero"),
    "endless": (with_settings(hidden_size=10**400), "hidden_size is 10{39}, and its weights are of another model"),
    "width": (
        with_settings(hidden_size=64),
        r"H_module.* \(48, 32\), its configuration says \(48, 64\).*; and \d+ more",
    ),
    "vocabulary": (with_settings(vocab_size=310), r"lm_head.weight has shape \(300, 32\), .*\(310, 32\); model.embed"),
    "layers": (with_settings(num_hidden_layers=10**9), "num_hidden_layers is 10{9}, and its weights"),
    "quantized": (with_settings(quantization_config={"quant_method": "gptq"}), r"holds a quantized model \(gptq\)"),
    "quantized-weights": (with_weights(lambda t: t.update({DOWN: t[DOWN].to(torch.int8)})), "numbers of type int8"),
    "config-list": (lambda f: (f / "config.json").write_text("[]"), "a JSON object is expected, found list"),
    "null-tokenizer-config": (lambda f: (f / "tokenizer_config.json").write_text("null"), "a JSON object is expected"),
    "index-outside": (
        lambda f: (f / "model.safetensors.index.json").write_text('{"weight_map": {"a": "../other.safetensors"}}'),
        "no usable weight_map",
    ),
    "not-fetched": (
        lambda f: (f / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n"),
        r"model\.safetensors is a pointer of Git LFS",
    ),
    "epsilon": (with_settings(rms_norm_eps="x"), "'rms_norm_eps': .*expected float, got str"),
    "cut": (cut(0.5), "is not a safetensors file that can be read"),
    "header-cut": (cut(0.001), "is not a safetensors file"),
    "empty": (cut(0), "is not a safetensors file"),
    "no-weights": (without("model.safetensors"), "its weights cannot be loaded: .*no file named model.safetensors"),
    "pickled": (as_pickle, "its weights cannot be loaded"),
    "a-weight-less": (with_weights(lambda t: t.pop(DOWN)), rf"its weights hold no {DOWN}"),
    "a-weight-more": (with_weights(lambda t: t.update(extra=torch.ones(2))), "what is no part of the model: extra"),
    "nan": (with_weights(lambda t: t["lm_head.weight"][3].fill_(math.nan)), "32 of the 9600 numbers of lm_head.weight"),
    "a-shape": (
        with_weights(lambda t: t.update({DOWN: torch.ones(3, 4)})),
        rf"imported: {DOWN} has shape \(3, 4\), its con.*\(32, 48\)",
    ),
    "no-tokenizer": (
        without("tokenizer.json", "tokenizer_config.json"),
        "its tokenizer cannot be loaded: tokenizer.json is",
    ),
    "no-tokenizer-file": (without("tokenizer.json"), "its tokenizer cannot be loaded: tokenizer.json is missing; copy"),
    "tokenizer-cut": (lambda f: (f / "tokenizer.json").write_text('{"model": {'), "its tokenizer cannot be loaded"),
    "end-name": (with_ends("x"), "eos_token_id is x, and token ids are needed"),
    "end-none": (with_ends([1, None]), r"eos_token_id is \[1, None\], and token ids are needed"),
    "attention-bias": (with_settings(attention_bias=True), "attention_bias is True, here it is False"),
    "activation": (with_settings(hidden_act="gelu"), "hidden_act is gelu, here it is silu or swish"),
    "rope": (with_settings(rope_parameters=YARN), "rope_type is yarn, here it is default"),
    "no-low-level": (with_settings(L_cycles=0, num_hidden_layers=4), "L_cycles is 0"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_models_that_cannot_be_imported(workspace: Workspace, theirs: Path, name: str) -> None:
    damage, words = DAMAGE[name]
    damage(theirs)
    with pytest.raises(BundleError, match=words) as raised:
        import_model("theirs", name="x", workspace=workspace)
    assert str(theirs) in str(raised.value)


def test_a_tokenizer_of_another_model(workspace: Workspace) -> None:
    their_model(workspace.root / "theirs", vocab_size=TOKENS - 20)
    with pytest.raises(BundleError, match=f"its tokenizer has {TOKENS} tokens and its model {TOKENS - 20}"):
        import_model("theirs", name="x", workspace=workspace)


def test_a_hub_that_does_not_answer(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(BundleError, match=r"sapientinc/HRM-Text-1B is no local folder.*Offline, copy"):
        import_model("sapientinc/HRM-Text-1B", name="x", workspace=workspace)


@pytest.fixture
def complaint(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """What a command says before it ends with exit code 2."""

    def run(*words: str) -> str:
        assert main(["bundle", *words]) == 2
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err
        return " ".join(captured.err.split())

    return run


def test_what_an_import_refuses(workspace: Workspace, theirs: Path, complaint: Callable[..., str]) -> None:
    (workspace.root / "file").write_text("x")
    hf = ("--format", "hf", "--name")
    assert "is a file: name the folder" in complaint("import", "file", *hf, "x")
    assert "no such folder, and it is no hub id" in complaint("import", "nowhere", *hf, "x")
    assert "not allowed" in complaint("import", "theirs", *hf, "../up")
    for words in (("--seq-len", "9"), ("--config-file", "x"), ("--pos-encodings", "rope"), ("--h-cycles", "2")):
        assert f"{words[0]} cannot be used with --format hf" in complaint("import", "theirs", *hf, "x", *words)


def test_names_and_folders_that_are_taken(workspace: Workspace, sound: Path, complaint: Callable[..., str]) -> None:
    own_brain(workspace, "taken")
    hf = ("--format", "hf")
    assert "exists: choose another --name" in complaint("import", str(sound), *hf, "--name", "taken")
    assert "is a bundle of this lab already" in complaint("import", "artifacts/brains/actv1/taken", *hf, "--name", "x")
    (workspace.root / "out").mkdir()
    assert "exists: choose another folder" in complaint("export", "taken", "out", *hf)
    assert [path.name for path in workspace.brains.iterdir()] == ["taken"]


def test_what_an_export_refuses(workspace: Workspace, complaint: Callable[..., str]) -> None:
    own_brain(workspace, "plain")
    own_brain(workspace, "deep", halt_max_steps=3)
    own_brain(workspace, "windowed", window_size=8)
    own_brain(workspace, "other", arch="hrm")
    their_checkpoints.own_bundle(workspace, "solver")
    hf = ("--format", "hf")
    assert "no run 'nobody'" in complaint("export", "nobody", "out", *hf)
    assert "trained for 3 segments, with a halting head" in complaint("export", "deep", "out", *hf)
    assert "--segments 3, the deepest" in complaint("export", "deep", "out", *hf)
    assert "--segments 0: use 1 to 64" in complaint("export", "deep", "out", *hf, "--segments", "0")
    assert "window_size is 8" in complaint("export", "windowed", "out", *hf)
    assert "norm is post" in complaint("export", "other", "out", *hf, "--segments", "1")
    assert "of kind 'puzzle'" in complaint("export", "solver", "out", *hf)
    assert "--forward-dtype cannot be used with --format hf" in complaint(
        "export", "plain", "out", *hf, "--forward-dtype", "float32"
    )
    assert "--compiled cannot be used with --format hf" in complaint("export", "plain", "out", *hf, "--no-compiled")
    assert "--segments goes with --format hf" in complaint(
        "export", "solver", "o", "--format", "trm", "--segments", "1"
    )
    assert not (workspace.root / "out").exists()


@pytest.mark.parametrize("file", ["model.safetensors", "tokenizer.json", "config.json"])
def test_a_damaged_bundle_is_not_exported(workspace: Workspace, file: str) -> None:
    folder = own_brain(workspace)
    content = (folder / file).read_bytes()
    (folder / file).write_bytes(content[:-10] + b"0" + content[-9:])
    with pytest.raises(BundleError, match=f"cannot be loaded: .*{file} has changed"):
        export_folder("own", Path("out"), workspace=workspace)
    assert sorted(path.name for path in workspace.root.iterdir()) == ["artifacts", "training_data"]


@pytest.mark.parametrize(
    ("kind", "cure"),
    [
        ("hrm_text", "import it first: lab bundle import {folder} --format hf --name NAME"),
        ("llama", "only models of type 'hrm_text' can be imported"),
    ],
)
def test_a_folder_of_transformers_is_no_bundle_yet(
    workspace: Workspace, theirs: Path, capsys: pytest.CaptureFixture[str], kind: str, cure: str
) -> None:
    with_settings(model_type=kind)(theirs)
    (workspace.root / "text.txt").write_text(text())
    wanted = f"{theirs} is a model of transformers, of type '{kind}', and no bundle of this lab; {cure}"
    for words in (
        ["generate", "--bundle", "./theirs", "--prompt", "a"],
        ["eval", "text", "--bundle", "./theirs"],
        ["bundle", "verify", "./theirs"],
        ["train", "actv1", "--student-init", "theirs", "--dataset-file", "text.txt", "--steps", "1"],
    ):
        assert main(words) == 2
        assert wanted.format(folder=theirs) in capsys.readouterr().err


def test_an_imported_brain_has_no_run_to_resume(
    workspace: Workspace, sound: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import_model(str(sound), name="brain", workspace=workspace)
    assert main(["train", "actv1", "--brain-name", "brain", "--resume"]) == 2
    told = capsys.readouterr().err
    assert f"was imported from {sound}: it has no run to resume" in told
    assert f"--student-init {workspace.brains / 'brain'}" in told


STUDENTS: dict[str, tuple[dict[str, Any], str]] = {
    "heads": ({"num_heads": 1}, "--num-heads is 2 in"),
    "positions": ({"pos_encodings": "none"}, "--pos-encodings is rope in"),
    "architecture": ({"arch": "hrm"}, "--arch is hrm-text in"),
    "expansion": ({"expansion": 4.0}, "--expansion 4.0: the inner width of .* is 48"),
    "width": ({"hidden_size": 64}, r"--hidden-size is 32 in .*student"),
    "experts": ({"use_moe": True}, "does not fit this model"),
}


@pytest.mark.parametrize("name", STUDENTS)
def test_what_a_student_cannot_be(workspace: Workspace, name: str) -> None:
    """Also where the shapes of its weights would not tell."""
    given, words = STUDENTS[name]
    own_brain(workspace, "student")
    (workspace.root / "text.txt").write_text(text())
    settings = {"dataset_file": "text.txt", "student_init": "artifacts/brains/actv1/student", "max_seq_len": 16}
    settings |= {"batch_size": 2, "steps": 1, "eval_batches": 0, "device": "cpu", "brain_name": "new"}
    with pytest.raises(BundleError, match=words):
        train(build_config(TextTrainConfig, overrides={**settings, **given}), workspace=workspace)
    assert not (workspace.brains / "new").exists()


def test_a_student_and_a_larger_tokenizer(workspace: Workspace) -> None:
    own_brain(workspace, "student", vocab_size=TOKENS - 10)
    (workspace.root / "text.txt").write_text(text())
    settings = {"dataset_file": "text.txt", "student_init": "artifacts/brains/actv1/student", "max_seq_len": 16}
    with pytest.raises((BundleError, ConfigError), match="has 290 tokens and the tokenizer of --model 300"):
        train(build_config(TextTrainConfig, overrides={**settings, "steps": 1, "device": "cpu"}), workspace=workspace)
