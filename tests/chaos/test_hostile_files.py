"""Hostile weights, configurations and manifests are refused, in little memory."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.timeout(1200), pytest.mark.req("R2"), pytest.mark.req("V8")]

ROOT = Path(__file__).parents[2]
EXPECTED = {
    "registry": {"InvalidInput"},
    "serving": {"AdapterRefused"},
    "store": {"ArtifactCorrupt", "ArtifactMissing"},
}


@pytest.mark.parametrize("reader", EXPECTED)
def test_what_means_harm_is_refused_in_bounded_memory(reader: str, seed: int, long: bool) -> None:
    count = 10_000 if long else 300
    program = [sys.executable, "-m", "tests.chaos.hostile", reader, str(seed), str(count)]
    done = subprocess.run(program, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    reasons = json.loads(done.stdout)
    print(f"{reader}: {reasons}", flush=True)
    assert set(reasons) <= EXPECTED[reader]
    assert sum(reasons.values()) == count
