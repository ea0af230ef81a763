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
from dataclasses import dataclass
from pathlib import Path

import yaml
from pydantic import JsonValue

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
            done = asyncio.run(carry_out(name, given.home, Path(folder)))
            trained = done.trained
            _print(name, trained, done.rows, time.monotonic() - began_s)
        after, before = (trained.metrics[measure] for measure in BETTER[name])
        met &= after > before
    return 0 if met else 1


@dataclass(frozen=True, slots=True, kw_only=True)
class CarriedOut:
    """An example job that went from its rows to an adapter."""

    trained: AdapterTrained
    rows: dict[str, int]
    """Split → rows."""
    held_out: Path
    """The rows that curation set apart."""
    adapter: Path


async def carry_out(
    name: str, home: Path, folder: Path, *, shortest: int | None = None, **train: JsonValue
) -> CarriedOut:
    """Curate and train the example job `name` on the base under `home`; files go into `folder`.

    Its `shortest` rows alone where that is said, and `train` in place of hyperparameters it names.
    """
    settings = TrainingSettings(home=folder)
    store = ArtifactStore(settings.artifacts_url)
    job = _job(name, home, folder, store, shortest=shortest, train=train)
    method = "lora" if job.method.name == "auto" else job.method.name
    choice = MethodChoice(method=method, reason="the job names it", rejected={})
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
    return CarriedOut(
        trained=trained,
        rows=curated.rows,
        held_out=order.work / "validation.jsonl",
        adapter=order.work / "adapter",
    )


def _job(
    name: str,
    home: Path,
    folder: Path,
    store: ArtifactStore,
    *,
    shortest: int | None,
    train: dict[str, JsonValue],
) -> AdaptationJob:
    document = yaml.safe_load((FOLDER / f"{name}.yaml").read_text())
    data, evaluation = document["data"][0], document["evaluation"]
    lines = (FOLDER / data["uri"]).read_text().splitlines(keepends=True)
    rows = folder / "rows.jsonl"
    rows.write_text("".join(sorted(lines, key=len)[:shortest] if shortest else lines))
    data["uri"] = str(pin(store, rows.as_uri()))
    for holder in (evaluation["dev"], evaluation["heldout"]):
        holder["uri"] = str(pin(store, (FOLDER / holder["uri"]).as_uri()))
    document["base"]["model"] = str((home / "models" / document["base"]["model"]).resolve())
    document["method"]["train"] |= train
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
