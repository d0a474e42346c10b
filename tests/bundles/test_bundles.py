"""A finished run folder as a bundle: what it says about itself, and when it is loaded, refused, listed."""

from __future__ import annotations

import hashlib
import json
import platform
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from hrm_engine.bundles.bundle import Bundle
from hrm_engine.bundles.listing import list_bundles, verify_bundle
from hrm_engine.bundles.load import load_bundle
from hrm_engine.bundles.weights import load_tensors, save_tensors
from hrm_engine.config.training import Beginning
from hrm_engine.errors import BundleError, ConfigError
from hrm_engine.inference import generate
from hrm_engine.store.clock import parse_iso
from hrm_engine.store.files import write_json
from hrm_engine.store.manifest import SEAL, file_entries, write_sealed
from hrm_engine.store.runs import find_run
from hrm_engine.store.status import RunStatus, write_status
from hrm_engine.training import Trainer
from tests.tiny_runs import TEXT, Lab, flags, row_of, rows


@pytest.fixture
def run_dir(lab: Lab) -> Path:
    """A finished run."""
    return lab.trained("run").run_dir


def read(path: Path) -> dict[str, Any]:
    """A JSON file."""
    content = json.loads(path.read_text(encoding="utf8"))
    assert isinstance(content, dict)
    return content


def change(path: Path, **fields: Any) -> None:
    """Replace fields of a JSON file; one that is sealed is sealed again."""
    content = {**read(path), **fields}
    (write_sealed if SEAL in content else write_json)(path, content)


def reseal(run_dir: Path) -> None:
    """Make the hashes fit again."""
    metadata = run_dir / "metadata.json"
    change(metadata, files=file_entries(run_dir, read(metadata)["files"]))


def test_the_folder_holds_what_the_contract_says(run_dir: Path) -> None:
    assert sorted(path.name for path in run_dir.iterdir() if path.name != ".lock") == [
        *("best", "checkpoints", "config.json", "metadata.json", "metrics.jsonl", "model.safetensors"),
        *("run.log", "status.json", "tokenizer.json", "training_args.json"),
    ]
    checkpoint = run_dir / "checkpoints" / "step_00000006"
    assert sorted(path.name for path in checkpoint.iterdir()) == [
        *("MANIFEST.json", "config.json", "model.safetensors", "optimizer.safetensors"),
        *("state.json", "tokenizer.json", "training_args.json"),
    ]


