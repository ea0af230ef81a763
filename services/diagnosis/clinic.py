"""The clinic: measures a run's base and lighter rungs through serving, and states the verdict."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path

from contracts.card import CERTIFICATE_TYPE, DoNotTrain
from contracts.data import Document, Row, parse_row
from contracts.diagnosis import (
    Diagnosis,
    DiagnosisConcluded,
    DiagnosisHalted,
    RungName,
    TrainingAdvised,
    TrainingDeclined,
    TrainingVetoed,
)
from contracts.economics import Condition
from contracts.job import AdaptationJob
from contracts.run import Run
from services.diagnosis.bench import Bench, Model
from services.diagnosis.checks import economic_problems
from services.diagnosis.method import choose, preflight, text_tokens
from services.diagnosis.reopening import conditions
from services.diagnosis.retrieval import read_documents
from services.diagnosis.routing import routed
from services.diagnosis.rungs import Way, base_options, trials
from services.diagnosis.verdict import MeasuredRung, decide, evaluation_gaps, rerun_sample
from services.diagnosis.verdict import Verdict as Decision
from shared.artifacts import ArtifactStore, Pinned
from shared.asking import Asker
from shared.doctrine.fit import unfit_rows
from shared.doctrine.volatility import volatile_problems
from shared.keys import service_key
from shared.messaging.steps import Step
from shared.models import base_digest, digest_cache, resolve_base
from shared.scoring import resolve as resolve_scorer
from shared.settings import Settings
from shared.signing import SigningKey, sign

NAMED = 20
REOPEN_WHEN = (
    "an observation breaks one of the conditions",
    "the behaviour or its evaluation sets change",
)

Verdict = TrainingAdvised | TrainingDeclined | TrainingVetoed | DiagnosisConcluded | DiagnosisHalted


class Clinic:
    """Diagnoses runs."""

    def __init__(self, settings: Settings, artifacts: ArtifactStore, key: SigningKey) -> None:
        self._settings = settings
        self._artifacts = artifacts
        self._key = key

    async def diagnose(self, step: Step) -> Verdict:
        """Should this run train? The same run gives the same verdict.

        Raises:
            PeerUnavailable: serving does not answer.
        """
        job = step.run.job
        if job is None:
            raise ValueError(f"run {step.run.ref} has no job")
        try:
            by_role = [(s.role, row) for s in job.data for row in self._rows(s.uri)]
        except ValueError:
            by_role = []  # unreadable rows are curation's to name, one by one
        training = [row for _, row in by_role]
        dev, heldout = self._rows(job.evaluation.dev.uri), self._rows(job.evaluation.heldout.uri)
        if halt := self._before_measuring(job, training, len(dev), len(heldout)):
            return halt
        shown = [  # what exemplars come from
            row for role, row in by_role if role == "positive" and row.document is None
        ]
        return await self._measure(step, job, shown, training, dev, heldout)

    def _before_measuring(
        self, job: AdaptationJob, training: Sequence[Row], dev: int, heldout: int
    ) -> DiagnosisHalted | TrainingVetoed | None:
        if veto := economic_problems(job):
            return TrainingVetoed(problems=veto)
        volatile = volatile_problems((f"row {row.id}", row) for row in training)
        if volatile:
            return DiagnosisHalted(reason="volatile_facts", problems=tuple(volatile[:NAMED]))
        chosen = choose(job, len(training), text_tokens(training))
        recipe = job.method.recipe(chosen.method)
        if unfit := list(islice(unfit_rows(recipe, training), NAMED)):
            return DiagnosisHalted(reason="data_preflight", problems=tuple(unfit))
        if gaps := evaluation_gaps(job, dev=dev, heldout=heldout):
            return DiagnosisHalted(reason="evaluation_gap", problems=gaps)
        return None

    async def _measure(
        self,
        step: Step,
        job: AdaptationJob,
        shown: Sequence[Row],
        training: Sequence[Row],
        dev: Sequence[Row],
        heldout: Sequence[Row],
    ) -> Verdict:
        plain = Way(options=base_options(job))
        async with AsyncExitStack() as open_askers:
            bench = await self._bench(step, job, open_askers)
            base = await bench.ask("plainly", dev, plain)
            fresh = await open_askers.enter_async_context(self._asker(job))
            sample = rerun_sample(len(dev))
            again = await bench.ask(
                "once more",
                [dev[i] for i in sample],
                plain,
                model=replace(bench.base, asker=fresh),
            )
            gaps = evaluation_gaps(
                job,
                dev=len(dev),
                heldout=len(heldout),
                first=[base[i] for i in sample],
                again=again,
            )
            if gaps:
                return DiagnosisHalted(reason="evaluation_gap", problems=gaps)
            runnable, skipped = trials(job, shown, [*dev, *heldout], self._documents(job))
            measured, refused = await bench.climb(runnable, dev)
        larger = next((rung for rung in measured if rung.rung == "model_selection"), None)
        match routed(job, dev, base, larger):
            case MeasuredRung() as routing:
                measured.append(routing)
            case unrouted:
                skipped.append(unrouted)
        decision = decide(job, base, measured, [*skipped, *refused])
        return self._conclude(step.run, decision, training)

    async def _bench(self, step: Step, job: AdaptationJob, open_askers: AsyncExitStack) -> Bench:
        """The models to ask, their connections held by `open_askers`."""
        answers = self._settings.home / "cache" / "answers"
        asker = await open_askers.enter_async_context(self._asker(job, answers))
        bench = Bench(
            step=step,
            scorer=resolve_scorer(job.behaviour),
            base=Model(
                name="base",
                asker=asker,
                identity=await asyncio.to_thread(self._base_identity, job),
                price_per_mtok=job.economics.price_per_mtok,
            ),
        )
        if (larger := job.ladder.larger_base) is None:
            return bench
        if larger.url is not None:
            asker = await open_askers.enter_async_context(Asker(larger.url, cache=answers))
        # its weights are unknown, so its answers are remembered for this attempt alone
        identity = f"{step.run.ref}/{step.run.attempt}/{larger.url}/{larger.model}"
        return replace(
            bench,
            larger=Model(
                name=larger.model,
                asker=asker,
                identity=identity,
                price_per_mtok=larger.price_per_mtok,
            ),
        )

    def _conclude(self, run: Run, decision: Decision, training: Sequence[Row]) -> Verdict:
        job = run.job
        assert job is not None
        if decision.decision == "decline":
            assert decision.rung is not None
            bounds = conditions(job, decision.diagnosis, decision.rung)
            return TrainingDeclined(
                diagnosis=decision.diagnosis,
                rung=decision.rung,
                certificate=self._certificate(run, decision.diagnosis, decision.rung, bounds),
                conditions=bounds,
            )
        rows = len(training) + (job.synthesis.rows if job.synthesis else 0)
        if (taught := job.method.asked_teacher(job.method.name)) is not None:
            rows = len(training) * taught.answers_per_request
        tokens = text_tokens(training)
        choice = choose(job, rows, tokens)
        if short := preflight(job, choice.method, rows, tokens):
            return DiagnosisHalted(
                reason="data_preflight", problems=short, diagnosis=decision.diagnosis
            )
        if job.stop_after == "diagnosis":
            return DiagnosisConcluded(diagnosis=decision.diagnosis, choice=choice)
        return TrainingAdvised(diagnosis=decision.diagnosis, choice=choice)

    def _certificate(
        self, run: Run, diagnosis: Diagnosis, rung: RungName, bounds: tuple[Condition, ...]
    ) -> str:
        assert run.job_digest is not None
        document = DoNotTrain(
            schema="sluice.do-not-train/v1",
            tenant=run.ref.tenant,
            run=run.ref.run,
            job_digest=run.job_digest,
            rung=rung,
            diagnosis=diagnosis,
            reopen_when=REOPEN_WHEN,
            conditions=bounds,
            at=datetime.now(UTC).isoformat(timespec="seconds"),
        )
        envelope = sign(
            CERTIFICATE_TYPE,
            document.model_dump(mode="json", by_alias=True),
            {"job": run.job_digest},
            self._key,
        )
        return self._artifacts.put(envelope)

    def _asker(self, job: AdaptationJob, cache: Path | None = None) -> Asker:
        return Asker(self._settings.serving_url, service_key(self._settings, job.tenant), cache)

    def _base_identity(self, job: AdaptationJob) -> str:
        base = resolve_base(job.base, self._settings.home)
        return base_digest(base, cache=digest_cache(self._settings.home))

    def _rows(self, uri: str) -> list[Row]:
        content = self._artifacts.get(Pinned.parse(uri).digest)
        return [parse_row(line) for line in content.splitlines() if line.strip()]

    def _documents(self, job: AdaptationJob) -> list[Document]:
        if job.ladder.corpus is None:
            return []
        content = self._artifacts.get(Pinned.parse(job.ladder.corpus.uri).digest)
        return read_documents(content)
