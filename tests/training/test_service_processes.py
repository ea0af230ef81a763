"""The training service carries a job out in several processes: `SLUICE_TRAINING_PROCESSES`."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from contracts.base import digest_of
from contracts.curation import DatasetCurated
from contracts.diagnosis import RunAccepted
from contracts.job import AdaptationJob, BaseModelRef, Hyperparameters, LoraParameters
from contracts.progress import Progress
from contracts.run import Run, fold
from contracts.training import AdapterTrained, TrainingStopped
from services.training.adapters import crew
from services.training.adapters.supervisor import LOG_FILE, train
from services.training.plan import TrainerPlan, processes_for
from services.training.reports import TrainFailure
from services.training.settings import TrainingSettings
from services.training.workshop import Order, Workshop
from shared.artifacts import ArtifactStore
from shared.errors import TransientError
from shared.testing.runs import REF, advised, healthy_job, recorded_log
from tests.training.apart import supervised
from tests.training.test_plan import recipe

STEPS = 60

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
on_linux = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="the kernel's parent-death signal"
)


def job_on(base: Path, **train: float) -> AdaptationJob:
    job = healthy_job()
    hyperparameters = {"batch_size": 4, "max_steps": STEPS, "checkpoint_every": 4} | train
    method = job.method.model_copy(
        update={
            "lora": LoraParameters(r=4, alpha=8),
            "train": Hyperparameters(learning_rate=5e-3, precision="float32", **hyperparameters),
        }
    )
    return job.model_copy(update={"base": BaseModelRef(model=str(base)), "method": method})


def run_of(job: AdaptationJob, store: ArtifactStore, dataset: dict[str, Path]) -> Run:
    files = {name: store.put(path.read_bytes()) for name, path in dataset.items()}
    curated = DatasetCurated(
        card=store.put(b"{}"),
        train=files["train"],
        validation=files["validation"],
        rows={"train": 40, "validation": 4},
    )
    accepted = RunAccepted(job=job, job_digest=digest_of(b"job"))
    return fold(REF, recorded_log(REF, [accepted, advised(), curated]))


class Service:
    """The service's own code, with so many processes, and what its runs have reported."""

    def __init__(self, home: Path, processes: int) -> None:
        settings = TrainingSettings(home=home, training_threads=1, training_processes=processes)
        self.store = ArtifactStore(settings.artifacts_url)
        self.workshop = Workshop(settings, self.store)
        self.losses: dict[int, float] = {}
        self.work = Path()

    async def train(
        self,
        run: Run,
        *,
        at_step: int = 0,
        act: Callable[[], None] | None = None,
        cancelled: asyncio.Event | None = None,
    ) -> AdapterTrained | TrainingStopped | TransientError | None:
        """Carry `run` out; at the first progress of `at_step`, call `act`."""
        order = await self.workshop.order(run)
        assert isinstance(order, Order), order
        self.work, left = order.work, [act] if act else []

        async def report(_stage: str, news: Progress) -> None:
            if not news.message.startswith("step "):
                return
            self.losses[news.done] = news.values["loss"]
            if left and news.done >= at_step:
                left.pop()()

        return await self.workshop.train(order, report, cancelled or asyncio.Event())


def trainers(parent: int, work: Path) -> list[psutil.Process]:
    """The trainer processes of `work` below `parent`, the first one first."""
    children = psutil.Process(parent).children(recursive=True)
    found = [child for child in children if str(work) in child.cmdline()]
    return sorted(found, key=lambda child: child.environ()["RANK"])


