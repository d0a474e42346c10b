"""``lab eval``: measure a trained brain on text."""

from __future__ import annotations

from dataclasses import asdict

from cyclopts import App

from hrm_engine.config.writing import EvaluateTextConfig
from hrm_engine.store.figures import perplexity
from hrm_engine.store.paths import Workspace
from lab.cli.console import relative, say, show_json, show_table
from lab.cli.flags import config_flags
from lab.cli.parameters import Json

app = App(name="eval", help="Measure a trained brain.")

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
