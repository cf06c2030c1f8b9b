"""`lbcore simulate` as people and scripts meet it."""

from __future__ import annotations

import json
from pathlib import Path

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