@pytest.mark.req("T4", "T6")
async def test_a_job_in_two_processes_is_killed_cancelled_resumed_and_loses_what_one_loses(
    base: Path, dataset: dict[str, Path], tmp_path: Path
) -> None:
    alone, service = Service(tmp_path / "one", 1), Service(tmp_path / "two", 2)
    one = await alone.train(run_of(job_on(base), alone.store, dataset))
    assert isinstance(one, AdapterTrained)
    run = run_of(job_on(base), service.store, dataset)
    seen: list[psutil.Process] = []

    def kill_the_second() -> None:
        seen.extend(trainers(os.getpid(), service.work))
        seen[1].suspend()  # or it may have finished by the time it is killed
        seen[1].kill()

    died = await service.train(run, at_step=6, act=kill_the_second)
    assert isinstance(died, TransientError), (service.work / LOG_FILE).read_text()
    assert len(seen) == 2
    assert not any(process.is_running() for process in seen)

    cancelled, reached = asyncio.Event(), max(service.losses)
    seen.clear()

    def cancel() -> None:
        seen.extend(trainers(os.getpid(), service.work))
        cancelled.set()

    ending = await service.train(run, at_step=reached + 1, act=cancel, cancelled=cancelled)
    assert ending is None
    assert max(service.losses) < STEPS
    assert len(seen) == 2
    assert not any(process.is_running() for process in seen)

    two = await service.train(run)
    assert isinstance(two, AdapterTrained), (service.work / LOG_FILE).read_text()
    assert two.resumed_from is not None
    assert two.resumed_from > reached
    assert two.recipe == one.recipe
    assert sorted(service.losses) == list(range(1, STEPS + 1))
    assert service.losses == pytest.approx(alone.losses, rel=1e-3)
    assert service.losses[STEPS] < 0.8 * service.losses[1]
    assert two.validation_loss == pytest.approx(one.validation_loss, rel=1e-3)


SCRIPTED = """
import os, sys, time
from services.training.reports import Failed, TrainFailure
first = os.environ["RANK"] == "0"
if first and {waits}:
    time.sleep(600)
time.sleep(first)
reason = "trainer_crashed" if first else "{reason}"
print(Failed(failure=TrainFailure(reason=reason, message=reason)).model_dump_json(), flush=True)
sys.exit(3)
"""


@pytest.mark.req("T3", "T6")
@pytest.mark.parametrize(
    ("waits", "reason"),
    [
        pytest.param(False, "not_a_number", id="its-partner-crashes-of-it"),
        pytest.param(True, "logit_saturation", id="its-partner-waits-for-it"),
    ],
)
async def test_a_named_reason_that_stops_one_process_stops_the_training_by_that_name(
    make_plan: Callable[..., TrainerPlan],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    waits: bool,
    reason: str,
) -> None:
    script = tmp_path / "scripted.py"
    script.write_text(SCRIPTED.format(waits=waits, reason=reason))
    monkeypatch.setattr(crew, "TRAINER", (sys.executable, str(script)))
    monkeypatch.setattr(crew, "PATIENCE_S", 0.5)
    plan = make_plan().model_copy(update={"processes": 2})

    async def nobody(_: Progress) -> None: ...

    ending = await train(tmp_path / "work", plan, nobody, asyncio.Event())
    assert isinstance(ending, TrainFailure)
    assert ending.reason == reason
    assert trainers(os.getpid(), tmp_path / "work") == []


@on_linux
@pytest.mark.req("P3", "T6")
def test_all_processes_die_with_the_service(
    make_plan: Callable[..., TrainerPlan], tmp_path: Path
) -> None:
    plan = make_plan().model_copy(update={"processes": 2})
    with supervised(plan, tmp_path) as service:
        both = trainers(service.pid, tmp_path)
        service.send_signal(signal.SIGKILL)
    assert len(both) == 2
    for trainer in both:
        trainer.wait(timeout=10)
        assert not trainer.is_running()


@pytest.mark.parametrize(
    ("method", "batch_size", "most", "processes"),
    [
        pytest.param("lora", 8, 2, 2, id="all"),
        pytest.param("lora", 8, 3, 2, id="as-many-as-divide-the-batch"),
        pytest.param("lora", 3, 2, 1, id="none-divides-it"),
        pytest.param("lora", 2, 8, 2, id="a-row-for-each"),
        pytest.param("ppo", 8, 2, 1, id="ppo"),
    ],
)
def test_as_many_processes_as_share_the_batch_evenly(
    method: str, batch_size: int, most: int, processes: int
) -> None:
    wanted = recipe(batch_size=batch_size).model_copy(update={"method": method})
    assert processes_for(wanted, most) == processes
