"""Several processes curate as one does, and survive what can happen to them."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from services.curation import checking, handlers, pipeline, settings
from services.curation.adapters.pii import PiiDetector
from services.curation.crew import WorkerKilled, in_order
from services.curation.pipeline import Advance, Curated
from services.curation.redaction import Detector
from services.curation.settings import CurationSettings
from tests.curation.crew import Deadly, Squares
from tests.curation.samples import clean_rows, contents, held_out, row, training

ROOT = Path(__file__).parents[2]
Job = Callable[..., Any]


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checking, "SHARD_ROWS", 10)


def corpus() -> list[dict[str, Any]]:
    """Eight shards in which every stage of the first leg has something to do."""
    rows = clean_rows(70)
    rows += [
        row(f"mail{i}", f"Write to anna{i % 4}@kite-mail.org about case {i}") for i in range(4)
    ]
    rows += [row("leak", "Find the kraken of the harbour by night"), row("away", "Withhold me")]
    rows += [row(f"bluebird{i}", f"Deploy Bluebird to the {w} host") for i, w in enumerate("ab")]
    rows += [row("says", "Say how the tide is", "Certainly! The tide is high.")]
    return [*rows, {**rows[0], "id": "again"}]


def curated(folder: Path, job: Any, detector: Detector, processes: int, **more: Any) -> Any:
    evaluation = {"heldout": held_out([row("h", "Find the kraken of the harbour by night")])}
    return pipeline.curate(
        job, [training(corpus())], evaluation, detector, folder, processes=processes, **more
    )


@pytest.mark.req("C8")
def test_two_processes_give_the_dataset_that_one_gives(job: Job, tmp_path: Path) -> None:
    policy = {"private_terms": ["Bluebird"], "withheld_rows": ["away"]}
    given = job(curation=policy)
    one = curated(tmp_path / "one", given, PiiDetector(), 1)
    two = curated(tmp_path / "two", given, PiiDetector(), 2)
    assert isinstance(one, Curated)
    assert isinstance(two, Curated)
    assert two.snapshot.digest == one.snapshot.digest
    assert contents(two) == contents(one)
    stages = {stage.stage: stage for stage in two.snapshot.card.stages}
    assert stages["redaction"].changed == {"redacted:EMAIL": 4, "redacted:PRIVATE": 2}
    assert stages["contamination"].dropped == {"heldout:exact": 1}
    assert stages["withholding"].dropped == {"withheld": 1}
    assert stages["exact_duplicates"].dropped == {"exact_duplicate": 1}
    assert stages["openings"].changed == {"reported:teacher_opening": 1}
    assert multiprocessing.active_children() == []


def test_a_killed_worker_stops_curation_with_its_shard_and_loses_none(
    job: Job, tmp_path: Path
) -> None:
    armed = tmp_path / "armed"
    whole = curated(tmp_path / "whole", job(), Deadly(armed), 1)
    rows = [*corpus(), row("end", "Write to kill@me.org now")]
    given = (job(), [training(rows)], {}, Deadly(armed), tmp_path / "work")
    armed.touch()
    seen: list[Advance] = []
    with pytest.raises(WorkerKilled, match=r"3 times at shard 8, from line 81"):
        pipeline.curate(*given, processes=2, on_advance=seen.append)
    assert [now.done for now in seen] == [1, 2, 3, 4, 5, 6, 7, 8]
    armed.unlink()
    seen.clear()
    done = pipeline.curate(*given, processes=2, on_advance=seen.append)
    assert isinstance(done, Curated)
    assert [now.done for now in seen if now.leg == "sift"] == [9]
    fresh = pipeline.curate(*given[:4], tmp_path / "fresh")
    assert isinstance(fresh, Curated)
    assert done.snapshot.digest == fresh.snapshot.digest != whole.snapshot.digest


def test_what_ends_a_curation_ends_its_workers(job: Job, tmp_path: Path) -> None:
    class Left(Exception):
        pass

    def leave(now: Advance) -> None:
        if now.done == 2:
            raise Left

    with pytest.raises(Left):
        curated(tmp_path, job(), Deadly(tmp_path / "none"), 2, on_advance=leave)
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize("ended", ["run", "step"])
async def test_a_cancelled_step_leaves_curation_at_its_next_shard(ended: str) -> None:
    begun, left = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    class Endless:
        def curate(self, run: object, on_advance: Callable[[Advance], None]) -> None:
            loop.call_soon_threadsafe(begun.set)
            try:
                for done in range(1, 3000):
                    on_advance(Advance("sift", done, 3000))
                    time.sleep(0.01)
            finally:
                loop.call_soon_threadsafe(left.set)

    async def progress(*_: object) -> None:
        pass

    registered: list[Any] = []
    steps = SimpleNamespace(on=lambda _: registered.append)
    handlers.register(cast(Any, steps), cast(Any, Endless()))
    step = SimpleNamespace(
        run=None, progress=progress, tick=lambda *_: None, cancelled=asyncio.Event()
    )
    working = asyncio.ensure_future(registered[0](step))
    await begun.wait()
    if ended == "run":
        step.cancelled.set()
        assert await asyncio.wait_for(working, 10) is None
    else:
        working.cancel()
        with pytest.raises(asyncio.CancelledError):
            await working
    await asyncio.wait_for(left.wait(), 10)


def test_a_piece_whose_worker_was_killed_is_done_again(tmp_path: Path) -> None:
    found = list(in_order(Squares(tmp_path, lethal=3, times=1), range(6), 2))
    assert found == [0, 1, 4, 9, 16, 25]
    assert len(list(tmp_path.glob("3-*"))) == 2


def test_no_more_pieces_are_under_way_than_workers_and_one(tmp_path: Path) -> None:
    results = in_order(Squares(tmp_path), range(12), 2)
    for taken in range(1, 5):
        next(results)
        time.sleep(0.3)
        begun = {path.name.split("-")[0] for path in tmp_path.iterdir()}
        assert taken <= len(begun) <= taken + 2
    results.close()
    assert multiprocessing.active_children() == []


def test_workers_die_with_a_killed_parent(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.curation.crew", str(tmp_path)]
    parent = subprocess.Popen(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)})
    until = time.monotonic() + 60
    while len(workers := list(tmp_path.iterdir())) < 2 and time.monotonic() < until:
        time.sleep(0.1)
    pids = [int(path.name.split("-")[1]) for path in workers]
    assert len(pids) == 2
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    while any(map(_runs, pids)) and time.monotonic() < until:
        time.sleep(0.1)
    assert not any(map(_runs, pids))


def test_the_workers_are_the_cores_that_memory_has_room_for_or_what_is_set(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(settings, "MEMORY_LIMIT", limit)
    for said, cores, workers in (
        (None, 1, 1), (None, 3, 3), (None, 64, 4), ("max\n", 64, 4), (f"{64 << 30}\n", 64, 4),
        (f"{1 << 30}\n", 64, 3), (f"{512 << 20}\n", 64, 1), (f"{1 << 30}\n", 2, 2),
    ):  # fmt: skip
        limit.unlink(missing_ok=True)
        if said:
            limit.write_text(said)
        monkeypatch.setattr(os, "sched_getaffinity", lambda _, n=cores: set(range(n)))
        assert CurationSettings().workers == workers
    monkeypatch.setenv("SLUICE_CURATION_PROCESSES", "7")
    assert CurationSettings().workers == 7


def _runs(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"
