"""``lab optim list``."""

from __future__ import annotations

import json

import pytest

from hrm_engine.optim.library import REFUSED
from lab.cli.app import main


def test_names_remarks_and_reasons(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["optim", "list"]) == 0
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    assert "built in" in lines["adam_atan2"]
    assert "no --weight-decay" in lines["fromage"]
    assert f"cannot be used: {REFUSED['lbfgs']}" in lines["lbfgs"]
    assert main(["optim", "list", "--json"]) == 0
    rules = {rule["name"]: rule for rule in json.loads(capsys.readouterr().out)}
    assert list(rules) == list(lines)[1:]
    assert rules["muon"]["usable"]
    assert rules["lbfgs"] == {
        "name": "lbfgs",
        "source": "pytorch_optimizer",
        "description": "",
        "refused": REFUSED["lbfgs"],
        "usable": False,
    }
