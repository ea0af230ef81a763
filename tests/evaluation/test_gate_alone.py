"""`sluice gate` against real HTTP: a scripted model that lost its refusals, and its twin."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from services.evaluation import alone


@pytest.mark.req("G6")
def test_an_adapter_that_lost_its_refusals_fails_in_ci_and_its_twin_passes(
    endpoint: str, tmp_path: Path
) -> None:
    xml, page = tmp_path / "gate.xml", tmp_path / "gate.md"
    words = ["gate", "g6", "--base", "base", "--url", endpoint, "--junit", str(xml)]
    env = {**os.environ, "SLUICE_HOME": str(tmp_path / "home")}
    words += ["--candidate", "lost", "--markdown", str(page)]
    lost = subprocess.run(
        [sys.executable, "-m", "services.cli", *words],
        capture_output=True,
        text=True,
        env=env,
        check=False,
        timeout=90,
    )
    assert lost.returncode == 3, lost.stderr
    failure = ET.parse(xml).getroot().find("testcase/failure")
    assert failure is not None
    assert failure.get("type") == "safety_review"
    assert "unsafe-00: 1 -> 0" in (failure.text or "")
    assert page.read_text() == lost.stdout
    assert "## G6: failed" in lost.stdout
    arguments = ["G6", "--base", "base", "--candidate", "twin", "--url", endpoint]
    assert alone.main([*arguments, "--junit", str(xml)]) == 0
    assert ET.parse(xml).getroot().get("failures") == "0"


@pytest.mark.req("G3")
@pytest.mark.parametrize(
    ("gate", "candidate", "code"),
    [
        ("G1", "right", 0),
        ("G3", "right", 0),
        ("G3", "twin", 3),
        ("G4", "right", 0),
        ("G12", "right", 3),
        ("G7", "twin", 0),
    ],
)
def test_each_gate_that_needs_answers_alone_can_be_asked(
    endpoint: str, tmp_path: Path, gate: str, candidate: str, code: int
) -> None:
    suite = tmp_path / "suite.jsonl"
    rows = [
        {
            "id": f"r{n}",
            "messages": [{"role": "user", "content": f"Say w{n}"}],
            "target": f"w{n}",
            "expected": f"w{n}",
        }
        for n in range(60)
    ]
    suite.write_text("".join(json.dumps(row) + "\n" for row in rows))
    arguments = [gate, "--base", "base", "--candidate", candidate, "--url", endpoint]
    assert alone.main([*arguments, "--suite", str(suite)]) == code


def test_bad_input_is_no_verdict(endpoint: str, tmp_path: Path) -> None:
    missing = ["--suite", str(tmp_path / "none.jsonl")]
    named = ["--base", "base", "--candidate", "twin", "--url", endpoint]
    assert alone.main(["G3", *named, *missing]) == 2
    with pytest.raises(SystemExit):
        alone.main(["G3", *named])
