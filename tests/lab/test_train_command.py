"""``lab train``, ``generate``, ``bundle``, ``implant`` and ``data`` on real, tiny trainings."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from hrm_engine.store.paths import Workspace
from hrm_engine.training import TrainResult
from lab.cli import aios
from lab.cli.app import main
from lab.cli.train_view import TrainView, before_and_after, evaluation_line
from tests.tiny_runs import Lab, flags, rows


def train(lab: Lab, *words: str, **changed: Any) -> int:
    return main(["train", "actv1", *flags(lab.settings(**changed)), *words])


def test_a_training_tells_what_it_does_and_what_comes_next(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(lab, brain_name="first") == 0
    shown = capsys.readouterr().out
    measured = [row for row in rows(lab.run_dir("first")) if row["event"] == "eval"]
    facts = dict(re.findall(r"^(run folder|device|parameters|data|steps) +(\S.*)$", shown, re.MULTILINE))
    assert facts["run folder"] == "artifacts/brains/actv1/first"
    assert facts["device"].startswith("cpu, ")
    assert facts["data"].endswith(" documents")
    assert facts["steps"] == "6"
    for row in measured:
        assert f"step {row['step']}  {evaluation_line(row)}" in shown
        assert f"(unigram {row['unigram_loss']:.3f})" in evaluation_line(row)
        losses = " ".join(f"{loss:.3f}" for loss in row["loss_by_segment"])
        adaptive = f"adaptive {row['adaptive_loss']:.3f} ({row['act_steps_mean']:.1f} segments)"
        assert evaluation_line(row).endswith(f"  by segment {losses} · {adaptive}")
    assert "step 6/6  loss " in shown
    assert shown.count("sample, ") == sum(row["loss"] < row["unigram_loss"] for row in measured)
    assert "finished at step 6" in shown
    first, last = (f"{row['loss']:.3f}" for row in (measured[0], measured[-1]))
    assert f"validation  loss {first} before, {last} at step 6 (the best); a unigram model has" in shown
    assert "lab generate --bundle first" in shown
    assert "lab dashboard" in shown
    assert "\x1b" not in shown


def test_the_run_folder_can_be_used_by_every_other_command(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    lab.train("a")
    capsys.readouterr()
    assert main(["generate", "--bundle", "a", "--prompt", "the", "--max-new-tokens", "5", "--temperature", "0"]) == 0
    streamed = capsys.readouterr().out
    assert streamed.startswith("the")
    words = ["generate", "--bundle", "artifacts/brains/actv1/a", "--prompt", "the", "--max-new-tokens", "5"]
    assert main([*words, "--temperature", "0", "--no-stream"]) == 0
    assert capsys.readouterr().out == streamed
    assert main([*words, "--temperature", "0", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["prompt"] + answer["text"] + "\n" == streamed
    assert answer["num_tokens"] <= 5

    assert main(["bundle", "list"]) == 0
    header, line = capsys.readouterr().out.splitlines()
    assert header.split()[:3] == ["brain", "kind", "arch"]
    assert line.split()[:3] == ["brains/actv1/a", "actv1", "hrm-text"]
    assert main(["bundle", "list", "--json"]) == 0
    (listed,) = json.loads(capsys.readouterr().out)
    assert (listed["name"], listed["step"], listed["state"], listed["problems"]) == ("a", 6, "finished", [])

    assert main(["bundle", "show", "a", "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert content["config"]["hidden_size"] == 64
    assert content["metadata"]["step"] == 6
    assert content["training_args"]["parameters"]["run"]["steps"] == 6
    assert main(["bundle", "show", "a"]) == 0
    assert re.search(r"^  hidden_size +64$", capsys.readouterr().out, re.MULTILINE)

    assert main(["logs", "a", "-n", "1"]) == 0
    assert "finished" in capsys.readouterr().out

    assert main(["bundle", "verify", "a"]) == 0
    assert "every file is as it was saved" in capsys.readouterr().out
    weights = lab.run_dir("a") / "model.safetensors"
    content_bytes = bytearray(weights.read_bytes())
    content_bytes[-1] ^= 1
    weights.write_bytes(content_bytes)
    assert main(["bundle", "verify", "a"]) == 2
    assert "model.safetensors" in capsys.readouterr().out
    assert main(["bundle", "verify", "a", "--json"]) == 2
    assert json.loads(capsys.readouterr().out)["valid"] is False
    assert main(["generate", "--bundle", "a", "--prompt", "the"]) == 2
    shown = capsys.readouterr()
    assert "model.safetensors" in shown.err
    assert shown.out == ""


def test_resuming_needs_only_the_name_and_refuses_what_differs(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    lab.train("a", steps=2)
    capsys.readouterr()
    assert main(["train", "actv1", "--brain-name", "a", "--resume", "--steps", "4"]) == 0
    shown = capsys.readouterr().out
    assert "resumed from  checkpoints/step_00000002" in shown
    assert "finished at step 4" in shown

    assert main(["train", "actv1", "--brain-name", "a", "--resume", "--lr", "0.5"]) == 2
    error = capsys.readouterr().err
    assert "--lr is 0.003" in error
    assert "0.5 was given" in error
    # The command line of the start, with --resume behind it, is a way to go on as well.
    assert train(lab, "--resume", brain_name="a", steps=5) == 0
    assert [row["step"] for row in rows(lab.run_dir("a")) if row["event"] == "final"][-1] == 5
    assert train(lab, brain_name="a") == 2
    assert "--resume" in capsys.readouterr().err


def test_resuming_compares_a_preset_file_like_flags(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    lab.train("a", steps=2)
    (lab.root / "mine.yaml").write_text("{optim: {lr: 0.5}, run: {brain_name: a}}")
    assert main(["train", "actv1", "--config", "mine.yaml", "--resume"]) == 2
    assert "--lr is 0.003 in the saved run, 0.5 was given" in capsys.readouterr().err
    (lab.root / "mine.yaml").write_text("{optim: {lr: 0.003}, run: {brain_name: a, steps: 3}}")
    assert main(["train", "actv1", "--config", "mine.yaml", "--resume"]) == 0
    assert "finished at step 3" in capsys.readouterr().out


def test_an_unnamed_run_among_several_is_resumed_by_its_name(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    lab.train(steps=2)
    lab.train(steps=2)
    assert main(["train", "actv1", "--brain-name", "default-2", "--resume", "--steps", "3"]) == 0
    assert "run folder    artifacts/brains/actv1/default-2" in capsys.readouterr().out


def test_presets_lie_under_flags(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    settings = lab.config(steps=3, eval_file=Path("none.txt")).model_dump(mode="json")
    (lab.root / "mine.yaml").write_text(json.dumps(settings))
    words = ["train", "actv1", "--config", "mine.yaml", "--brain-name", "p", "--steps", "1"]
    assert main(words) == 2
    assert "none.txt" in capsys.readouterr().err
    assert main([*words, "--eval-file", "none"]) == 0
    assert "finished at step 1" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "Give --dataset-file FILE or --config text-small"),
        (["--config", "no-such-preset"], "Presets: text-small"),
        (
            ["--config", "sudoku-4x4"],
            "--config sudoku-4x4 is for a training of kind puzzle, and this one is of kind actv1: presets for it are",
        ),
        (["--config", "no-such.yaml"], "no such preset or YAML file"),
        (["--dataset-file", "x.txt", "--hidden-size", "30", "--num-heads", "4"], "--num-heads"),
        (["--dataset-file", "nothing.txt"], "nothing.txt"),
        (["--dataset-file", "training_data/text.txt", "--brain-name", "../out"], "--brain-name"),
        (["--dataset-file", "training_data/text.txt", "--resume", "--brain-name", "none"], "there is no run"),
    ],
)
def test_bad_input_exits_2_and_leaves_nothing(
    words: list[str], told: str, lab: Lab, capsys: pytest.CaptureFixture[str]
) -> None:
    model = [] if "--config" in words else ["--model", str(lab.tokenizer)]
    assert main(["train", "actv1", *words, *model]) == 2
    shown = capsys.readouterr()
    assert shown.err.startswith("error: ")
    assert told in shown.err
    assert not lab.workspace.brains.exists() or list(lab.workspace.brains.iterdir()) == []


def test_aios_trains_with_the_same_flags(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    words = flags(lab.settings(steps=1, brain_name="a", log_file="artifacts/brains/actv1/metrics.jsonl"))
    assert aios.main(["hrm-hf", "train-actv1", *words]) == 0
    assert "finished at step 1" in capsys.readouterr().out
    assert (lab.workspace.brains / "metrics.jsonl").is_file()


def test_a_stop_file_at_the_start_ends_it_with_code_0(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    (lab.root / "STOP").touch()
    assert train(lab, brain_name="a", stop_file="STOP") == 0
    shown = capsys.readouterr().out
    assert "stopped at step 0" in shown
    assert "lab generate" not in shown


def test_a_resume_with_nothing_left_to_do_says_so(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    lab.trained("a")
    assert main(["train", "actv1", "--resume", "--brain-name", "a"]) == 0
    shown = capsys.readouterr().out
    assert "finished at step 6: Nothing is left to do; --resume with more --steps trains it further" in shown
    assert "lab generate --bundle a" in shown
    assert "step 6  validation" not in shown


def test_what_happens_on_the_way_is_shown(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    view = TrainView(Workspace(workspace), None)
    start = {
        "run_dir": str(workspace / "r"),
        "total_steps": 10,
        "num_parameters": 5_100_000,
        "num_rows": 1200,
        "num_documents": 3,
        "device": "cpu",
        "dtype": "bfloat16",
        "messages": ["a message \x1b[2J"],
    }
    view({"event": "start", "step": 0, **start})
    view({"event": "oom", "step": 2, "micro_batch_size": 4, "message": "the micro-batch is 4 rows now"})
    view({"event": "nan", "step": 3, "what": "loss", "in_a_row": 1, "ts": "x", "run_id": "y"})
    view({"event": "system", "step": 3, "cpu_percent": 50})
    view({"event": "eval", "step": 4, "loss": None, "nonfinite": ["loss"], "perplexity": None})
    view({"event": "eval", "step": 5, "loss": 1.0, "loss_without": 2.0})
    shown = capsys.readouterr().out
    assert "5.1 M" in shown
    assert "- a message [2J" in shown
    assert "step  2  oom  the micro-batch is 4 rows now" in shown
    assert "step  5  validation loss 1.000 with the expert, 2.000 without\n" in shown
    assert "step  3  nan  the loss was not finite; the update was skipped" in shown
    assert "cpu_percent" not in shown
    assert "validation loss -" in shown


@pytest.mark.parametrize(
    ("loss", "written"), [(3.435, "31.0"), (101.265, "9.52e+43"), (701.0, "inf"), (float("inf"), "inf"), (None, "-")]
)
def test_a_perplexity_has_few_digits(loss: float | None, written: str) -> None:
    line = evaluation_line({"loss": loss, "perplexity": None, "token_accuracy": 0.5})
    assert f"  perplexity {written}  accuracy 50.0 %" in line


def test_numbers_without_bounds_stay_short() -> None:
    assert len(evaluation_line({"loss": 1e300, "unigram_loss": 1e300, "perplexity": 1.0})) < 80


SOLVER = {"loss": 1.0, "exact_accuracy": 0.25, "cell_accuracy": 0.5, "num_rows": 1000, "halt_accuracy": 0.75}
ADAPTIVE = {"exact_accuracy_when_halting": 0.125, "act_steps_mean": 2.5}
BASELINES = {f"{name}_cell_accuracy": 0.1 for name in ("copy", "padding", "majority")}


def test_the_line_of_a_solver() -> None:
    line = "exact 25.0 % · adaptive 12.5 % (2.5 segments)  cells 50.0 %  halting right 75.0 %  1,000 puzzles"
    assert evaluation_line({**SOLVER, **ADAPTIVE, **BASELINES}) == line
    votes = {"pass_at_1": 0.02, "pass_at_2": 0.03}
    assert evaluation_line({**SOLVER, **ADAPTIVE, **votes}) == f"pass@1 2.0 %  pass@2 3.0 %  {line}"


def test_baselines_are_shown_once_and_the_bundle_where_it_says_something_else(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    view = TrainView(Workspace(workspace), None)
    row = {"event": "eval", **SOLVER, **BASELINES}
    view({**row, "step": 0})
    view({**row, "step": 6})
    view({**row, "step": 6, "full": True, "weights_step": 6})
    assert capsys.readouterr().out.splitlines() == [
        "step 0  baselines, cells right: copy 10.0 %  padding 10.0 %  majority 10.0 %",
        f"step 0  {evaluation_line(row)}",
        f"step 6  {evaluation_line(row)}",
    ]
    better = {**row, "exact_accuracy": 0.5}
    view({**better, "step": 6, "full": True, "weights_step": 4})
    shown = capsys.readouterr().out
    assert shown == f"step 6  the bundle, with the weights of step 4: {evaluation_line(better)}\n"


def test_a_sample_is_shown_where_the_model_beats_token_frequencies(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    view = TrainView(Workspace(workspace), None)
    for loss in (6.5, 5.5):
        view({"event": "eval", "step": 1, "loss": loss, "unigram_loss": 6.0})
        view({"event": "sample", "step": 1, "text": f"after {loss}", "sample_time_s": 0.34})
    lines = [line for line in capsys.readouterr().out.splitlines() if "sample" in line]
    assert lines == ["step 1  sample, 0.3 s  after 5.5"]


def test_the_summary_tells_the_last_and_the_best_evaluation(workspace: Path) -> None:
    def summary(first: dict[str, Any], last: dict[str, Any], best: dict[str, Any] | None) -> str:
        ended = {
            "kind": "actv1",
            "run_dir": workspace,
            "state": "finished",
            "exit_code": 0,
            "message": "",
            "sample": None,
        }
        return before_and_after(TrainResult(**ended, step=40, first_eval=first, last_eval=last, best_eval=best))

    start, best, end = (
        {"step": step, "loss": loss, "unigram_loss": 6.0} for step, loss in ((0, 9.5), (10, 4), (40, 7))
    )
    assert summary(start, end, best) == (
        "loss 9.500 before, 7.000 at step 40, best 4.000 at step 10 (in the bundle); a unigram model has 6.000"
    )
    assert summary(start, end, end).startswith("loss 9.500 before, 7.000 at step 40 (the best); ")
    assert summary(start, end, None).startswith("loss 9.500 before, 7.000 at step 40; ")
    expert = {"step": 40, "loss": 4.0, "loss_without": 4.5}
    assert summary(expert, expert, expert).endswith("4.000 at step 40 (the best); 4.500 without the expert")
    solved = (
        {"step": step, "exact_accuracy": share, "cell_accuracy": 0.5}
        for step, share in ((0, 0.0), (40, 0.1), (30, 0.2))
    )
    before, last, best = (f"{share} % (cells 50.0 %)" for share in (0.0, 10.0, 20.0))
    assert summary(*solved) == f"exact {before} before, {last} at step 40, best {best} at step 30 (in the bundle)"


def test_implant_and_corpus_are_made_by_commands(
    workspace: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = workspace / "training_data" / "own.txt"
    text.write_text("\n\n".join(f"document {number} about lists and values" for number in range(60)))
    words = ["implant", "--dataset-file", "training_data/own.txt", "--vocab-size", "280", "--hidden-size", "64"]
    assert main(words) == 0
    shown = capsys.readouterr().out
    assert "artifacts/hf_implant/base_model" in shown
    assert re.search(r"^vocab size +\d+$", shown, re.MULTILINE)
    assert (workspace / "artifacts" / "hf_implant" / "tokenizers" / "tokenizer.json").is_file()
    assert main(words) == 2
    assert "base_model exists" in capsys.readouterr().err
    assert main([*words, "--replace"]) == 0
    capsys.readouterr()
    with monkeypatch.context() as terminal:
        terminal.setattr("sys.stdin.isatty", lambda: True)
        terminal.setattr("builtins.input", lambda question: "n")
        assert main([*words[:-1], "128"]) == 0
        assert capsys.readouterr().out == "Nothing was replaced.\n"
        terminal.setattr("builtins.input", lambda question: "y")
        assert main([*words[:-1], "128"]) == 0
    config = json.loads((workspace / "artifacts" / "hf_implant" / "base_model" / "config.json").read_text())
    assert config["hidden_size"] == 128
    assert main(["implant", "--hidden-size", "70"]) == 2
    assert "--hidden-size 70" in capsys.readouterr().err


def test_the_corpus_is_built_where_it_is_told(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "build-python-docs", "--output-dir", "training_data/docs"]) == 0
    shown = capsys.readouterr().out
    assert "training_data/docs/train.jsonl" in shown
    with (workspace / "training_data" / "docs" / "train.jsonl").open(encoding="utf8") as file:
        assert json.loads(file.readline())["text"]


def test_samples_can_be_left_out(lab: Lab) -> None:
    result = lab.train("silent", samples=False, steps=1)
    assert {row["event"] for row in rows(result.run_dir)} == {"start", "eval", "train", "checkpoint", "final"}
    resumed = lab.resume("silent", samples=True, steps=2)
    [sample] = [row for row in rows(resumed.run_dir) if row["event"] == "sample"]
    assert sample["sample_time_s"] > 0
