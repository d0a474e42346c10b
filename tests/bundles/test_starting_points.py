"""What a training starts from: tokenizers, other models' embeddings, and weights of earlier brains."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from hrm_engine.bundles.weights import load_tensors
from hrm_engine.config import TextTrainConfig, resolve_core
from hrm_engine.data.text.tokenizer import Tokenizer
from hrm_engine.errors import BundleError, ConfigError
from hrm_engine.models.core import RecurrentCore
from hrm_engine.starting.implant import create_implant, starting_point
from hrm_engine.training import Trainer
from hrm_engine.training.run_folder import saved_config
from tests.tiny_runs import TEXT, VOCABULARY, Lab, assert_same_end, flags, row_of


def told(run_dir: Path) -> list[str]:
    """What a run said at its start, but for what depends on the processor."""
    return [message for message in row_of(run_dir, "start")["messages"] if "no bf16" not in message]


def base_model(source: Path) -> Path:
    """The shared base model of width 64."""
    return source / "artifacts" / "hf_implant" / "base_model"


def test_the_implant_is_a_model_in_hugging_face_format(source: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = base_model(source)
    model = AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert model.get_input_embeddings().weight.shape == (VOCABULARY, 64)
    own = Tokenizer.load(source / "artifacts" / "hf_implant" / "tokenizers" / "tokenizer.json")
    text = "the cat sleeps in house\n\n  tab\tnaïve 🐈"
    assert own.encode(text).tolist() == tokenizer(text, add_special_tokens=False)["input_ids"]
    assert own.decode(own.encode(text)) == text
    assert not list(folder.glob("*.bin"))


def test_an_implant_is_made_again_the_same_and_replaced_whole(lab: Lab, source: Path) -> None:
    report = create_implant(workspace=lab.workspace, dataset_file=Path(TEXT), vocab_size=VOCABULARY, hidden_size=64)
    assert (report.vocab_size, report.num_documents) == (VOCABULARY, 40)
    made = {path.name: path.read_bytes() for path in report.base_model.iterdir()}
    assert made == {path.name: path.read_bytes() for path in base_model(source).iterdir()}
    with pytest.raises(ConfigError, match=r"base_model exists: .*--replace"):
        create_implant(workspace=lab.workspace, dataset_file=Path(TEXT), vocab_size=270, hidden_size=128)
    assert made == {path.name: path.read_bytes() for path in report.base_model.iterdir()}
    create_implant(workspace=lab.workspace, dataset_file=Path(TEXT), vocab_size=270, hidden_size=128, replace=True)
    config = json.loads((report.base_model / "config.json").read_text())
    assert (config["vocab_size"], config["hidden_size"]) == (270, 128)
    assert Tokenizer.load(report.tokenizer_file).vocab_size == 270
    shutil.rmtree(report.base_model)
    with pytest.raises(ConfigError, match=r"tokenizer.json exists: .*--replace"):
        create_implant(workspace=lab.workspace, dataset_file=Path(TEXT), vocab_size=270)


def test_an_implant_clears_what_a_killed_one_left(lab: Lab, source: Path) -> None:
    home = lab.workspace.base_model.parent
    dead, living = (home / f".tmp-{pid}-0123abcd-base_model" for pid in (2**22 + 1, os.getppid()))
    other = home / f".tmp-{2**22 + 1}-0123abcd-other"
    for folder in (dead, living, other):
        folder.mkdir(parents=True)
        (folder / "model.safetensors").touch()
    report = create_implant(workspace=lab.workspace, dataset_file=Path(TEXT), vocab_size=VOCABULARY, hidden_size=64)
    assert {path.name for path in home.glob(".*")} == {living.name, other.name}
    umask = os.umask(0o022)
    os.umask(umask)
    assert {path.stat().st_mode & 0o777 for path in report.base_model.iterdir()} == {0o666 & ~umask}


def test_an_implant_that_cannot_be_made_leaves_the_old_one(lab: Lab) -> None:
    report = create_implant(workspace=lab.workspace, dataset_file=Path(TEXT), vocab_size=270, hidden_size=64)
    before = {path.name: path.read_bytes() for path in report.base_model.iterdir()}
    with pytest.raises(ConfigError, match="--hidden-size 100.*multiple of 64"):
        create_implant(workspace=lab.workspace, dataset_file=Path(TEXT), hidden_size=100, replace=True)
    with pytest.raises(ConfigError, match="vocabulary of 100 is too small"):
        create_implant(workspace=lab.workspace, dataset_file=Path(TEXT), vocab_size=100, replace=True)
    assert {path.name: path.read_bytes() for path in report.base_model.iterdir()} == before


def test_embeddings_of_the_same_width_are_taken_over(lab: Lab, source: Path) -> None:
    folder = base_model(source)
    with Trainer(lab.config(brain_name="run", model=str(folder), amp=False), workspace=lab.workspace) as trainer:
        their = load_file(folder / "model.safetensors")
        embeddings, head = their["model.embed_tokens.weight"], their["lm_head.weight"]
        assert torch.equal(trainer.setup.model.embed_tokens.weight, embeddings)
        torch.testing.assert_close(trainer.setup.model.lm_head.weight, head / (head.std() * 8))
        # their own scale is brought to 1
        assert trainer.task.core.embedding_scale == pytest.approx(1 / float(embeddings.std()))
        trainer.step()
        trainer.finish()
    evaluated = "evaluations use 5 % of the documents, which are held out"
    assert told(trainer.run_dir) == [f"embeddings and output head taken over from {folder}", evaluated]


def test_embeddings_of_another_width_are_left_and_that_is_said(lab: Lab, source: Path) -> None:
    folder = base_model(source)
    settings = {"model": str(folder), "hidden_size": 32, "steps": 1, "eval_batches": 0}
    run_dir = lab.train("run", **settings).run_dir
    [message] = told(run_dir)
    assert "embeddings of (300, 64): width 32" in message
    assert "tokenizer only, embeddings start fresh" in message
    text = lab.text.read_text()
    assert Tokenizer.load(run_dir).encode(text).tolist() == Tokenizer.load(lab.tokenizer).encode(text).tolist()


def test_a_model_without_a_tokenizer(lab: Lab, source: Path) -> None:
    folder = shutil.copytree(base_model(source), lab.root / "none")
    for file in folder.glob("tokenizer*"):
        file.unlink()
    with pytest.raises(ConfigError, match=r"--model .*none cannot be loaded: tokenizer\.json is missing; copy it from"):
        starting_point("none", hidden_size=64, workspace=lab.workspace)
    shutil.copytree(source / "artifacts" / "hf_implant" / "tokenizers", lab.workspace.tokenizer_file.parent)
    start = starting_point("none", hidden_size=64, workspace=lab.workspace)
    assert (start.tokenizer.vocab_size, start.embeddings, start.head) == (VOCABULARY, None, None)
    assert "none has no tokenizer: that of" in start.messages[0]


@pytest.mark.parametrize(("name", "what"), [("model.embed_tokens", "token embeddings"), ("lm_head", "output head")])
def test_embeddings_that_are_not_finite(lab: Lab, source: Path, name: str, what: str) -> None:
    folder = shutil.copytree(base_model(source), lab.root / "torn")
    tensors = load_file(folder / "model.safetensors")
    tensors[f"{name}.weight"][5, 5] = float("nan")
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ConfigError, match=rf"--model torn: 1 of the 19200 numbers of the {what} are NaN"):
        starting_point("torn", hidden_size=64, workspace=lab.workspace)


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        ("config.json", "null", "a JSON object is expected"),
        (
            "config.json",
            '{"model_type": "llama", "quantization_config": {"quant_method": "gptq"}}',
            "quantized model .gptq",
        ),
        ("config.json", '{"model_type": ["llama"]}', "cannot be loaded"),
        ("generation_config.json", "[]", "a JSON object is expected, found list"),
        ("tokenizer_config.json", '{"a": 1, "a": 2}', "'a' stands twice"),
        ("model.safetensors.index.json", '{"weight_map": {"a": "../../outside.safetensors"}}', "no usable weight_map"),
        ("model.safetensors", "version https://git-lfs.github.com/spec/v1\n", "is a pointer of Git LFS"),
        ("tokenizer.json", "version https://git-lfs.github.com/spec/v1\n", "cannot be loaded"),
        (
            "tokenizer.json",
            '{"model": {"type": "BPE", "vocab": {"a": 4000000000}, "merges": []}}',
            "cannot be loaded|up to",
        ),
    ],
)
def test_folders_of_models_that_are_odd(lab: Lab, source: Path, file: str, content: str, words: str) -> None:
    folder = shutil.copytree(base_model(source), lab.root / "odd")
    (folder / file).write_text(content)
    with pytest.raises(ConfigError, match=rf"--model .*odd.*({words})"):
        starting_point("odd", hidden_size=64, workspace=lab.workspace)


def test_a_folder_with_only_a_tokenizer(lab: Lab) -> None:
    start = starting_point(str(lab.tokenizer), hidden_size=64, workspace=lab.workspace)
    assert (start.embeddings, start.head) == (None, None)
    assert (start.messages, start.about_weights) == ([], f"{lab.tokenizer}: tokenizer only, embeddings start fresh")


def test_resuming_needs_the_base_model_no_more(lab: Lab, source: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(base_model(source), folder)
    lab.train("straight", model=str(folder))
    lab.interrupted("run", 3, model=str(folder))
    shutil.rmtree(folder)
    lab.resume("run")
    assert_same_end(lab.run_dir("straight"), lab.run_dir("run"))


@pytest.mark.parametrize("model", ["gpt2", "nobody/nothing", "no/such/folder/here", "../up", "a b", "x" * 200])
def test_offline_a_hub_id_names_the_command_that_helps(lab: Lab, model: str) -> None:
    with pytest.raises(ConfigError, match=rf"--model {model}: .* is no folder with a model.*lab implant") as raised:
        starting_point(model, hidden_size=64, workspace=lab.workspace)
    assert "\n" not in str(raised.value)


def test_a_model_without_a_name_that_can_be(lab: Lab) -> None:
    with pytest.raises(ConfigError, match="NUL"):
        starting_point("a\0b", hidden_size=64, workspace=lab.workspace)


def test_the_default_model_is_made_where_it_is_missing(lab: Lab, source: Path) -> None:
    """From the embedded corpus, which is put in place here instead of being built."""
    corpus = lab.workspace.training_data / "curated_datasets" / "python_docs"
    corpus.mkdir(parents=True)
    documents = [json.dumps({"text": document}) for document in lab.text.read_text().split("\n\n")]
    (corpus / "train.jsonl").write_text("\n".join(documents[:35]) + "\n")
    (corpus / "validation.jsonl").write_text("\n".join(documents[35:]) + "\n")
    settings = lab.settings(steps=1, eval_batches=0, hidden_size=32, brain_name="run")
    del settings["model"]
    from hrm_engine.config import TextTrainConfig, build_config
    from hrm_engine.training import train

    result = train(build_config(TextTrainConfig, overrides=settings), workspace=lab.workspace)
    messages = told(result.run_dir)
    assert "no base model yet: made one from the embedded corpus" in messages[0]
    assert "lab implant" in messages[0]
    assert (lab.workspace.base_model / "model.safetensors").is_file()
    assert lab.workspace.tokenizer_file.is_file()


def test_weights_of_a_bundle_a_checkpoint_and_a_file(lab: Lab) -> None:
    parent = lab.train("parent").run_dir
    checkpoint = parent / "checkpoints" / "step_00000004"
    file = lab.root / "weights.safetensors"
    shutil.copy(parent / "model.safetensors", file)
    for name, place, seal in (
        ("from-bundle", parent, parent / "metadata.json"),
        ("from-checkpoint", checkpoint, checkpoint / "MANIFEST.json"),
        ("from-file", file, file),
    ):
        relative = place.relative_to(lab.root)
        config = lab.config(brain_name=name, student_init=str(relative), seed=3, eval_batches=0)
        with Trainer(config, workspace=lab.workspace) as trainer:
            expected = load_file(file) if place == file else load_tensors(place, "model")
            first = {key: tensor.clone() for key, tensor in trainer.setup.weights.tensors().items()}
            assert all(torch.equal(first[key], tensor) for key, tensor in expected.items())
            trainer.step()
            trainer.finish()
        metadata = json.loads((trainer.run_dir / "metadata.json").read_text())
        assert metadata["parent"] == {"path": str(place), "sha256": hashlib.sha256(seal.read_bytes()).hexdigest()}


def test_the_parent_stays_known_after_it_has_changed(lab: Lab) -> None:
    parent = lab.train("parent", steps=1, eval_batches=0).run_dir
    seal = hashlib.sha256((parent / "metadata.json").read_bytes()).hexdigest()
    lab.interrupted("child", 3, student_init=str(parent))
    lab.resume("parent", steps=2)
    lab.resume("child")
    assert json.loads((lab.run_dir("child") / "metadata.json").read_text())["parent"]["sha256"] == seal


def test_a_student_that_does_not_fit_names_the_keys(lab: Lab) -> None:
    lab.train("parent", steps=1, eval_batches=0, halt_max_steps=1)
    with pytest.raises(BundleError, match=r"--student-init does not fit this model: --hidden-size is 64 in .*parent"):
        lab.train("child", student_init=str(lab.run_dir("parent")), hidden_size=32, num_heads=2)
    shutil.copy(lab.run_dir("parent") / "model.safetensors", lab.root / "weights.safetensors")
    told = r"embed_tokens\.weight has shape \(300, 64\), the model needs \(300, 32\);.* and \d+ more$"
    with pytest.raises(BundleError, match=told):
        lab.train("child", student_init="weights.safetensors", halt_max_steps=1, hidden_size=32)
    assert not lab.run_dir("child").exists()


@pytest.mark.parametrize(
    ("before", "after", "note"),
    [(1, 3, "the halting head begins anew"), (3, 1, "is left out"), (2, 4, None)],
)
def test_a_student_may_think_in_more_or_fewer_segments(lab: Lab, before: int, after: int, note: str | None) -> None:
    parent = lab.train("parent", steps=1, eval_batches=0, halt_max_steps=before).run_dir
    expected = load_tensors(parent, "model")
    config = lab.config(brain_name="child", student_init="parent", halt_max_steps=after)
    with Trainer(config, workspace=lab.workspace) as trainer:
        first = {key: tensor.clone() for key, tensor in trainer.setup.weights.tensors().items()}
        head = {key for key in {**first, **expected} if key.startswith("halt_head.")}
        assert all(torch.equal(first[key], tensor) for key, tensor in expected.items() if key not in head)
        if before == 1:
            assert all(key in first and not first[key].any() for key in head)
        elif after > 1:
            assert all(torch.equal(first[key], expected[key]) for key in head)
        trainer.step()
        trainer.finish()
    told = [message for message in row_of(trainer.run_dir, "start")["messages"] if "halting head" in message]
    assert len(told) == (note is not None)
    assert all(note in message for message in told if note)
    # the name that was given has become the folder that it meant
    assert saved_config(trainer.run_dir, TextTrainConfig).start.student_init == Path("artifacts/brains/actv1/parent")


def test_a_damaged_student_is_refused(lab: Lab) -> None:
    parent = lab.train("parent", steps=1, eval_batches=0).run_dir
    content = bytearray((parent / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (parent / "model.safetensors").write_bytes(content)
    with pytest.raises(BundleError, match=r"--student-init .*parent cannot be loaded: model\.safetensors has changed"):
        lab.train("child", student_init=str(parent))
    with pytest.raises(BundleError, match="no run"):
        lab.train("child", student_init="artifacts/brains/actv1/nobody")


def test_numbers_of_a_student_that_are_no_weights(lab: Lab) -> None:
    tensors = load_tensors(lab.train("parent", steps=1, eval_batches=0).run_dir, "model")
    name = "lm_head.weight"
    for dtype, words in ((torch.int8, "numbers of type int8"), (torch.float8_e4m3fn, "numbers of type float8_e4m3fn")):
        save_file({**tensors, name: tensors[name].to(dtype)}, lab.root / "odd.safetensors")
        with pytest.raises(BundleError, match=rf"{name} has {words}"):
            lab.train("child", student_init="odd.safetensors")
    tensors[name][0, 0] = float("inf")
    save_file(tensors, lab.root / "odd.safetensors")
    with pytest.raises(BundleError, match=rf"1 of the 19200 numbers of {name} are NaN or infinite"):
        lab.train("child", student_init="odd.safetensors")


def test_half_precision_weights_are_taken(lab: Lab) -> None:
    config = lab.config()
    core = resolve_core(config.network, vocab_size=VOCABULARY, max_seq_len=config.data.max_seq_len)
    model = RecurrentCore(core)
    model.initialise(7)
    tensors = {name: tensor.half() for name, tensor in model.state_dict().items()}
    save_file(tensors, lab.root / "half.safetensors")
    with Trainer(lab.config(brain_name="run", student_init="half.safetensors"), workspace=lab.workspace) as trainer:
        assert all(
            torch.equal(tensor, tensors[name].float()) for name, tensor in trainer.setup.weights.tensors().items()
        )
        trainer.step()
    taken = f"the weights are those of {lab.root / 'half.safetensors'}, token embeddings and output head included"
    messages = told(trainer.run_dir)
    assert messages[0] == f"{taken}; a file of weights names no tokens, so they mean those of the tokenizer of --model"
    assert not any("fresh" in message or "taken over from" in message for message in messages)


def test_a_hub_that_does_not_answer_is_said_at_once(lab: Lab) -> None:
    # Port 9 of this machine is closed; the library itself would try again for a minute, and say so each time.
    hub = {"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": "http://127.0.0.1:9"}
    environment = {**os.environ, **hub, "HRM_LAB_ROOT": str(lab.root)}
    command = [sys.executable, "-m", "lab", "train", "actv1", *flags(lab.settings(model="gpt2"))]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=50, check=False)
    assert ended.returncode == 2
    assert "lab implant" in ended.stderr
    assert "Retrying" not in ended.stderr
    assert "Traceback" not in ended.stderr
