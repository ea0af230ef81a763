"""`sluice gate` against real HTTP: a scripted model that lost its refusals, and its twin."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from contracts.job import GateId
from contracts.measure import VerdictName
from services.evaluation import alone
from services.evaluation.chain import Timed, chain, together
from services.evaluation.gates.judgement import Judgement
from services.evaluation.report import junit, markdown
from shared.errors import PermanentError


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
    with pytest.raises(SystemExit):  # G7 has no training rows
        alone.main(["ALL", *named, *missing])


def test_several_verdicts_are_one_table_and_several_suites() -> None:
    gates = [
        Timed(Judgement(gate="G1", verdict="passed", summary="Fine."), 1.25),
        Timed(Judgement(gate="G3", verdict="failed", summary="No gain."), 2.0),
    ]
    root = ET.fromstring(junit(gates).partition("\n")[2])
    assert [suite.get("failures") for suite in root.findall("testsuite")] == ["0", "1"]
    page = markdown(gates, 3.5)
    assert "| G3 | failed | 2.0 |" in page
    assert "| 3.5 |" in page
    assert "## G3: failed" in page


@pytest.mark.parametrize(
    ("verdicts", "whole"),
    [
        (("passed", "passed"), "passed"),
        (("passed", "inconclusive"), "inconclusive"),
        (("inconclusive", "failed"), "failed"),
    ],
)
def test_a_chain_is_as_good_as_its_worst_gate(
    verdicts: tuple[VerdictName, ...], whole: VerdictName
) -> None:
    assert together(verdicts) == whole


async def test_the_first_error_of_a_chain_calls_back_the_gates_beside_it() -> None:
    ended: list[str] = []

    async def judge(gate: GateId) -> Judgement:
        try:
            if gate == "G4":
                await asyncio.sleep(0.01)
                raise PermanentError("no G4")
            if gate in ("G5", "G6", "G7", "G12"):
                await asyncio.sleep(60)
        finally:
            ended.append(gate)
        return Judgement(gate=gate, verdict="failed", summary="Asked all the same.")

    with pytest.raises(PermanentError, match="no G4"):
        await chain(judge)
    assert ended[:4] == ["G2", "G1", "G3", "G4"]
    assert set(ended[4:]) == {"G5", "G6", "G7", "G12"}
