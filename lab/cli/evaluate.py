"""``lab eval``: measure a trained brain on text, a solver on puzzles."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from cyclopts import App

from hrm_engine.config.solving import EffortConfig, EvaluatePuzzleConfig
from hrm_engine.config.writing import EvaluateTextConfig
from hrm_engine.store.figures import perplexity
from hrm_engine.store.paths import Workspace
from lab.cli.console import relative, say, show_json, show_table
from lab.cli.flags import config_flags
from lab.cli.parameters import Json

if TYPE_CHECKING:
    from hrm_engine.inference.puzzles.evaluate_solver import SolverEvaluation

app = App(name="eval", help="Measure a trained brain or solver.")

_THRESHOLDS = (0.25, 0.5, 0.75)


@app.command
@config_flags(EvaluateTextConfig)
def text(settings: EvaluateTextConfig, *, json: Json = False) -> int:
    """Loss and accuracy of a text brain after every segment, and where it halts by itself, with the mean depth."""
    from hrm_engine.bundles.bundle import Bundle
    from hrm_engine.bundles.load import load_bundle
    from hrm_engine.inference.text.evaluate import evaluate, evaluate_adaptive
    from hrm_engine.inference.text.reading import held_out_documents, text_batches
    from hrm_engine.models.act import check_threshold

    workspace = Workspace.find()
    loaded = load_bundle(settings.bundle, Bundle, device=settings.device, workspace=workspace)
    by_itself = () if loaded.model.halt_head is None else _THRESHOLDS
    thresholds = by_itself if settings.halt_threshold is None else settings.halt_threshold
    for threshold in thresholds:
        check_threshold(loaded.model, threshold)
    documents, source, messages = held_out_documents(loaded, settings.dataset_file, workspace, settings)
    batches = text_batches(loaded, documents, batch_size=settings.batch_size, max_rows=settings.max_rows)
    most = settings.segments or loaded.config.halt_max_steps
    fixed = evaluate(loaded.model, batches, num_segments=most)
    adaptive = [
        evaluate_adaptive(loaded.model, batches, num_segments=most, halt_threshold=threshold)
        for threshold in thresholds
    ]
    if json:
        content = {"bundle": str(loaded.path), "text": source, "messages": messages, **asdict(fixed)}
        show_json({**content, "adaptive": [asdict(one) for one in adaptive]})
        return 0
    for message in messages:
        say(message)
    say(f"{relative(loaded.path, workspace)} on {source}: {fixed.num_tokens:,} tokens", wrap=True)
    by_depth = zip(fixed.loss_by_segment, fixed.token_accuracy_by_segment, strict=True)
    rows = [(f"all of {depth}", float(depth), *measured) for depth, measured in enumerate(by_depth, start=1)]
    rows += [
        (f"halts by itself, threshold {one.halt_threshold:g}", one.mean_depth, one.loss, one.token_accuracy)
        for one in adaptive
    ]
    columns = ("depth", "segments a token", "loss", "perplexity", "token accuracy")
    shown = [
        (label, f"{depth:.2f}", f"{loss:.4f}", perplexity(loss) or "-", f"{accuracy:.1%}")
        for label, depth, loss, accuracy in rows
    ]
    show_table(columns, shown, right=columns[1:])
    return 0


@app.command
@config_flags(EvaluatePuzzleConfig)
def puzzle(settings: EvaluatePuzzleConfig, *, json: Json = False) -> int:
    """Puzzles that a solver has right, after every segment and where it halts, beside answers without a model."""
    from hrm_engine.bundles.bundle import PuzzleBundle
    from hrm_engine.bundles.load import load_bundle
    from hrm_engine.inference.puzzles.evaluate_solver import evaluate_solver

    workspace = Workspace.find()
    loaded = load_bundle(settings.bundle, PuzzleBundle, device=settings.device, workspace=workspace)
    measured = evaluate_solver(loaded, workspace=workspace, settings=settings.test)
    if settings.output_dir is not None:
        folder = workspace.resolve(settings.output_dir)
        measured.write_files(folder)
    if json:
        show_json({"bundle": str(loaded.path), **measured.as_json()})
        return 0
    for message in measured.messages:
        say(message)
    rows = measured.report.fields["num_rows"]
    say(f"{relative(loaded.path, workspace)} on {measured.source}: {rows:,} puzzles", wrap=True)
    _show_answers(measured, settings.test.effort)
    if measured.report.arc is not None:
        _show_votes(measured)
    if settings.output_dir is not None:
        say(f"written to {relative(folder, workspace)}", wrap=True)
    return 0


def _show_answers(measured: SolverEvaluation, effort: EffortConfig) -> None:
    from hrm_engine.inference.puzzles.held_out import BASELINES

    fields, more = measured.report.fields, measured.with_effort
    by_depth = zip(fields["exact_accuracy_by_segment"], fields["cell_accuracy_by_segment"], strict=True)
    rows = [
        (f"all of {depth}", f"{depth:.1f}", f"{exact:.1%}", f"{cells:.1%}")
        for depth, (exact, cells) in enumerate(by_depth, 1)
    ]
    halting = fields["exact_accuracy_when_halting"]
    rows.append(("halts by itself", f"{fields['act_steps_mean']:.1f}", f"{halting:.1%}", "-"))
    if more is not None:
        name = f"{effort.starts} starts, {effort.choose}" if effort.starts > 1 else "with more effort"
        rows.append((name, f"{more.segments_mean:.1f}", f"{more.exact_accuracy:.1%}", f"{more.cell_accuracy:.1%}"))
    for name in BASELINES:
        if f"{name}_exact_accuracy" in fields:
            exact, cells = (f"{fields[f'{name}_{what}_accuracy']:.1%}" for what in ("exact", "cell"))
            rows.append((f"baseline: {name}", "-", exact, cells))
    columns = ("answer", "segments", "exact", "cells")
    show_table(columns, rows, right=columns[1:])
    say(f"its halting probability was right about {fields['halt_accuracy']:.1%} of the answers after the last segment")
    if more is not None and more.solved_by_verifier:
        say(f"{more.solved_by_verifier:.1%} were solved by a restart after the rules had refused an answer")
    groups = measured.report.by_difficulty()
    if len(groups) > 1:
        say("by difficulty (guesses that a search needs)")
        columns = ("rating", "puzzles", "exact", "halts by itself", "segments")
        shown = [
            (
                "-".join(f"{end:g}" for end in dict.fromkeys(group["rating"])),
                f"{group['num_rows']:,}",
                f"{group['exact_accuracy']:.1%}",
                f"{group['exact_accuracy_when_halting']:.1%}",
                f"{group['act_steps_mean']:.1f}",
            )
            for group in groups
        ]
        show_table(columns, shown, right=columns[1:])


def _show_votes(measured: SolverEvaluation) -> None:
    more = measured.with_effort
    for name, score in (("votes", measured.report.arc), ("votes with more effort", more and more.score)):
        if score is not None:
            shares = ", ".join(f"pass@{k} {share:.1%}" for k, share in score.pass_at.items() if share == share)
            say(f"{name} on whole grids of {len(score.tasks):,} tasks: {shares or 'their answers are not known'}")
