"""The example jobs of distillation: valid, fit for their recipe, and trained to their end."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from contracts.base import Event, digest_of
from contracts.curation import DatasetCurated, SynthesisRequested
from contracts.data import Message, parse_row
from contracts.diagnosis import MethodChoice, RunAccepted
from contracts.job import AdaptationJob
from contracts.progress import Progress
from contracts.run import Run, fold
from contracts.training import AdapterTrained, Recipe
from services.curation.desk import Desk
from services.curation.redaction import Span
from services.synthesis.adapters.openai_teacher import OpenAITeacher
from services.synthesis.studio import Studio
from services.synthesis.teachers import Completion
from services.training.adapters.methods import METHODS
from services.training.adapters.supervisor import LOG_FILE
from services.training.adapters.tokens import read_rows
from services.training.plan import TrainerPlan
from services.training.reports import TrainResult
from services.training.settings import TrainingSettings
from services.training.workshop import IMPLEMENTED, Order, Workshop
from shared.artifacts import ArtifactStore, pin
from shared.doctrine.fit import unfit_rows
from shared.models import base_digest, tokenizer_digest
from shared.testing.runs import REF, advised, recorded_log
from shared.testing.tiny_model import build_tiny_llama
from tests.training.test_examples import FOLDER, job_of
from tests.training.test_trainer import carry_out

NAMES = sorted(path.stem for path in FOLDER.glob("*_distillation.yaml"))


def rows_of(name: str) -> Path:
    return FOLDER / job_of(name).data[0].uri


@pytest.mark.req("T1")
@pytest.mark.parametrize("name", NAMES)
def test_an_example_job_is_valid_and_its_rows_fit_its_recipe(name: str) -> None:
    job = job_of(name)
    assert job.method.name in IMPLEMENTED
    assert job.method.recipe(job.method.name) == name
    assert name in METHODS
    assert list(unfit_rows(name, read_rows(rows_of(name)))) == []
    heldout = list(read_rows(FOLDER / job.evaluation.heldout.uri))
    assert len(heldout) >= job.evaluation.minimum_items


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.req("T1")
async def test_the_logit_example_trains_to_its_end_in_the_trainer_s_process(
    tmp_path: Path,
) -> None:
    name, rows = "logit_distillation", rows_of("logit_distillation")
    job, student = job_of(name), build_tiny_llama(tmp_path / "student")
    teacher = build_tiny_llama(tmp_path / "teacher", seed=1)
    plan = TrainerPlan(
        recipe=Recipe(
            method=name,
            base=base_digest(student),
            tokenizer=tokenizer_digest(student),
            dataset=digest_of(rows.read_bytes()),
            lora=job.method.lora,
            distillation=job.method.distillation,
            train=job.method.train.model_copy(update={"precision": "float32"}),
            versions={},
        ),
        base=student,
        base_label="tiny-llama",
        train=rows,
        validation=rows,
        teacher=teacher,
        steps=6,
        threads=1,
    )
    ending, _ = await carry_out(tmp_path / "work", plan)
    assert isinstance(ending, TrainResult), (tmp_path / "work" / LOG_FILE).read_text()
    assert ending.steps == 6
    assert ending.metrics["kl"] > 0


def as_a_teacher(messages: list[Message], seed: int) -> str:
    """Greets by the time of day; adds and takes away with its reasons, and is wrong at times."""
    asked = messages[-1].content
    if time := re.search(r"in the (morning|afternoon|evening)", asked):
        return f"Good {time[1]}!"
    first, second = map(int, re.findall(r"\d+", asked))
    result = first + second if "more" in asked else first - second
    return f"{first} and {second} make it {result}.\nAnswer: {result + (seed % 4 == 0)}"


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.req("T1", "S8")
@pytest.mark.parametrize("name", ["sequence_distillation", "reasoning_distillation"])
async def test_an_example_that_asks_its_teacher_runs_from_its_rows_to_an_adapter(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Curation, synthesis, curation again, and the trainer's process; the bus alone is left out."""
    paid: list[str] = []

    async def complete(self: Any, messages: Any, *, seed: int, key: str, **_: Any) -> Completion:
        paid.append(key)
        return Completion(as_a_teacher(list(messages), seed), "v1", tokens=50)

    monkeypatch.setattr(OpenAITeacher, "complete", complete)
    settings = TrainingSettings(home=tmp_path / "home", training_threads=1)
    store = ArtifactStore(settings.artifacts_url)
    desk, studio = Desk(store, NothingPrivate(), tmp_path / "curation"), Studio(settings, store)
    workshop = Workshop(settings, store)
    job = pinned(job_of(name), store, build_tiny_llama(tmp_path / "tiny"))
    choice = MethodChoice(method="distillation", reason="the job names it", rejected={})
    events: list[Event] = [
        RunAccepted(job=job, job_digest=digest_of(b"job")),
        advised().model_copy(update={"choice": choice}),
    ]

    def run() -> Run:
        return fold(REF, recorded_log(REF, events))

    wish = desk.curate(run())
    assert isinstance(wish, SynthesisRequested)
    asked = job.method.distillation
    assert asked is not None
    seeds = store.get(wish.seeds).splitlines()
    assert wish.rows == len(seeds) * asked.answers_per_request
    events.append(wish)
    made = await studio.synthesize(run(), lambda _: None)
    assert len(set(paid)) == len(paid) == wish.rows
    assert await studio.synthesize(run(), lambda _: None) == made
    assert len(paid) == wish.rows
    if name == "reasoning_distillation":
        assert made.rejected["wrong_answer"] > 5
    events.append(made)
    curated = desk.curate(run())
    assert isinstance(curated, DatasetCurated)
    rows = [parse_row(line) for line in store.get(curated.train).splitlines()]
    assert rows
    assert all(row.origin is not None for row in rows)
    events.append(curated)
    order = await workshop.order(run())
    assert isinstance(order, Order)

    async def report(_stage: str, _news: Progress) -> None: ...

    trained = await workshop.train(order, report, asyncio.Event())
    assert isinstance(trained, AdapterTrained), (order.work / LOG_FILE).read_text()
    assert trained.metrics["teacher_rows"] == len(rows)
    recipe = Recipe.model_validate_json(store.get(trained.recipe))
    assert recipe.distillation == asked


def pinned(job: AdaptationJob, store: ArtifactStore, base: Path) -> AdaptationJob:
    """The job with its files in the store, on a tiny base, for a few steps."""
    document = job.model_dump(mode="json", by_alias=True)
    for holder in (document["data"][0], *(document["evaluation"][n] for n in ("dev", "heldout"))):
        holder["uri"] = str(pin(store, (FOLDER / holder["uri"]).as_uri()))
    document["base"] = {"model": str(base), "name": "Tiny"}
    document["method"]["train"] |= {"max_steps": 4, "precision": "float32"}
    return AdaptationJob.model_validate(document)


class NothingPrivate:
    """A detector that finds nothing: these rows hold no one's data."""

    def detect(self, texts: Sequence[str]) -> list[list[Span]]:
        return [[] for _ in texts]
