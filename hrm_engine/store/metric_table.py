"""The one table of what stands in metrics.jsonl: events, fields, units, meaning. The documentation is made from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Metric:
    """One field: its unit ("1" for a plain number, "" for text and lists of text), meaning, and the events it is in."""

    unit: str
    meaning: str
    events: tuple[str, ...]


ENVELOPE: Mapping[str, Metric] = {
    "ts": Metric("ISO 8601, UTC", "when the row was written", ()),
    "run_id": Metric("", "the run that wrote it; a copy may hold rows of several runs", ()),
    "event": Metric("", "the kind of row", ()),
    "step": Metric("optimizer steps", "steps done when the row was written", ()),
    "nonfinite": Metric("", "names of fields that were NaN or infinite and stand as null; absent if none", ()),
}
"""Fields of every row. Their ``events`` are empty: they are in all."""

EVENTS: Mapping[str, str] = {
    "start": "a session begins",
    "train": "one optimizer step",
    "eval": "an evaluation on held-out data",
    "sample": "a text generated at an evaluation",
    "system": "the machine, every 10 s",
    "expert_usage": "routing of one MoE layer in a step: at steps 1, 3, 10, 30, every 100 steps and at the last step",
    "lr_adjustment": "the program changed the learning rate",
    "checkpoint": "a checkpoint was saved",
    "resume": "training goes on from `step`; earlier rows of this run with a larger step no longer count",
    "oom": "memory ran out and the micro-batch was halved",
    "nan": "a loss or gradient was not finite; the update was skipped",
    "diverged": "an evaluation was worse than the first one, after one that was not",
    "spike": "the loss was above 10 times the median of the last 50, and above 0.1",
    "stop": "the session ended early: it was asked to, or it failed",
    "final": "the session ended",
}

_SESSION = ("start", "resume")
_SYSTEM = ("system",)
_TRAIN = ("train",)
_EVAL = ("eval",)
_USAGE = ("expert_usage",)

METRICS: Mapping[str, Metric] = {
    # start, resume, stop, final
    "kind": Metric("", "the kind of training", _SESSION),
    "run_dir": Metric("", "the run folder", _SESSION),
    "command_line": Metric("", "the command line; null if the trainer was called from Python", _SESSION),
    "total_steps": Metric("optimizer steps", "the step at which the run will end", _SESSION),
    "num_parameters": Metric("1", "trainable parameters", _SESSION),
    "num_rows": Metric("rows", "start, resume: rows of the training data; eval: rows evaluated", (*_SESSION, "eval")),
    "num_groups": Metric("puzzles", "puzzles of the training data, augmentations of one counted once", _SESSION),
    "num_test_rows": Metric("rows", "rows of the test split", _SESSION),
    "num_documents": Metric("documents", "documents trained on", _SESSION),
    "num_held_out_documents": Metric("documents", "documents kept for evaluation", _SESSION),
    "device": Metric("", "the device trained on", _SESSION),
    "dtype": Metric("", "number format of the arithmetic", _SESSION),
    "num_threads": Metric("1", "CPU threads of a tensor operation", _SESSION),
    "from_checkpoint": Metric("", "the checkpoint that is continued; null if there was none", _SESSION),
    "messages": Metric("", "warnings at the beginning, a list", _SESSION),
    "reason": Metric("", "why the session ended early, or the rate was changed", ("stop", "lr_adjustment")),
    "exit_code": Metric("1", "what the process ends with", ("stop",)),
    # train and eval
    "loss": Metric(
        "nats/token",
        "nats/cell for puzzles; train, spike: what is minimised, all parts together; eval, final: cross-entropy of "
        "the deepest segment",
        ("train", "eval", "spike", "diverged", "final"),
    ),
    "ce": Metric(
        "nats/token",
        "cross-entropy: text of the next token, mean over tokens and the segments they run; puzzles of a cell",
        _TRAIN,
    ),
    "halt_loss": Metric("nats", "binary cross-entropy of a halting decision", _TRAIN),
    "continue_loss": Metric("nats", "puzzles: binary cross-entropy of the value of going on", _TRAIN),
    "num_halted": Metric("rows", "puzzles: slots that halted in this step; the accuracies are theirs", _TRAIN),
    "cell_accuracy": Metric("share", "puzzles: cells filled rightly, mean over rows", ("train", "eval")),
    "exact_accuracy": Metric("share", "puzzles: rows with every cell right", ("train", "eval")),
    "halt_accuracy": Metric(
        "share", "puzzles: rows whose halting logit says rightly whether they are solved", ("train", "eval")
    ),
    "lb_loss": Metric("1", "load-balancing loss, mean over router calls; 1 where all is even", _TRAIN),
    "z_loss": Metric("1", "mean squared log-partition of the routers", _TRAIN),
    "moe_layers": Metric("1", "layers with experts", _TRAIN),
    "lr": Metric("1", "learning rate of the step", (*_TRAIN, "lr_adjustment")),
    "lr_before": Metric("1", "the rate that was given", ("lr_adjustment",)),
    "layer": Metric("", "name of the layer: module and number", _USAGE),
    "avg_routing_prob": Metric("share", "mean routing probability of each expert, a list", _USAGE),
    "token_counts": Metric("tokens", "tokens sent to each expert in the step's calls, a list", _USAGE),
    "dropped_tokens": Metric("tokens", "of these, how many found their expert full", _USAGE),
    "bias_rate": Metric("share", "assignments that went to experts favoured by a goal", _USAGE),
    "total_tokens": Metric("tokens", "tokens that the layer's calls of the step saw", _USAGE),
    "grad_norm": Metric("1", "norm of the gradient before clipping", _TRAIN),
    "tokens": Metric("tokens", "fresh label tokens since the run began", _TRAIN),
    "token_segments": Metric("tokens", "label tokens times segments run, since the run began", _TRAIN),
    "rows": Metric("rows", "fresh rows since the run began", _TRAIN),
    "tokens_per_s": Metric("tokens/s", "fresh label tokens per second", _TRAIN),
    "token_segments_per_s": Metric("tokens/s", "label tokens times segments run, per second", _TRAIN),
    "rows_per_s": Metric("rows/s", "puzzles: fresh rows per second", _TRAIN),
    "row_segments_per_s": Metric("rows/s", "puzzles: rows times segments run, per second", _TRAIN),
    "step_time_s": Metric("s", "time of one optimizer step", _TRAIN),
    "act_steps_mean": Metric(
        "segments",
        "mean depth: of a token (text; in eval rows where it halts by itself), or of a row that halted (puzzles)",
        ("train", "eval"),
    ),
    "grad_calls": Metric("1", "module calls of a segment with gradient; only where their number is warmed up", _TRAIN),
    "effective_batch_size": Metric("rows", "rows of one optimizer step, accumulation included", _TRAIN),
    "dataset_position": Metric("rows", "position of the data cursor within the epoch", _TRAIN),
    "epoch": Metric("1", "how often the data set was used up", _TRAIN),
    "memory_gpu_bytes": Metric("bytes", "GPU memory taken by the training process; only where there is one", _TRAIN),
    "perplexity": Metric("1", "exp(loss) of the deepest segment", _EVAL),
    "token_accuracy": Metric("share", "share of next tokens predicted rightly by the deepest segment", _EVAL),
    "loss_by_segment": Metric("nats/token", "cross-entropy after each segment, a list", _EVAL),
    "token_accuracy_by_segment": Metric("share", "token accuracy after each segment, a list", _EVAL),
    "adaptive_loss": Metric("nats/token", "cross-entropy where each token halts by itself, same tokens", _EVAL),
    "adaptive_token_accuracy": Metric("share", "token accuracy where each token halts by itself", _EVAL),
    "halt_threshold": Metric("share", "a token goes on while its probability of a gain is above this", _EVAL),
    "num_tokens": Metric("tokens", "label tokens of the evaluation", _EVAL),
    "loss_without": Metric("nats/token", "experts: loss of the base by itself, same tokens", _EVAL),
    "total_activations": Metric(
        "tokens", "experts: sent to it in all evaluations so far, once for each call of its layer", _EVAL
    ),
    "avg_routing_weight": Metric("share", "experts: mean weight that its router gave it there", _EVAL),
    "unigram_loss": Metric("nats/token", "loss of a model that knows only token frequencies, same tokens", _EVAL),
    "exact_accuracy_when_halting": Metric(
        "share", "puzzles: rows that are right at the segment at which they halt by themselves", _EVAL
    ),
    "exact_accuracy_by_segment": Metric("share", "puzzles: exact accuracy after each segment, a list", _EVAL),
    "cell_accuracy_by_segment": Metric("share", "puzzles: cell accuracy after each segment, a list", _EVAL),
    "copy_cell_accuracy": Metric("share", "puzzles: cells that answering the input gets right", _EVAL),
    "copy_exact_accuracy": Metric("share", "puzzles: rows that answering the input gets right", _EVAL),
    "padding_cell_accuracy": Metric("share", "puzzles: cells that answering padding gets right", _EVAL),
    "padding_exact_accuracy": Metric("share", "puzzles: rows that answering padding gets right", _EVAL),
    "majority_cell_accuracy": Metric(
        "share", "puzzles: cells that the most frequent training label of each cell gets right", _EVAL
    ),
    "majority_exact_accuracy": Metric(
        "share", "puzzles: rows that the most frequent training label of each cell gets right", _EVAL
    ),
    "pass_at_1": Metric(
        "share", "ARC, full evaluation: test pairs whose whole grid is the first by vote, mean over tasks", _EVAL
    ),
    "pass_at_2": Metric("share", "ARC, full evaluation: the same among the first two by vote", _EVAL),
    "full": Metric("", "true: the finished bundle on all held-out data", _EVAL),
    "weights_step": Metric("optimizer steps", "full evaluation: the step of the weights that the bundle holds", _EVAL),
    "eval_time_s": Metric("s", "time of the evaluation", _EVAL),
    # sample
    "prompt": Metric("", "what the text was generated from", ("sample",)),
    "text": Metric("", "the generated text", ("sample",)),
    "sample_time_s": Metric("s", "time of generating it", ("sample",)),
    # checkpoint
    "path": Metric("", "the checkpoint's folder, relative to the run folder", ("checkpoint",)),
    "bytes": Metric("bytes", "size of all its files", ("checkpoint",)),
    "save_time_s": Metric("s", "time the save took", ("checkpoint",)),
    # system
    "cpu_percent": Metric("%", "CPU use of the machine, all cores together", _SYSTEM),
    "memory_rss_bytes": Metric("bytes", "resident memory of the training process", ("system", "train")),
    "memory_percent": Metric("%", "memory of the machine in use", _SYSTEM),
    "disk_free_bytes": Metric("bytes", "free space on the run folder's disk", _SYSTEM),
    "gpu_percent": Metric("%", "GPU use; only where there is a GPU", _SYSTEM),
    "gpu_memory_bytes": Metric("bytes", "GPU memory in use; only where there is a GPU", _SYSTEM),
    # incidents
    "micro_batch_size": Metric("rows", "rows of a forward pass from now on", ("oom",)),
    "what": Metric("", "what was not finite: loss or gradient", ("nan",)),
    "in_a_row": Metric("1", "steps in a row that were not finite, this one included", ("nan",)),
    "first_loss": Metric("nats/token", "loss of the first evaluation; nats/cell for puzzles", ("diverged",)),
    "median": Metric("nats/token", "median loss of the last 50 rows", ("spike",)),
    "message": Metric("", "one sentence for the reader", ("oom", "diverged", "final")),
}
"""Field name to unit, meaning and the events it stands in."""


def docs_table() -> str:
    """Markdown: the events, and every field with unit, events and meaning."""
    lines = ["| event | meaning |", "|---|---|"]
    lines += [f"| `{name}` | {meaning} |" for name, meaning in EVENTS.items()]
    lines += ["", "| field | unit | events | meaning |", "|---|---|---|---|"]
    for name, metric in {**ENVELOPE, **METRICS}.items():
        events = ", ".join(f"`{event}`" for event in metric.events) or "all"
        lines.append(f"| `{name}` | {metric.unit or '-'} | {events} | {metric.meaning} |")
    return "\n".join(lines) + "\n"
