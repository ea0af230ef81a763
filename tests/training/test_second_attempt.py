"""The attempt that a failed gate begins is really trained: another recipe, another adapter."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from contracts.base import Event
from contracts.curation import DatasetCurated
from contracts.diagnosis import RunAccepted
from contracts.evaluation import GateJudged
from contracts.job import AdaptationJob, BaseModelRef, GatePolicy, Hyperparameters, LoraParameters
from contracts.progress import Progress
from contracts.run import Run, fold
from contracts.training import AdapterTrained
from services.diagnosis.replanning import next_attempt
from services.training.settings import TrainingSettings
from services.training.workshop import Order, Workshop
from shared.artifacts import ArtifactStore
from shared.bundles import inspect_adapter
from shared.testing.runs import REF, advised, gated_events, healthy_job, recorded_log


def job_on(base: Path) -> AdaptationJob:
    job = healthy_job()
    train = Hyperparameters(learning_rate=2e-2, batch_size=4, max_steps=4, precision="float32")
    method = job.method.model_copy(update={"lora": LoraParameters(r=4, alpha=8), "train": train})
    return job.model_copy(
        update={
            "base": BaseModelRef(model=str(base)),
            "method": method,
            "gates": GatePolicy(required=job.gates.required, attempts=2),
        }
    )


async def trained(workshop: Workshop, run: Run) -> AdapterTrained:
    async def nobody(_stage: str, _news: Progress) -> None:
        """Progress is not looked at."""

    order = await workshop.order(run)
    assert isinstance(order, Order)
    result = await workshop.train(order, nobody, asyncio.Event())
    assert isinstance(result, AdapterTrained)
    return result


@pytest.mark.slow
@pytest.mark.req("G11")
@pytest.mark.timeout(300)
async def test_the_second_attempt_is_trained_at_half_the_rank(
    base: Path, dataset: dict[str, Path], tmp_path: Path
) -> None:
    store = ArtifactStore((tmp_path / "artifacts").as_uri())
    workshop = Workshop(TrainingSettings(home=tmp_path / "home", training_threads=1), store)
    files = {name: store.put(path.read_bytes()) for name, path in dataset.items()}
    curated = DatasetCurated(
        card=store.put(b"{}"),
        train=files["train"],
        validation=files["validation"],
        rows={"train": 40, "validation": 4},
    )
    job = job_on(base)

    def log(first: AdapterTrained) -> list[Event]:
        """The run so far, its last gate failed."""
        events = [curated if isinstance(e, DatasetCurated) else e
                  for e in gated_events(job=job, trained=first)]  # fmt: skip
        verdict = events[-1]
        assert isinstance(verdict, GateJudged)
        failed = {"verdict": "failed", "remediation": "add_rehearsal"}
        return [*events[:-1], verdict.model_copy(update=failed)]

    before = log_until_dataset(job, curated)
    first = await trained(workshop, fold(REF, recorded_log(REF, before)))
    so_far = log(first)
    verdict = so_far[-1]
    assert isinstance(verdict, GateJudged)
    again = next_attempt(fold(REF, recorded_log(REF, so_far)), verdict)
    assert isinstance(again, RunAccepted)
    run = fold(REF, recorded_log(REF, [*so_far, again, advised(), curated]))
    assert (run.attempt, run.trained) == (2, None)
    second = await trained(workshop, run)
    assert second.adapter != first.adapter
    ranks = []
    for number, made in enumerate((first, second)):
        folder = store.fetch_tree(made.adapter, tmp_path / f"adapter-{number}")
        config = inspect_adapter(folder)
        ranks.append((config.r, config.lora_alpha))
        assert json.loads((folder / "recipe.json").read_bytes())["lora"]["r"] == config.r
    assert ranks == [(4, 8), (2, 4)]


def log_until_dataset(job: AdaptationJob, curated: DatasetCurated) -> list[Event]:
    accepted = next(e for e in gated_events(job=job) if isinstance(e, RunAccepted))
    return [accepted, advised(), curated]
