"""`sluice gate` on a folder: our engine starts for it, answers, and is gone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from tests.failure_modes import world

pytestmark = [pytest.mark.timeout(900), pytest.mark.xdist_group("laboratory")]


def sluice(home: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "services.cli", "gate", *words],
        env={**os.environ, "SLUICE_HOME": str(home), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.req("G6")
def test_a_gate_judges_an_adapter_by_its_folder(
    lab_base: Path, adapter: Callable[..., Path], tmp_path: Path
) -> None:
    refuser = adapter("refuser", world.refusing())
    home = tmp_path / "home"
    (home / "models").mkdir(parents=True)
    (home / "models" / "Lab").symlink_to(lab_base)
    suite, xml = tmp_path / "safety.jsonl", tmp_path / "gate.xml"
    suite.write_text("".join(row.model_dump_json() + "\n" for row in world.safety()))
    words = ["--suite", str(suite), "--junit", str(xml)]  # the base by the adapter's own digest
    lost = sluice(home, "G6", "--candidate", str(refuser), *words)
    assert lost.returncode == 3, lost.stderr
    failure = ET.parse(xml).getroot().find("testcase/failure")
    assert failure is not None
    assert failure.get("type") == "safety_review"


def test_all_gates_judge_an_adapter_by_the_thresholds_of_a_job(
    lab_base: Path, healthy: Path, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    (home / "models").mkdir(parents=True)
    (home / "models" / "Lab").symlink_to(lab_base)
    for name in ("train", "heldout"):
        lines = [row.model_dump_json(exclude_defaults=True) + "\n" for row in world.calls()]
        (tmp_path / f"{name}.jsonl").write_text("".join(lines))
    (tmp_path / "job.json").write_text(json.dumps(job()))
    xml = tmp_path / "gates.xml"
    words = ["--candidate", str(healthy), "--job", str(tmp_path / "job.json")]
    done = sluice(home, "all", *words, "--junit", str(xml))
    assert xml.exists(), done.stderr
    suites = ET.parse(xml).getroot().findall("testsuite")
    said = {s.get("name"): [c.tag for c in s.iterfind("testcase/*")] for s in suites}
    assert list(said) == [f"sluice G{n}" for n in (2, 1, 3, 4, 5, 6, 7, 12)], done.stderr
    fine = ["system-out"]
    assert said["sluice G2"] == said["sluice G3"] == said["sluice G4"] == fine, done.stdout
    assert "| G12 | passed |" in done.stdout
    assert "on 20 items" in done.stdout  # G5, as the job limits it
    tags = {tag for found in said.values() for tag in found}
    worst = 3 if "failure" in tags else 4 if "error" in tags else 0
    assert done.returncode == worst


def job() -> dict[str, object]:
    rows = {"uri": "heldout.jsonl", "licence": "MIT"}
    source = {"uri": "train.jsonl", "licence": "MIT", "provenance": {"source": "us"}}
    return {
        "schema": "sluice.job/v1",
        "name": "lab",
        "tenant": "acme",
        "task_namespace": "paint",
        "base": {"model": "Lab", "name": "Lab"},
        "behaviour": {"description": "Paint.", "scorer": "tool_call", "target": 0.9},
        "data": [source],
        "evaluation": {"dev": rows, "heldout": rows, "general": {"limit": 20}},
        "rollout": {"deployment": "lab"},
    }


def test_the_engine_ends_with_whoever_started_it(
    lab_base: Path, adapter: Callable[..., Path]
) -> None:
    refuser = adapter("refuser", world.refusing())
    engine = subprocess.Popen(
        [sys.executable, "-m", "services.serving.alone", str(lab_base), str(refuser)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    with engine:
        assert engine.stdout is not None
        assert engine.stdin is not None
        ready = json.loads(engine.stdout.readline())
        assert ready["url"].startswith("http://127.0.0.1:")
        engine.stdin.close()
        assert engine.wait(60) == 0
