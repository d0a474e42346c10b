"""Routing from ``expert_usage`` rows: shares, evenness, what is dropped; layers of different sizes, damaged rows."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dashboard.charts import experts as charts
from dashboard.queries.folder import read_parameters
from dashboard.queries.metrics import RunMetrics
from dashboard.queries.overview import has_experts
from dashboard.queries.routing import MAX_STEPS, Routing
from hrm_engine.store.paths import Workspace
from tests.dashboard.run_folders import append_events, write_moe_run
from tests.tiny_puzzles import PuzzleLab, make_puzzles


def usage(path: Path, *rows: tuple[int, dict[str, Any]]) -> Routing:
    append_events(path / "metrics.jsonl", [("expert_usage", step, fields) for step, fields in rows])
    metrics = RunMetrics(path)
    metrics.refresh()
    return metrics.routing()


def layer(name: str, counts: list[Any], **more: Any) -> dict[str, Any]:
    return {"layer": name, "token_counts": counts, **more}


def test_shares_evenness_and_dropped_by_hand(tmp_path: Path) -> None:
    found = usage(
        tmp_path,
        (100, layer("H.0", [30, 10, 0, 0], avg_routing_prob=[0.5, 0.3, 0.1, 0.1], dropped_tokens=4, total_tokens=20)),
        (100, layer("L.0", [5, 5], dropped_tokens=0, total_tokens=5, bias_rate=1.5)),
    )
    cells = found.of("H.0")
    assert cells["share"].tolist() == [0.75, 0.25, 0.0, 0.0]
    assert cells["probability"].tolist() == [0.5, 0.3, 0.1, 0.1]
    first, second = found.by_layer.to_dict("records")
    by_hand = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25)) / math.log(4)
    assert first["entropy"] == pytest.approx(by_hand)
    assert first["dropped"] == pytest.approx(0.1)
    assert math.isnan(first["bias_rate"])
    assert (second["entropy"], second["dropped"], second["bias_rate"]) == (pytest.approx(1.0), 0.0, 1.5)
    assert found.layers == ("H.0", "L.0")
    assert found.steps == (100,)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=15)
@given(counts=st.lists(st.integers(0, 10**9), min_size=1, max_size=40))
def test_shares_add_up_and_evenness_is_a_share(tmp_path_factory: pytest.TempPathFactory, counts: list[int]) -> None:
    found = usage(tmp_path_factory.mktemp("run"), (1, layer("H.0", counts)))
    entropy = found.by_layer["entropy"].iloc[0]
    if sum(counts):
        assert found.cells["share"].sum() == pytest.approx(1)
    if sum(counts) and len(counts) > 1:
        assert 0 <= entropy <= 1
        if len(set(counts)) == 1:
            assert entropy == pytest.approx(1)
    else:
        assert math.isnan(entropy)


def test_layers_are_in_their_natural_order(tmp_path: Path) -> None:
    rows = [(1, layer(name, [1, 1])) for name in ("L.0", "H.10", "H.2", "odd <b>")]
    assert usage(tmp_path, *rows).layers == ("H.2", "H.10", "L.0", "odd <b>")


def test_rows_that_are_none_are_left_out(tmp_path: Path) -> None:
    good = (100, layer("H.0", [1, 2, 3]))
    bad = [
        layer("H.1", "many"),  # type: ignore[arg-type]
        layer("H.1", [1, None]),
        layer("H.1", [1, -1]),
        layer("H.1", [1, "x"]),
        layer("H.1", [1e300, 1]),
        layer("H.1", []),
        layer("H.1", [1] * 2000),
        layer("", [1]),
        {"token_counts": [1]},
        {"layer": None, "token_counts": [1]},
        {},
    ]
    found = usage(tmp_path, good, *((200, row) for row in bad))
    assert found.steps == (100,)
    assert found.layers == ("H.0",)


def test_odd_fields_beside_good_counts_are_not_known(tmp_path: Path) -> None:
    fields = layer("H.0", [4, 4], avg_routing_prob=[0.5], dropped_tokens="x", bias_rate=[1])
    found = usage(tmp_path, (1, fields), (2, layer("H.0", [4, 4], dropped_tokens=100)), (2**60, layer("H.0", [4, 4])))
    assert found.steps == (1, 2)
    assert math.isnan(found.by_layer["dropped"].iloc[0])
    assert found.by_layer["dropped"].iloc[1] == 1.0
    assert found.cells["probability"].notna().sum() == 1


def test_the_last_row_of_a_step_counts(tmp_path: Path) -> None:
    found = usage(tmp_path, (1, layer("H.0", [1, 3])), (1, layer("H.0", [2, 2])))
    assert found.cells["share"].tolist() == [0.5, 0.5]


def test_many_steps_are_thinned_evenly_and_keep_the_last(tmp_path: Path) -> None:
    number = 3 * MAX_STEPS + 7
    found = usage(tmp_path, *((step, layer("H.0", [1, 1])) for step in range(1, number + 1)))
    assert found.num_steps == number
    assert MAX_STEPS <= len(found.steps) <= MAX_STEPS + 1
    assert found.steps[-1] == number
    gaps = {after - before for before, after in zip(found.steps, found.steps[1:], strict=False)}
    assert gaps <= {3, 4}


def test_a_run_without_experts_has_no_routing(tmp_path: Path) -> None:
    found = usage(tmp_path)
    assert (found.layers, found.steps, found.num_steps) == ((), (), 0)
    assert found.cells.empty


def test_layers_of_different_sizes_leave_cells_blank(tmp_path: Path) -> None:
    found = usage(tmp_path, (1, layer("H.0", [1, 1, 2])), (1, layer("<b>", [3])))
    drawn = charts.usage_map(found.at(1), found.layers, 0.5, {})
    cells = drawn.data[0]
    assert list(cells.y) == ["&lt;b&gt;", "H.0"]
    assert [list(row) for row in cells.z] == [[1.0, None, None], [0.25, 0.25, 0.5]]
    assert cells.zmax == 0.5


@pytest.mark.parametrize(("number", "kind"), [(1, "scatter"), (8, "scatter"), (64, "heatmap")])
def test_shares_of_many_experts_are_a_map(tmp_path: Path, number: int, kind: str) -> None:
    found = usage(tmp_path, *((step, layer("H.0", [step] * number)) for step in (1, 2)))
    drawn = charts.token_shares(found.of("H.0"), {})
    assert drawn.data[0].type == kind
    assert ("even" in [trace.name for trace in drawn.data]) == (1 < number < 64)


def test_figures_of_a_whole_run(lab: Workspace) -> None:
    metrics = RunMetrics(write_moe_run(lab.root, "moe", bias_rate=0.5))
    metrics.refresh()
    found = metrics.routing()
    assert len(found.steps) == 20
    drawn = charts.entropies(found.by_layer, found.layers)
    assert [trace.name for trace in drawn.data] == ["H.0", "H.1", "L.0", "L.1", "0.9"]
    assert min(drawn.data[0].y) > drawn.layout.yaxis.range[0]
    assert len(charts.by_layer_lines(found.by_layer, found.layers, "bias_rate", "bias").data) == 4
    dropped = charts.by_layer_lines(found.by_layer, found.layers, "dropped", "dropped").data[0].y
    assert dropped[0] > dropped[-1]


def test_the_rows_of_a_real_training(lab: Workspace, tmp_path: Path) -> None:
    (lab.root / "training_data").mkdir(exist_ok=True)
    puzzles = PuzzleLab(lab.root, make_puzzles(tmp_path / "source"))
    puzzles.train("moe", use_moe=True, num_experts=4, steps=3)
    run = puzzles.run_dir("moe")
    metrics = RunMetrics(run)
    metrics.refresh()
    found = metrics.routing()
    assert found.layers == ("H.0",)
    assert found.steps == (1, 3)
    assert found.by_layer["num_experts"].tolist() == [4, 4]
    assert found.by_layer["entropy"].between(0, 1).all()
    assert found.by_layer["dropped"].between(0, 1).all()
    assert found.cells["probability"].notna().all()
    assert has_experts(read_parameters(run / "training_args.json"))
    assert set(metrics.train(("lb_loss", "z_loss"))["name"]) == {"lb_loss", "z_loss"}
