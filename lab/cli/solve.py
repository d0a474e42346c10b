"""``lab solve``: let a trained solver answer a puzzle, and watch it think."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hrm_engine.config.solving import PuzzleConfig, SolveConfig
from hrm_engine.store.paths import Workspace
from lab.cli.console import human_count, say, show_facts, show_json
from lab.cli.flags import config_flags
from lab.cli.parameters import Json
from lab.cli.steering import show_use, steered, use_json

if TYPE_CHECKING:
    from hrm_engine.bundles.bundle import PuzzleBundle
    from hrm_engine.data.puzzles.board import Puzzle
    from hrm_engine.inference.puzzles.solve import Solutions
    from hrm_engine.inference.puzzles.trace import Segment, Trace

_OF_A_ROW = (
    "halted", "confidence", "start", "depth", "segments", "solved_by_verifier", "restarts", "restart_segments",
)  # fmt: skip


@config_flags(SolveConfig)
def solve(settings: SolveConfig, *, json: Json = False) -> int:
    """Solve a puzzle: the board beside the answer, and whether it is valid. * marks cells that a segment changed."""
    import numpy as np

    from hrm_engine import inference
    from hrm_engine.bundles.bundle import PuzzleBundle
    from hrm_engine.bundles.load import load_bundle
    from hrm_engine.bundles.steering import watch_experts

    workspace = Workspace.find()
    loaded = load_bundle(settings.bundle, PuzzleBundle, device=settings.device, workspace=workspace)
    steered(loaded, settings.goals, workspace)
    questions = _questions(loaded, workspace, settings.board)
    has_names = any(question.identifier is not None for question in questions)
    with watch_experts(loaded) as used:
        solutions = inference.solve(
            loaded,
            np.stack([question.inputs for question in questions]),
            identifiers=np.array([question.identifier for question in questions]) if has_names else None,
            settings=settings.effort,
        )
    traces = [
        inference.trace(loaded, question.inputs, identifier=question.identifier, segments=settings.effort.segments)
        if settings.trace
        else None
        for question in questions
    ]
    if json:
        boards = [_board_json(loaded, one, solutions, row, traces[row]) for row, one in enumerate(questions)]
        facts = {"bundle": str(loaded.path), "kind": loaded.card.puzzle, "flops": solutions.flops, "boards": boards}
        show_json({**facts, **use_json(used)})
        return 0
    for row, question in enumerate(questions):
        if row:
            say()
        _show(loaded, question, solutions, row, traces[row])
    show_use(used, settings.goals)
    return 0


def _questions(bundle: PuzzleBundle, workspace: Workspace, chosen: PuzzleConfig) -> list[Puzzle]:
    from hrm_engine.inference.puzzles import given

    if chosen.puzzle is not None:
        return [given.typed_sudoku(bundle, chosen.puzzle)]
    if chosen.maze is not None:
        return [given.drawn_maze(bundle, workspace.resolve(chosen.maze))]
    if chosen.arc is not None:
        return given.arc_task(bundle, workspace.resolve(chosen.arc))
    return [given.held_out_row(bundle, chosen.index or 0, workspace)]


def _board_json(
    bundle: PuzzleBundle, question: Puzzle, solutions: Solutions, row: int, traced: Trace | None
) -> dict[str, Any]:
    board = bundle.card.board
    content: dict[str, Any] = {
        "source": question.source,
        "puzzle": board.to_text(question.inputs),
        "answer": board.to_text(solutions.answers[row]),
        "is_valid": None if solutions.is_valid is None else bool(solutions.is_valid[row]),
        "is_right": question.is_right(board, solutions.answers[row]),
        **{name: getattr(solutions, name)[row].item() for name in _OF_A_ROW},
    }
    if question.warning:
        content["warning"] = question.warning
    return content if traced is None else {**content, "trace": traced.as_json()}


def _show(bundle: PuzzleBundle, question: Puzzle, solutions: Solutions, row: int, traced: Trace | None) -> None:
    from hrm_engine.data.puzzles.board import extent
    from lab.cli.board_view import board_lines, side_by_side

    if question.warning:
        say(f"warning: {question.warning}", style="yellow", stderr=True)
    card, board, answer = bundle.card, bundle.card.board, solutions.answers[row]
    if traced is not None:
        for segment in traced.segments:
            _show_segment(traced, segment)
    boards = [question.inputs, answer]
    right = question.is_right(board, answer)
    if question.solution is not None and right is False and not board.has_rules:
        boards.append(question.solution)
    shape = card.height, card.width
    region = extent(boards, *shape)
    side_by_side([board_lines(board, tokens, shape, region, given=question.inputs) for tokens in boards])
    show_facts(_facts(question, solutions, row, right, expected_shown=len(boards) == 3))


def _facts(
    question: Puzzle, solutions: Solutions, row: int, right: bool | None, *, expected_shown: bool
) -> list[tuple[str, object]]:
    words = {True: "yes", False: "no", None: "not known"}
    facts: list[tuple[str, object]] = [("puzzle", question.source)]
    if solutions.is_valid is not None:
        facts.append(("valid", words[bool(solutions.is_valid[row])]))
    if right is not None:
        facts.append(("right", words[right] + (" (the expected answer stands on the right)" if expected_shown else "")))
    end = "halted by itself" if solutions.halted[row] else "did not halt by itself"
    facts.append(("segments", f"{solutions.depth[row]}, {end}; halting probability {solutions.confidence[row]:.3f}"))
    if solutions.start[row] or solutions.segments[row] > solutions.depth[row]:
        facts.append(("all starts", f"{solutions.segments[row]} segments; start {solutions.start[row]} answered"))
    if solutions.restarts[row]:
        is_solved = solutions.solved_by_verifier[row]
        end = "solved by a restart that the verifier accepted" if is_solved else "not solved by any"
        facts.append(("restarts", f"{solutions.restarts[row]}, {solutions.restart_segments[row]} segments: {end}"))
    facts.append(("cost", f"{human_count(solutions.flops)}FLOP"))
    return facts


def _show_segment(traced: Trace, segment: Segment) -> None:
    from hrm_engine.data.puzzles.board import extent
    from lab.cli.board_view import board_lines, side_by_side

    words = [f"segment {segment.number}", f"{int(segment.changed.sum())} cells changed", f"halt {segment.q_halt:.3f}"]
    if segment.q_continue is not None:
        words.append(f"go on {segment.q_continue:.3f}")
    if segment.number == traced.halted_at:
        words.append("halts here")
    elif traced.halted_at is not None and segment.number > traced.halted_at:
        words.append("beyond its halt")
    say(", ".join(words), style="bold")
    boards = [traced.inputs, *(one.prediction for one in traced.segments)]
    shape = traced.height, traced.width
    region, marks = extent(boards, *shape), segment.changed
    side_by_side([board_lines(traced.board, segment.prediction, shape, region, given=traced.inputs, changed=marks)])
    say()
