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
