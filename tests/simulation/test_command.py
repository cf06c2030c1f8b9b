"""`lbcore simulate` as people and scripts meet it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from lbcore.cli import main
from tests.harness.service import ROOT, lbcore

A90 = str(ROOT / "bench" / "scenarios" / "develop" / "a90.yaml")
FEW = ("--requests", "4000")


def test_a_table_of_the_baselines_and_the_scenarios_policies() -> None:
    ran = lbcore("simulate", A90, *FEW)
    assert (ran.code, ran.stderr) == (0, "")
    rows = ran.stdout.splitlines()
    assert rows[0].split()[:3] == ["POLICY", "P50", "ms"]
    assert [row.split()[0].partition("(")[0] for row in rows[1:4]] == ["jsq", "sed", "least_request"]


def test_json_and_other_policies() -> None:
    arguments = ("--policy", "maglev", "--policy", "{least_request: {choice_count: 3}}", "--seeds", "2", "--json")
    ran = lbcore("simulate", A90, *FEW, *arguments)
    report = json.loads(ran.stdout)
    assert report["seeds"] == [1, 2]
    assert report["requests"] == 4000
    names = [row["name"] for row in report["policies"]]
    assert names == ["jsq", "sed", "maglev", "least_request(choice_count=3)"]
    assert report["policies"][0]["p99_to_jsq"] == 1.0


def test_mistakes_are_told_with_file_line_and_field(tmp_path: Path) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text("fleet: {servers: [{count: 3}]}\ntraffic: {load: -1}\n")
    ran = lbcore("simulate", str(file))
    assert (ran.code, ran.stdout) == (2, "")
    assert ran.stderr.startswith(f"{file}:2: traffic.load: load -1: expected ")
    assert lbcore("simulate", A90, "--policy", "none").code == 2
    assert lbcore("simulate", str(tmp_path / "absent.yaml")).code == 2
    ran = lbcore("simulate", A90, "--requests", "none")
    assert ran.code == 2
    assert "expected a whole number" in ran.stderr


def test_a_picture(tmp_path: Path) -> None:
    drawn = tmp_path / "drawn.png"
    scenario = str(ROOT / "bench" / "scenarios" / "develop" / "e70_fail_fast.yaml")
    ran = lbcore("simulate", scenario, *FEW, "--plot", str(drawn))
    assert (ran.code, ran.stderr) == (0, "")
    assert drawn.read_bytes().startswith(b"\x89PNG")
    ran = lbcore("simulate", scenario, *FEW, "--plot", str(tmp_path / "drawn.txt"))
    assert ran.code == 1
    assert ran.stderr.startswith(f"lbcore: {tmp_path / 'drawn.txt'}: ")


def test_a_picture_names_the_extra_that_it_needs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.delitem(sys.modules, "lbcore.simulation.plot", raising=False)
    assert main(["simulate", A90, "--plot", "drawn.png"]) == 1
    assert capsys.readouterr() == ("", "lbcore: simulate needs matplotlib: pip install 'lbcore[plot]'\n")
