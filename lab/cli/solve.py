"""``lab solve``: let a trained solver answer a puzzle, and watch it think."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Group, Parameter

from hrm_engine.errors import ConfigError
from hrm_engine.store.paths import Workspace
from lab.cli.console import console, human_count, show_facts, show_json
from lab.cli.steering import Goal, Strength, show_use, steered, use_json

if TYPE_CHECKING:
    from hrm_engine.bundles import PuzzleBundle
    from hrm_engine.data.puzzles.board import Puzzle
    from hrm_engine.inference.puzzles.solve import Solutions
    from hrm_engine.inference.puzzles.trace import Segment, Trace

_PUZZLE = Group("Puzzle", sort_key=2)
_EFFORT = Group("Effort", sort_key=3)
_OUTPUT = Group("Output", sort_key=5)


def solve(
    *,
    bundle: Annotated[str, Parameter(help="Name of a solver, or the path of a run, best or checkpoint folder.")],
    puzzle: Annotated[
        str | None,
        Parameter(
            group=_PUZZLE, help="A Sudoku of 81, 36 or 16 characters, '.' or 0 for a blank.", allow_leading_hyphen=True
        ),
    ] = None,
    arc: Annotated[
        Path | None, Parameter(group=_PUZZLE, help="An ARC task file, named after a task that the solver knows.")
    ] = None,
    maze: Annotated[Path | None, Parameter(group=_PUZZLE, help="A maze drawn in a text file with # S G.")] = None,
    index: Annotated[
        int | None,
        Parameter(group=_PUZZLE, help="Row of the test split of the solver's dataset. Default: 0, without a puzzle."),
    ] = None,
    segments: Annotated[
        int | None,
        Parameter(group=_EFFORT, help="ACT segments at most, up to 64. Default: as many as it was trained for."),
    ] = None,
    starts: Annotated[int, Parameter(group=_EFFORT, help="Starts of each puzzle, up to 64.")] = 1,
    starts_from: Annotated[
        Literal["symmetries", "noise"],
        Parameter(group=_EFFORT, help="Further starts see the board under symmetries, or begin with random states."),
    ] = "symmetries",
    choose: Annotated[
        Literal["first_to_halt", "majority", "lowest_residual", "q_weighted"],
        Parameter(group=_EFFORT, help="Which of several starts answers."),
    ] = "first_to_halt",
    halt_confidence: Annotated[
        float, Parameter(group=_EFFORT, help="Halting probability that a start needs to halt, beside wanting to.")
    ] = 0.0,
    until_valid: Annotated[
        int, Parameter(group=_EFFORT, help="Restarts at most while the rules refuse the answer; reported apart.")
    ] = 0,
    device: Annotated[str, Parameter(help="auto, cpu, cuda, cuda:N, mps or xpu.")] = "auto",
    goal: Goal = None,
    goal_bias_strength: Strength = None,
    trace: Annotated[
        bool,
        Parameter(
            group=_OUTPUT, negative="", show_default=False, help="Show what it would answer after every segment."
        ),
    ] = False,
    json: Annotated[
        bool, Parameter(group=_OUTPUT, negative="", show_default=False, help="Write one JSON object instead.")
    ] = False,
) -> int:
    """Solve a puzzle: the board beside the answer, and whether it is valid. * marks cells that a segment changed."""
    import numpy as np

    from hrm_engine import inference
    from hrm_engine.bundles import load_puzzle_bundle
    from hrm_engine.bundles.steering import watch_experts

    given = [flag for flag, value in _ways(puzzle, arc, maze, index).items() if value is not None]
    if len(given) > 1:
        raise ConfigError(f"{' and '.join(given)} each name a puzzle: give one of them")
    workspace = Workspace.find()
    loaded = load_puzzle_bundle(bundle, device=device, workspace=workspace)
    steered(loaded, goal, goal_bias_strength, workspace)
    questions = _questions(loaded, workspace, puzzle, arc, maze, index)
    has_names = any(question.identifier is not None for question in questions)
    with watch_experts(loaded) as used:
        solutions = inference.solve(
            loaded,
            np.stack([question.inputs for question in questions]),
            identifiers=np.array([question.identifier for question in questions]) if has_names else None,
            segments=segments,
            starts=starts,
            starts_from=starts_from,
            choose=choose,
            halt_confidence=halt_confidence,
            until_valid=until_valid,
        )
    traces = [
        inference.trace(loaded, question.inputs, identifier=question.identifier, segments=segments) if trace else None
        for question in questions
    ]
    if json:
        boards = [_board_json(loaded, one, solutions, row, traces[row]) for row, one in enumerate(questions)]
        facts = {"bundle": str(loaded.path), "kind": loaded.card.puzzle, "flops": solutions.flops, "boards": boards}
        show_json({**facts, **use_json(used)})
        return 0
    for row, question in enumerate(questions):
        if row:
            console().print()
        _show(loaded, question, solutions, row, traces[row])
    show_use(used, goal)
    return 0


def _ways(puzzle: str | None, arc: Path | None, maze: Path | None, index: int | None) -> dict[str, object]:
    return {"--puzzle": puzzle, "--arc": arc, "--maze": maze, "--index": index}


def _questions(
    bundle: PuzzleBundle,
    workspace: Workspace,
    puzzle: str | None,
    arc: Path | None,
    maze: Path | None,
    index: int | None,
) -> list[Puzzle]:
    from hrm_engine.inference.puzzles import given

    if puzzle is not None:
        return [given.typed_sudoku(bundle, puzzle)]
    if maze is not None:
        return [given.drawn_maze(bundle, workspace.resolve(maze))]
    if arc is not None:
        return given.arc_task(bundle, workspace.resolve(arc))
    return [given.held_out_row(bundle, index or 0, workspace)]


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
        "halted": bool(solutions.halted[row]),
        "confidence": float(solutions.confidence[row]),
        "start": int(solutions.start[row]),
        "depth": int(solutions.depth[row]),
        "segments": int(solutions.segments[row]),
        "solved_by_verifier": bool(solutions.solved_by_verifier[row]),
        "restarts": int(solutions.restarts[row]),
        "restart_segments": int(solutions.restart_segments[row]),
    }
    if question.warning:
        content["warning"] = question.warning
    return content if traced is None else {**content, "trace": traced.as_json()}


def _show(bundle: PuzzleBundle, question: Puzzle, solutions: Solutions, row: int, traced: Trace | None) -> None:
    from hrm_engine.data.puzzles.board import extent
    from lab.cli.board_view import board_lines, side_by_side

    if question.warning:
        console(stderr=True).print(f"warning: {question.warning}", style="yellow")
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
        end = (
            "solved by a restart that the verifier accepted"
            if solutions.solved_by_verifier[row]
            else "not solved by any"
        )
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
    console().print(", ".join(words), style="bold")
    boards = [traced.inputs, *(one.prediction for one in traced.segments)]
    shape = traced.height, traced.width
    lines = board_lines(
        traced.board,
        segment.prediction,
        shape,
        extent(boards, *shape),
        given=traced.inputs,
        changed=segment.changed,
    )
    side_by_side([lines])
    console().print()
