"""DPO and KTO on SmolLM2, from the example's rows to an adapter, in the services' own code.

`python benchmarks/preference.py --home .sluice` (after `make assets`). For each job the rows are
curated, the recipe is prepared with its memory preflight, and the trainer's process carries it out.
Printed are the figures of the rows that curation held out: how often the right answer is the
likelier one (DPO), and the mean log-odds of desirable and undesirable answers (KTO), with the
adapter and without it. The exit code is 1 if either got no better.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from pathlib import Path

import yaml

sys.path.insert(0, str(Path(__file__).parent.parent))

from contracts.base import digest_of
from contracts.curation import DatasetCurated
from contracts.diagnosis import MethodChoice, RunAccepted
from contracts.job import AdaptationJob
from contracts.progress import Progress
from contracts.run import fold
from contracts.training import AdapterTrained
from services.curation.adapters.pii import PiiDetector
from services.curation.desk import Desk
from services.training.settings import TrainingSettings
from services.training.workshop import Order, Workshop
from shared.artifacts import ArtifactStore, pin
from shared.testing.runs import REF, advised, recorded_log

FOLDER = Path(__file__).parents[1] / "examples" / "tool-calls"
BETTER = {
    "dpo": ("preference_accuracy", "base_preference_accuracy"),
    "kto": ("desirable_log_odds", "base_desirable_log_odds"),
}
"""Job → the measure that must rise, and its value without the adapter."""


def main() -> int:
    """Print a table for each job; 1 if a measure that must rise did not."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--home", type=Path, default=Path(".sluice"))
    parser.add_argument("--only", choices=sorted(BETTER))
    given = parser.parse_args()
    met = True
    for name in [given.only] if given.only else sorted(BETTER):
        with tempfile.TemporaryDirectory() as folder:
            began_s = time.monotonic()
            trained, rows = asyncio.run(carry_out(name, given.home, Path(folder)))
            _print(name, trained, rows, time.monotonic() - began_s)
        after, before = (trained.metrics[measure] for measure in BETTER[name])
        met &= after > before
    return 0 if met else 1


async def carry_out(name: str, home: Path, folder: Path) -> tuple[AdapterTrained, dict[str, int]]:
    """Curate and train the example job `name`; its fact, and the rows of each split."""
    settings = TrainingSettings(home=folder)
    store = ArtifactStore(settings.artifacts_url)
    job = _job(name, home, store)
    choice = MethodChoice(method="preference", reason="the job names it", rejected={})
    events = [
        RunAccepted(job=job, job_digest=digest_of(name.encode())),
        advised().model_copy(update={"choice": choice}),
    ]
    desk = Desk(store, PiiDetector(), folder / "curation")
    curated = await asyncio.to_thread(desk.curate, fold(REF, recorded_log(REF, events)))
    if not isinstance(curated, DatasetCurated):
        raise SystemExit(f"{name}: curation ended with {curated}")
    workshop = Workshop(settings, store)
    order = await workshop.order(fold(REF, recorded_log(REF, [*events, curated])))
    if not isinstance(order, Order):
        raise SystemExit(f"{name}: {order.message}")

    async def report(_stage: str, news: Progress) -> None:
        print(f"[{name}] {news.message}", file=sys.stderr)

    trained = await workshop.train(order, report, asyncio.Event())
    if not isinstance(trained, AdapterTrained):
        raise SystemExit(f"{name}: {trained}")
    return trained, curated.rows


def _job(name: str, home: Path, store: ArtifactStore) -> AdaptationJob:
    document = yaml.safe_load((FOLDER / f"{name}.yaml").read_text())
    files = [document["data"][0], document["evaluation"]["dev"], document["evaluation"]["heldout"]]
    for holder in files:
        holder["uri"] = str(pin(store, (FOLDER / holder["uri"]).as_uri()))
    document["base"]["model"] = str((home / "models" / document["base"]["model"]).resolve())
    return AdaptationJob.model_validate(document)


def _print(name: str, trained: AdapterTrained, rows: dict[str, int], took_s: float) -> None:
    print(
        f"{name}: {rows['train']} rows, {rows['validation']} held out, {trained.steps} steps, "
        f"{took_s:.0f} s in all, {trained.tokens_per_s:.0f} tokens/s"
    )
    for measure in sorted(m for m in trained.metrics if f"base_{m}" in trained.metrics):
        before, after = trained.metrics[f"base_{measure}"], trained.metrics[measure]
        print(f"  {measure:<22} {before:8.3f} -> {after:8.3f}")


if __name__ == "__main__":
    raise SystemExit(main())
