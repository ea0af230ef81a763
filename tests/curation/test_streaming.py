"""A corpus in bounded memory, and a curation that survives SIGKILL."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from services.curation.workbench import Workbench, forget
from shared.errors import TransientError

ROOT = Path(__file__).parents[2]
SMALL, LARGE = 5, 15


def command(folder: Path, mebibytes: float) -> subprocess.Popen[str]:
    folder.mkdir(exist_ok=True)
    return subprocess.Popen(
        [sys.executable, "-m", "tests.curation.streaming", str(folder), str(mebibytes)],
        stdout=subprocess.PIPE, text=True, cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def finished(process: subprocess.Popen[str]) -> dict[str, Any]:
    said, _ = process.communicate(timeout=900)
    assert process.returncode == 0
    found: dict[str, Any] = json.loads(said.splitlines()[-1])
    return found


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return finished(command(tmp_path_factory.mktemp("curation") / "small", SMALL))


@pytest.mark.timeout(1200)
def test_peak_memory_does_not_grow_with_the_corpus(whole: dict[str, Any], tmp_path: Path) -> None:
    large = finished(command(tmp_path / "large", LARGE))
    assert large["texts"] > 2.5 * whole["texts"]
    grown = large["peak_mib"] - whole["peak_mib"]
    # Rows in memory took eight times their size, 80 MiB here; an allocator's slack is some 15.
    assert grown < 3 * (LARGE - SMALL), f"{grown:.0f} MiB more for {LARGE - SMALL} MiB more"
    for stage, (came, stayed) in large["stages"].items():
        dropping = stage in {"contamination", "near_duplicates"}
        assert (stayed < came) == dropping, stage


@pytest.mark.req("C8")
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("leg", ["sift", "unlike"])
def test_a_curation_killed_with_9_goes_on_with_its_last_shard(
    whole: dict[str, Any], tmp_path: Path, leg: str
) -> None:
    process = command(tmp_path, SMALL)
    assert process.stdout is not None
    for line in process.stdout:
        now = json.loads(line)
        if (now["leg"], now["done"]) == (leg, 2):
            break
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    again = finished(command(tmp_path, SMALL))
    assert again["dataset"] == whole["dataset"]
    assert again["stages"] == whole["stages"]
    if leg == "sift":
        assert 0 < again["texts"] < whole["texts"]
    else:
        assert again["texts"] == 0


def test_a_folder_of_other_data_or_with_a_damaged_shard_begins_anew(tmp_path: Path) -> None:
    with Workbench(tmp_path, "one") as bench:
        bench.add("rows", "r", 1)
    with Workbench(tmp_path, "one") as bench:
        assert bench.count("rows", "r") == 1
        bench.db.execute("INSERT INTO shards VALUES ('sift', 0, 1, 'gone')")
    with Workbench(tmp_path, "one") as bench:
        assert bench.count("rows", "r") == 0
        bench.add("rows", "r", 1)
    with Workbench(tmp_path, "two") as bench:
        assert bench.count("rows", "r") == 0


def test_two_processes_never_work_in_one_folder(tmp_path: Path) -> None:
    with Workbench(tmp_path, "one"), pytest.raises(TransientError, match="another process"):
        Workbench(tmp_path, "one").__enter__()


def test_only_old_folders_that_nobody_holds_are_forgotten(tmp_path: Path) -> None:
    for name in ("old", "young", "held"):
        with Workbench(tmp_path / name, "k"):
            pass
    for name in ("old", "held"):
        os.utime(tmp_path / name / "lock", (0, 0))
    with Workbench(tmp_path / "held", "k"):
        os.utime(tmp_path / "held" / "lock", (0, 0))
        forget(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"young", "held"}
