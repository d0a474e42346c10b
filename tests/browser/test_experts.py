"""Experts and Goals in a real browser: what is clicked stands on the disk, and the command line says the same."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from hrm_engine.store.files import write_json
from hrm_engine.store.goals import Goals
from hrm_engine.store.paths import Workspace
from lab.cli.app import main
from tests.browser.pages import (
    assert_no_errors,
    click_at_rest,
    take_picture,
    tick,
    wait_for_axis,
    wait_for_metric,
    wait_for_script,
    wait_until_drawn,
)
from tests.dashboard.registries import HOSTILE, add_expert, on_disk, write_registry
from tests.dashboard.run_folders import write_moe_run
from tests.tiny_experts import make_expert
from tests.tiny_solvers import save_solver, tiny_solver

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

pytestmark = pytest.mark.browser


@pytest.fixture
def lab(workspace: Path) -> Workspace:
    """A workspace with five experts and two goals."""
    found = Workspace(workspace)
    write_registry(found)
    return found


@pytest.fixture
def cli(lab: Workspace, capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    """``cli(*words)`` gives what a ``lab`` command says as JSON; the server is another process."""

    def answer(*words: str) -> Any:
        capsys.readouterr()
        assert main([*words, "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    return answer


def dialog(page: Page, title: str) -> Locator:
    """The open dialog of that title."""
    found = page.get_by_role("dialog").filter(has_text=title)
    found.wait_for()
    return found


def press(page: Page, name: str) -> None:
    """Press a button of the page, which has been drawn: while it is, the button may be about to move."""
    wait_until_drawn(page)
    page.get_by_role("button", name=name, exact=True).click()


def test_an_expert_is_frozen(
    lab: Workspace, start_dashboard: Callable[[Path], str], page: Page, screenshots: Path, cli: Callable[..., Any]
) -> None:
    page.goto(f"{start_dashboard(lab.root)}/experts")
    page.get_by_text("5 experts").wait_for()
    wait_for_metric(page, "Frozen", "1")
    tick(page, 0)
    page.wait_for_url("**/experts?expert=docs")
    take_picture(page, screenshots / "experts.png")
    press(page, "Freeze")
    page.get_by_role("button", name="Unfreeze").wait_for()
    wait_for_metric(page, "Frozen", "2")
    assert on_disk(lab, "docs")["is_frozen"] is True
    assert cli("experts", "show", "docs")["is_frozen"] is True
    assert_no_errors(page)

    # What the command line changes is seen without a click.
    Goals(lab).registry.update("notes", is_frozen=True)
    wait_for_script(
        page,
        "() => [...document.querySelectorAll('[data-testid=stMetric]')].some("
        "card => card.innerText.startsWith('Frozen') && card.innerText.includes('3'))",
    )

    # What changes the routing asks, and waits for the answer.
    press(page, "Deactivate")
    asked = dialog(page, "Deactivate expert")
    asked.get_by_text("No token will be routed to docs").wait_for()
    take_picture(page, screenshots / "dialog.png")
    asked.get_by_role("button", name="Cancel").click()
    asked.wait_for(state="hidden")
    assert on_disk(lab, "docs")["is_active"] is True
    press(page, "Deactivate")
    dialog(page, "Deactivate expert").get_by_role("button", name="Deactivate").click()
    page.get_by_role("button", name="Activate", exact=True).wait_for()
    assert on_disk(lab, "docs")["is_active"] is False

    press(page, "Delete")
    asked = dialog(page, "Delete expert")
    asked.get_by_role("button", name="Delete").click()
    asked.get_by_text("has children").wait_for()
    asked.get_by_role("button", name="Close").click()
    asked.wait_for(state="hidden")
    assert {card["expert_id"] for card in cli("experts", "list")} >= {"docs", "typing"}
    assert_no_errors(page)


def test_an_expert_is_attached_and_detached(
    lab: Workspace, start_dashboard: Callable[[Path], str], page: Page, screenshots: Path, cli: Callable[..., Any]
) -> None:
    solver = save_solver(tiny_solver(arch="hrm"), lab.runs / "tiny")
    write_json(solver / "training_args.json", {"schema_version": 1, "kind": "puzzle"})
    make_expert(lab, "digits", width=32, inner=32)
    page.goto(f"{start_dashboard(lab.root)}/experts?expert=digits")
    press(page, "Attach")
    asked = dialog(page, "Attach expert")
    asked.get_by_role("combobox").first.click()
    page.get_by_role("option", name="runs/tiny").click()
    take_picture(page, screenshots / "attach.png")
    asked.get_by_role("button", name="Attach").click()
    page.get_by_text("runs/tiny-digits", exact=True).wait_for()
    assert cli("experts", "show", "digits")["attached_to"] == [str(lab.root / "artifacts" / "runs" / "tiny-digits")]
    page.get_by_role("button", name="Detach").click()
    asked = dialog(page, "Detach expert")
    asked.get_by_text("stays as it is").wait_for()
    asked.get_by_role("button", name="Detach").click()
    asked.wait_for(state="hidden")
    assert (lab.runs / "tiny-digits-without-digits" / "metadata.json").is_file()
    # What the command line attaches is seen without a click.
    cli("experts", "attach", "digits", "--bundle", "tiny", "--layer", "L.0")
    page.get_by_text("runs/tiny-digits-2", exact=True).wait_for()
    assert_no_errors(page)


def test_a_goal_is_added_and_linked(
    lab: Workspace, start_dashboard: Callable[[Path], str], page: Page, screenshots: Path, cli: Callable[..., Any]
) -> None:
    page.goto(f"{start_dashboard(lab.root)}/goals")
    page.get_by_text("2 goals · 1 active").wait_for()
    press(page, "New goal")
    asked = dialog(page, "New goal")
    asked.get_by_label("What is wanted").fill(HOSTILE)
    asked.get_by_role("button", name="Add").click()
    page.wait_for_url("**/goals?goal=3")
    page.get_by_text("3 goals · 2 active").wait_for()
    page.get_by_text(HOSTILE, exact=True).filter(visible=True).first.wait_for()
    assert page.locator("img[src=x]").count() == 0
    press(page, "Link expert")
    asked = dialog(page, "Link expert")
    asked.get_by_role("combobox").click()
    page.get_by_role("option", name="poems").click()
    asked.get_by_role("button", name="Link").click()
    asked.wait_for(state="hidden")
    page.get_by_role("button", name="Unlink").wait_for()
    take_picture(page, screenshots / "goals.png")
    goal = next(goal for goal in cli("goals", "list") if goal["id"] == 3)
    assert (goal["text"], goal["experts"], goal["active"]) == (HOSTILE, ["poems"], True)
    assert on_disk(lab, "poems")["goals"] == [{"id": 3, "text": HOSTILE}]
    assert_no_errors(page)

    tick(page, 1)
    page.wait_for_url("**/goals?goal=2")
    page.get_by_text("Goal 2", exact=True).wait_for()
    press(page, "Remove")
    dialog(page, "Remove goal").get_by_role("button", name="Remove").click()
    page.get_by_text("2 goals · 2 active").wait_for()
    assert [goal["id"] for goal in cli("goals", "list", "--all")] == [1, 3]
    assert page.title() not in ("1", "2")
    assert_no_errors(page)


def test_an_expert_is_chosen_in_the_tree(lab: Workspace, start_dashboard: Callable[[Path], str], page: Page) -> None:
    add_expert(lab, "hostile", name=HOSTILE, description=HOSTILE, parent_expert_id="poems")
    page.goto(f"{start_dashboard(lab.root)}/experts")
    tree = page.locator(".js-plotly-plot")
    tree.locator(".points path").first.wait_for()
    # The points of one state are one trace: the active ones, then poems, which is frozen, then the inactive one.
    click_at_rest(page, tree.locator(".points path").last)
    page.wait_for_url("**/experts?expert=typing")
    page.get_by_role("button", name="Activate", exact=True).wait_for()
    page.goto(f"{page.url.split('?')[0]}?expert=hostile")
    page.get_by_text(HOSTILE, exact=True).filter(visible=True).first.wait_for()
    page.wait_for_timeout(500)
    assert page.locator("img[src=x]").count() == 0
    assert page.title() not in ("1", "2")
    assert_no_errors(page)


def test_the_routing_of_a_run_over_time(
    lab: Workspace, start_dashboard: Callable[[Path], str], page: Page, screenshots: Path
) -> None:
    write_moe_run(lab.root, "moe")
    page.goto(f"{start_dashboard(lab.root)}/experts?view=Routing")
    wait_for_axis(page, "expert")
    shares = """() => Array.from(document.querySelectorAll('.js-plotly-plot')).map(
        plot => plot._fullData.find(trace => trace.type === 'heatmap')).find(Boolean)?.z[0][0]"""
    late = page.evaluate(shares)
    take_picture(page, screenshots / "routing.png")
    slider = page.get_by_role("slider")
    slider.focus()
    slider.press("Home")
    wait_for_script(page, "() => new URLSearchParams(location.search).get('step') === '20'")
    wait_for_script(page, f"late => Math.abs(({shares})() - late) > 0.01", late)
    assert_no_errors(page)