def test_metadata(lab: Lab, run_dir: Path) -> None:
    metadata = read(run_dir / "metadata.json")
    start = rows(run_dir)[0]
    assert (metadata["schema_version"], metadata["kind"], metadata["step"]) == (2, "actv1", 6)
    assert metadata["run_id"] == start["run_id"]
    assert parse_iso(metadata["created"]) <= parse_iso(metadata["updated"])
    assert (metadata["parent"], metadata["device"]) == (None, "cpu")
    assert metadata["library_versions"]["python"] == platform.python_version()
    assert metadata["library_versions"]["torch"] == torch.__version__
    [data] = metadata["dataset_history"]
    assert (data["dataset"], data["documents"], data["rows"]) == (TEXT, start["num_documents"], 12)
    assert len(data["fingerprint"]) == 64
    evaluation = row_of(run_dir, "eval")
    assert metadata["last_metrics"]["loss"] == evaluation["loss"]
    assert metadata["weights"] == {"which": "best", "step": 6}
    best = {f"best/{path.name}" for path in (run_dir / "best").iterdir()}
    listed = {"config.json", "model.safetensors", "tokenizer.json", "training_args.json"}
    assert metadata["files"].keys() == listed | best
    for name, entry in metadata["files"].items():
        content = (run_dir / name).read_bytes()
        assert entry == {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    assert verify_bundle(run_dir) == []


def test_metadata_is_written_last(run_dir: Path) -> None:
    written = (run_dir / "metadata.json").stat().st_mtime_ns
    for name in read(run_dir / "metadata.json")["files"]:
        assert (run_dir / name).stat().st_mtime_ns <= written


def test_training_args_hold_every_parameter_resolved(lab: Lab) -> None:
    command = ["lab", "train", "actv1", *flags({"steps": 40})]
    config = lab.config(brain_name="run", steps=40, eval_every=None, save_every=None)
    with Trainer(config, workspace=lab.workspace, command_line=command) as trainer:
        trainer.step()
        trainer.finish()
    saved = read(trainer.run_dir / "training_args.json")
    assert saved["command_line"] == command
    assert saved["parameters"]["run"]["save_every"] == saved["parameters"]["evaluation"]["eval_every"] == 4
    assert saved["parameters"]["optim"]["warmup_steps"] == 2
    assert saved["parameters"]["network"]["hidden_size"] == 64


def test_a_run_that_goes_on_is_no_bundle_yet_and_says_so(lab: Lab) -> None:
    with Trainer(lab.config(brain_name="run", steps=3), workspace=lab.workspace) as trainer:
        with pytest.raises(
            BundleError, match="run cannot be loaded: its training is still running: wait until it ends$"
        ):
            load_bundle("run", workspace=lab.workspace)
        trainer.step()
        trainer.save()
        with pytest.raises(BundleError, match="its newest checkpoint is run/checkpoints/step_00000001"):
            load_bundle("run", workspace=lab.workspace)
        assert load_bundle("run/checkpoints/step_00000001", workspace=lab.workspace).path.name == "step_00000001"


def test_a_resumed_run_keeps_all_its_command_lines(lab: Lab) -> None:
    config = lab.config(brain_name="run", steps=3)
    with Trainer(config, workspace=lab.workspace, command_line=["/bin/lab", "train", "actv1"]) as trainer:
        trainer.step()
        trainer.finish()
    for words in (["aios", "hrm-hf", "--resume"], None):
        with Trainer(config, Beginning(resume=True), workspace=lab.workspace, command_line=words) as trainer:
            trainer.step()
            trainer.finish()
    saved = read(trainer.run_dir / "training_args.json")
    assert saved["command_line"] == ["/bin/lab", "train", "actv1"]
    assert saved["resumed_with"] == [["aios", "hrm-hf", "--resume"], None]
    log = (trainer.run_dir / "run.log").read_text(encoding="utf8")
    assert [line.split("INFO    training ")[1] for line in log.splitlines() if "INFO    training " in line] == [
        "begins: lab train actv1",
        "goes on from step 1: aios hrm-hf --resume",
        "goes on from step 2: called from Python",
    ]


def test_a_loaded_bundle_is_the_trained_model(lab: Lab, run_dir: Path) -> None:
    bundle = load_bundle("run", workspace=lab.workspace)
    stored = load_tensors(run_dir, "model")
    assert all(torch.equal(tensor, stored[name]) for name, tensor in bundle.model.state_dict().items())
    assert not bundle.model.training
    assert bundle.metadata == read(run_dir / "metadata.json")
    prompt = row_of(run_dir, "sample")["prompt"]
    again = generate(load_bundle(run_dir, workspace=lab.workspace), prompt, max_new_tokens=5, temperature=0)
    assert generate(bundle, prompt, max_new_tokens=5, temperature=0).text == again.text
    half = load_bundle(str(run_dir), dtype=torch.bfloat16, device="cpu")
    assert {tensor.dtype for tensor in half.model.state_dict().values()} == {torch.bfloat16}


@pytest.mark.parametrize("inner", ["checkpoints/step_00000004", "best"])
def test_checkpoints_and_best_load_alone(lab: Lab, run_dir: Path, tmp_path: Path, inner: str) -> None:
    alone = tmp_path / "alone"
    shutil.copytree(run_dir / inner, alone)
    shutil.rmtree(run_dir)
    bundle = load_bundle(alone, workspace=lab.workspace)
    assert generate(bundle, "the", max_new_tokens=3).num_tokens <= 3
    assert verify_bundle(alone) == []
    content = bytearray((alone / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (alone / "model.safetensors").write_bytes(content)
    with pytest.raises(BundleError, match=r"model\.safetensors has changed"):
        load_bundle(alone, workspace=lab.workspace)
    assert "model.safetensors has changed" in verify_bundle(alone)[0]


def test_the_best_weights_are_used_and_the_last_without_one(lab: Lab) -> None:
    # so large a rate that every evaluation is worse than the one before
    worse = {"lr": 0.3, "warmup_steps": 0, "lr_scheduler": "constant", "amp": False, "eval_every": 2, "seed": 1}
    run_dir = lab.train("worse", **worse).run_dir
    losses = {row["step"]: row["loss"] for row in rows(run_dir) if row["event"] == "eval"}
    trained = {step: loss for step, loss in losses.items() if step > 0}
    best = min(trained, key=trained.__getitem__)
    assert best != 6, losses
    assert read(run_dir / "metadata.json")["weights"] == {"which": "best", "step": best}
    used = (run_dir / "model.safetensors").read_bytes()
    assert used == (run_dir / "best" / "model.safetensors").read_bytes()
    assert read(run_dir / "best" / "evaluation.json")["loss"] == losses[best]
    assert used != (run_dir / "checkpoints" / "step_00000006" / "model.safetensors").read_bytes()

    run_dir = lab.train("blind", eval_batches=0).run_dir
    assert read(run_dir / "metadata.json")["weights"] == {"which": "last", "step": 6}
    last = (run_dir / "checkpoints" / "step_00000006" / "model.safetensors").read_bytes()
    assert (run_dir / "model.safetensors").read_bytes() == last
    assert not (run_dir / "best").exists()


def test_a_run_stopped_before_its_first_evaluation_keeps_what_it_learned(lab: Lab) -> None:
    run_dir = lab.interrupted("run", 2).run_dir
    assert read(run_dir / "metadata.json")["weights"] == {"which": "last", "step": 2}
    last = (run_dir / "checkpoints" / "step_00000002" / "model.safetensors").read_bytes()
    assert (run_dir / "model.safetensors").read_bytes() == last


def test_half_precision_is_stored_as_asked(lab: Lab) -> None:
    for model_dtype, dtype in (("bf16", torch.bfloat16), ("fp16", torch.float16), ("fp32", torch.float32)):
        run_dir = lab.train(model_dtype, model_dtype=model_dtype, steps=1, eval_batches=0).run_dir
        assert {tensor.dtype for tensor in load_tensors(run_dir, "model").values()} == {dtype}
        # fp16 keeps fp32 weights beside it, which the exact state needs
        kept = torch.float32 if model_dtype == "fp16" else dtype
        checkpoint = run_dir / "checkpoints" / "step_00000001"
        assert {tensor.dtype for tensor in load_tensors(checkpoint, "model").values()} == {kept}


def test_a_bundle_stays_usable_while_its_run_goes_on(lab: Lab, run_dir: Path) -> None:
    before = load_bundle("run", workspace=lab.workspace)
    seen: list[Any] = []

    def observe(row: dict[str, Any]) -> None:
        if row["event"] == "train" and row["step"] == 11:  # a better evaluation has been saved by now
            seen.append(read(run_dir / "best" / "evaluation.json")["step"])
            seen.append(load_bundle("run", workspace=lab.workspace).metadata)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        lab.resume("run", steps=12, observer=observe)
    best, metadata = seen
    assert best > 6
    assert metadata == before.metadata
    assert load_bundle("run", workspace=lab.workspace).metadata == before.metadata
    assert any("best/" in problem for problem in verify_bundle(run_dir))
    lab.resume("run", steps=12)
    assert verify_bundle(run_dir) == []
    assert load_bundle("run", workspace=lab.workspace).metadata["step"] == 12


def test_an_unfinished_run_says_what_to_do(lab: Lab) -> None:
    (lab.root / "STOP").touch()
    lab.train("run", stop_file="STOP")
    begun = r"metadata\.json is missing: .*has no checkpoint yet; --resume begins it again"
    with pytest.raises(BundleError, match=begun):
        load_bundle("run", workspace=lab.workspace)
    (lab.trained("other").run_dir / "metadata.json").unlink()
    with pytest.raises(BundleError, match=r"metadata\.json is missing: .*continue it with --resume"):
        load_bundle("other", workspace=lab.workspace)
    shutil.rmtree(lab.run_dir("other") / "checkpoints")
    with pytest.raises(BundleError, match=begun):
        load_bundle("other", workspace=lab.workspace)


@pytest.mark.parametrize(
    ("file", "fields", "message"),
    [
        ("metadata.json", {"schema_version": 3}, r"schema_version 3.*newer one; update HRM Lab"),
        ("config.json", {"schema_version": 2}, r"schema_version 2.*newer one; update HRM Lab"),
        ("config.json", {"kind": "puzzle"}, r"kind 'puzzle'; this command needs kind 'actv1'"),
        ("config.json", {"kind": None}, r"kind None; this command needs kind 'actv1'"),
        ("config.json", {"norm": "batch"}, r"norm batch: use pre or post"),
        ("config.json", {"experts": 8}, r"experts: there is no such setting"),
        (
            "config.json",
            {"vocab_size": 301},
            r"embed_tokens\.weight has shape \(300, 64\), the model needs \(301, 64\)",
        ),
        ("config.json", {"halt_max_steps": 1}, r"halt_head\.weight is not part of this model"),
    ],
)
def test_versions_kinds_and_shapes_that_do_not_fit(
    lab: Lab, run_dir: Path, file: str, fields: dict[str, Any], message: str
) -> None:
    change(run_dir / file, **fields)
    if file == "config.json":
        reseal(run_dir)
    with pytest.raises(BundleError, match=message):
        load_bundle("run", Bundle, workspace=lab.workspace)
    told = ("schema_version", "config.json", "model.safetensors", "puzzle.json")
    assert any(word in problem for problem in verify_bundle(run_dir) for word in told)


def test_weights_that_are_not_finite_and_tokens_that_no_row_has(lab: Lab, run_dir: Path) -> None:
    tensors, config = load_tensors(run_dir, "model"), read(run_dir / "config.json")
    save_tensors(run_dir, "model", {**tensors, "lm_head.weight": tensors["lm_head.weight"] / 0})
    reseal(run_dir)
    with pytest.raises(BundleError, match=r"run: 19200 of the 19200 numbers of lm_head\.weight are NaN or infinite"):
        load_bundle("run", workspace=lab.workspace)
    fewer = {name: tensors[name][:290].clone() for name in ("lm_head.weight", "embed_tokens.weight")}
    save_tensors(run_dir, "model", {**tensors, **fewer})
    change(run_dir / "config.json", vocab_size=290)
    reseal(run_dir)
    with pytest.raises(BundleError, match="its tokenizer has 300 tokens and its model 290"):
        load_bundle("run", workspace=lab.workspace)
    assert config["vocab_size"] == 300


def test_a_bundle_that_is_just_saved_is_listed_without_problems(lab: Lab, run_dir: Path) -> None:
    with (run_dir / "model.safetensors").open("ab") as file:  # the weights are new, metadata.json is not yet
        file.write(b"more")
    assert "has changed" in list_bundles(lab.workspace)[0].problems[0]
    write_status(run_dir, RunStatus.of_this_process("running", 6))
    [info] = list_bundles(lab.workspace)
    assert (info.state, info.problems) == ("running", [])


def test_a_model_in_shards_is_a_bundle_too(lab: Lab, run_dir: Path) -> None:
    tensors = load_tensors(run_dir, "model")
    whole = generate(load_bundle("run", workspace=lab.workspace), "the cat", max_new_tokens=5, temperature=0).text
    (run_dir / "model.safetensors").unlink()
    names = save_tensors(run_dir, "model", tensors, max_shard_bytes=100_000)
    assert len(names) > 3
    metadata = run_dir / "metadata.json"
    files = read(metadata)["files"].keys() - {"model.safetensors"}
    change(metadata, files=file_entries(run_dir, [*files, *names]))
    assert verify_bundle(run_dir) == []
    bundle = load_bundle("run", workspace=lab.workspace)
    assert generate(bundle, "the cat", max_new_tokens=5, temperature=0).text == whole
    [info] = list_bundles(lab.workspace)
    assert info.num_parameters == sum(parameter.numel() for parameter in bundle.model.parameters())
    (run_dir / names[1]).unlink()
    with pytest.raises(BundleError, match=names[1]):
        load_bundle("run", workspace=lab.workspace)


def test_the_list(lab: Lab, run_dir: Path) -> None:
    child = lab.train("child", student_init=str(run_dir), steps=1, eval_batches=0).run_dir
    stopped = lab.interrupted("stopped", 2).run_dir
    (child / "tokenizer.json").unlink()
    assert [info.name for info in list_bundles(lab.workspace)] == ["stopped", "child", "run"]
    infos = {info.name: info for info in list_bundles(lab.workspace)}
    run = infos["run"]
    assert (run.kind, run.arch, run.step, run.state, run.problems) == ("actv1", "hrm-text", 6, "finished", [])
    assert run.bytes == sum(path.stat().st_size for path in run_dir.rglob("*") if path.is_file())
    model = load_bundle("run", workspace=lab.workspace).model
    assert run.num_parameters == sum(parameter.numel() for parameter in model.parameters())
    assert infos["child"].parent == str(run_dir)
    assert infos["child"].problems[0] == "tokenizer.json is missing"
    assert (infos["stopped"].state, infos["stopped"].path) == ("stopped", stopped)
    (run_dir / "metadata.json").unlink()
    [run] = [info for info in list_bundles(lab.workspace) if info.name == "run"]
    assert "--resume" in run.problems[0]


def test_an_empty_workspace_has_no_bundles(lab: Lab) -> None:
    assert list_bundles(lab.workspace) == []
    with pytest.raises(BundleError, match="none; train one first"):
        find_run("nobody", lab.workspace)


def test_bundles_are_found_by_name_and_by_path(lab: Lab, run_dir: Path) -> None:
    for way in (
        "run",
        run_dir,
        str(run_dir),
        "artifacts/brains/actv1/run",
        Path("artifacts/brains/actv1/run"),
        "brains/actv1/run",
    ):
        assert find_run(way, lab.workspace) == run_dir
    other = lab.train("other", bundle_dir="artifacts/runs", steps=1, eval_batches=0).run_dir
    assert find_run("other", lab.workspace) == other
    lab.train("other", steps=1, eval_batches=0)
    shared = "brains/actv1/other, run, runs/other$"
    with pytest.raises(BundleError, match=f"no run 'rum'.*Runs here: {shared}"):
        find_run("rum", lab.workspace)
    with pytest.raises(ConfigError, match="run name"):
        find_run("rum!", lab.workspace)
