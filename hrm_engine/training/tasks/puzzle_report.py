"""An evaluation of a puzzle solver as a training tells it."""

from __future__ import annotations

import math

from hrm_engine.inference.puzzles.held_out import BASELINES, Report
from hrm_engine.training.task import Evaluated


def evaluated(report: Report, *, leaves_files: bool) -> Evaluated:
    """The fields of the ``eval`` row, its summary, how it is ranked, and what it leaves in ``evaluation/``."""
    fields = report.fields
    exact, halting, depth = (
        fields[name] for name in ("exact_accuracy", "exact_accuracy_when_halting", "act_steps_mean")
    )
    summary = (
        f"exact {100 * exact:.1f} %, adaptive {100 * halting:.1f} % ({depth:.1f} of "
        f"{len(fields['exact_accuracy_by_segment'])} segments), cells {100 * fields['cell_accuracy']:.1f} %, "
        f"halting right {100 * fields['halt_accuracy']:.1f} %"
    )
    by_name = (f"{name} {100 * fields[f'{name}_cell_accuracy']:.1f} %" for name in BASELINES)
    if report.arc is not None:
        known = [(k, share) for k, share in report.arc.pass_at.items() if math.isfinite(share)]
        shares = ", ".join(f"pass@{k} {100 * share:.1f} %" for k, share in known)
        summary = f"{shares or 'no answers known'} of {len(report.arc.tasks)} tasks; {summary}"
    # exact accuracy decides; between equals the loss does
    return Evaluated(
        fields,
        [-exact, fields["loss"]],
        summary,
        f"baselines, cells right: {', '.join(by_name)}",
        report.write_files if leaves_files else None,
    )
