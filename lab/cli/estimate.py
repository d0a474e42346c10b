"""``lab estimate``: what a training will take, before it begins."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, Group, Parameter

from hrm_engine.config import build_config, kinds
from hrm_engine.config.kinds import Kind
from hrm_engine.config.training import TrialConfig
from hrm_engine.store.paths import Workspace
from lab.cli.console import human_bytes, human_count, human_seconds, say, show_facts, show_json
from lab.cli.flags import SELF, config_flags
from lab.cli.parameters import Json
from lab.cli.train import app_of_kinds, preset_of

if TYPE_CHECKING:
    from hrm_engine.training.estimating.estimate import Estimate

_BUSY = 0.75
"""Share of its processors' time below which an estimate says that others had the rest."""
_TRIAL = Group("Estimate", help="What is estimated, and how.", sort_key=1)

Preset = Annotated[str | None, Parameter(group=_TRIAL, help="Preset or YAML file to start from; flags go on top.")]


def _command(kind: Kind) -> Callable[..., int]:
    @config_flags(TrialConfig, {SELF: _TRIAL})
    def estimate(settings: TrialConfig, *, config: Preset = None, json: Json = False, **given: Any) -> int:
        workspace, model = Workspace.find(), kinds.chosen(kind, given).config
        training = build_config(model, preset=preset_of(config, model, workspace), overrides=given, typed=True)

        # Only now: a wrong setting should not wait for torch.
        from hrm_engine.training.estimating.estimate import estimate as estimate_of

        if settings.measure:
            say(f"measuring: the data is read, then steps for up to {settings.limit_s:g} s ...", stderr=True)
        result = estimate_of(training, workspace=workspace, measure=settings.measure, limit_s=settings.limit_s)
        if json:
            show_json(result.as_json())
        else:
            _show(result)
        return 0

    estimate.__doc__ = f"""Estimate a training of {kind.words.makes}: the flags are those of {kind.command_line}.

    It leaves no run folder, and nothing else in the workspace.
    """
    return estimate


def _show(result: Estimate) -> None:
    parameters, flops, memory, measured = result.parameters, result.flops, result.memory, result.measured
    beside = [(f"{name.replace('_', ' ')}, beside them", number) for name, number in parameters.beside.items()]
    _section(
        f"parameters  {human_count(parameters.total)}",
        [
            *((name.replace("_", " "), human_count(number)) for name, number in parameters.parts.items()),
            *((name, human_count(number)) for name, number in beside if number),
            *_where(parameters.total - parameters.active, "idle for a token (experts)", human_count),
        ],
    )
    _section(
        f"arithmetic  {_flops(flops.total)} a step, {_flops(result.flops_per_run)} in {result.steps:,} steps",
        [
            ("forward", _flops(flops.forward)),
            ("backward", _flops(flops.backward)),
            *_where(flops.recomputed, "recomputed", _flops),
            *_where(flops.target, "target of Q-learning", _flops),
        ],
    )
    optimizer = memory.optimizer if measured is None else measured.optimizer_bytes
    _section(
        f"tensors  {human_bytes(memory.total)} at the peak of a step, in {result.dtype} on {result.device}",
        [
            ("weights", human_bytes(memory.weights)),
            *_where(memory.masters, "wider copies for the update", human_bytes),
            ("gradients", human_bytes(memory.gradients)),
            ("optimizer", "a trial tells" if optimizer is None else human_bytes(optimizer)),
            *_where(memory.average, "moving average", human_bytes),
            *_where(memory.carry, "slots", human_bytes),
            ("activations", human_bytes(memory.activations)),
        ],
    )
    if measured is None or result.run_s is None:
        if result.device == "cpu":
            say(f"process  about {human_bytes(memory.process)}, with libraries and what a checkpoint needs")
        return
    tokens = result.tokens_per_step
    speed = "" if tokens is None else f", {tokens / measured.step_s[-1]:,.0f} tokens/s"
    steps = ", ".join(f"{1000 * step_s:,.0f} ms" for step_s in measured.step_s)
    _section(
        f"measured  {human_seconds(result.run_s)} for the whole run, {human_bytes(measured.peak_bytes)} of memory",
        [
            ("a step", f"{steps}{speed} ({measured.num_steps} timed, {result.num_threads} threads)"),
            ("an evaluation", human_seconds(measured.evaluation_s)),
            ("a checkpoint", human_seconds(measured.save_s)),
            ("start", human_seconds(measured.start_s + measured.first_step_s)),
            ("bundle at the end", human_seconds(measured.finish_s)),
            *_where(measured.libraries_bytes, "of the memory, libraries", human_bytes),
            ("micro-batch", f"{measured.micro_batch_size} rows"),
        ],
    )
    if result.device == "cpu" and measured.cpu_share < _BUSY:
        say(
            f"The steps had {measured.cpu_share:.0%} of the processor time that they could use: other work on this "
            "machine slows them, and the run will take longer or shorter as that changes."
        )


def _section(title: str, facts: list[tuple[str, object]]) -> None:
    say(title)
    show_facts(facts, "  ")


def _where(number: int, name: str, written: Any) -> list[tuple[str, object]]:
    """A line, where there is anything to say."""
    return [(name, written(number))] if number else []


def _flops(number: float) -> str:
    for limit, unit in ((1e18, "EFLOP"), (1e15, "PFLOP"), (1e12, "TFLOP"), (1e9, "GFLOP")):
        if number >= limit:
            return f"{number / limit:.1f} {unit}"
    return f"{number / 1e6:.1f} MFLOP"


def __getattr__(name: str) -> App:
    if name != "app":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return app_of_kinds("estimate", "Parameters, memory, FLOPs and time of a training before it begins.", _command)
