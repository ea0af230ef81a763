"""The clinic: measures a run's base and lighter rungs through serving, and states the verdict."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime

from contracts.card import CERTIFICATE_TYPE, DoNotTrain
from contracts.data import Row, parse_row
from contracts.diagnosis import (
    Diagnosis,
    DiagnosisHalted,
    RungName,
    TrainingAdvised,
    TrainingDeclined,
)
from contracts.job import AdaptationJob
from contracts.run import Run
from services.diagnosis.method import choose, preflight
from services.diagnosis.rungs import base_options, trials
from services.diagnosis.verdict import MeasuredRung, decide, evaluation_gaps, rerun_sample
from services.diagnosis.verdict import Verdict as Decision
from shared.artifacts import ArtifactStore, Pinned
from shared.asking import Asker, AskOptions, Scored, score_answers
from shared.doctrine.volatility import volatile_problems
from shared.keys import service_key
from shared.messaging.steps import Step
from shared.models import base_digest, digest_cache, resolve_base
from shared.scoring import resolve as resolve_scorer
from shared.settings import Settings
from shared.signing import SigningKey, sign

NAMED = 20
REOPEN_WHEN = (
    "the measured success of the rung that suffices falls below the target",
    "price, traffic or latency of that rung changes",
    "the behaviour or its evaluation sets change",
)

Verdict = TrainingAdvised | TrainingDeclined | DiagnosisHalted


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
            training = [row for source in job.data for row in self._rows(source.uri)]
        except ValueError:
            training = []  # unreadable rows are curation's to name, one by one
        dev, heldout = self._rows(job.evaluation.dev.uri), self._rows(job.evaluation.heldout.uri)
        if halt := self._before_measuring(job, training, len(dev), len(heldout)):
            return halt
        return await self._measure(step, job, training, dev, heldout)

    def _before_measuring(
        self, job: AdaptationJob, training: Sequence[Row], dev: int, heldout: int
    ) -> DiagnosisHalted | None:
        volatile = volatile_problems((f"row {row.id}", row) for row in training)
        if volatile:
            return DiagnosisHalted(reason="volatile_facts", problems=tuple(volatile[:NAMED]))
        if gaps := evaluation_gaps(job, dev=dev, heldout=heldout):
            return DiagnosisHalted(reason="evaluation_gap", problems=gaps)
        return None

    async def _measure(
        self,
        step: Step,
        job: AdaptationJob,
        training: Sequence[Row],
        dev: Sequence[Row],
        heldout: Sequence[Row],
    ) -> Verdict:
        identity = await asyncio.to_thread(self._base_identity, job)
        scorer = resolve_scorer(job.behaviour)

        async def ask(
            asker: Asker, label: str, rows: Sequence[Row], options: AskOptions
        ) -> tuple[Scored, ...]:
            await step.progress("diagnosis", f"asking the base: {label}", 0, len(rows))
            answers = await asker.ask_all(
                rows,
                model="base",
                options=options,
                identity=identity,
                on_done=lambda done, total, _row, _answer: step.tick(
                    "diagnosis", f"asking the base: {label}", done, total
                ),
            )
            return score_answers(rows, answers, scorer)

        plain = base_options(job)
        async with self._asker(job, cache=True) as asker, self._asker(job, cache=False) as fresh:
            base = await ask(asker, "plainly", dev, plain)
            sample = rerun_sample(len(dev))
            gaps = evaluation_gaps(
                job,
                dev=len(dev),
                heldout=len(heldout),
                first=[base[i] for i in sample],
                again=await ask(fresh, "once more", [dev[i] for i in sample], plain),
            )
            if gaps:
                return DiagnosisHalted(reason="evaluation_gap", problems=gaps)
            runnable, skipped = trials(job, training, [*dev, *heldout])
            measured = [
                MeasuredRung(
                    rung=trial.rung,
                    scored=await ask(asker, trial.rung.replace("_", " "), dev, trial.options),
                )
                for trial in runnable
            ]
        return self._conclude(step.run, decide(job, base, measured, skipped), len(training))

    def _conclude(self, run: Run, decision: Decision, rows: int) -> Verdict:
        job = run.job
        assert job is not None
        if decision.decision == "decline":
            assert decision.rung is not None
            certificate = self._certificate(run, decision.diagnosis, decision.rung)
            return TrainingDeclined(
                diagnosis=decision.diagnosis, rung=decision.rung, certificate=certificate
            )
        choice = choose(job, rows)
        synthetic = job.synthesis.rows if job.synthesis else 0
        if short := preflight(job, choice.method, rows + synthetic):
            return DiagnosisHalted(reason="data_preflight", problems=short)
        return TrainingAdvised(diagnosis=decision.diagnosis, choice=choice)

    def _certificate(self, run: Run, diagnosis: Diagnosis, rung: RungName) -> str:
        assert run.job_digest is not None
        document = DoNotTrain(
            schema="sluice.do-not-train/v1",
            tenant=run.ref.tenant,
            run=run.ref.run,
            job_digest=run.job_digest,
            rung=rung,
            diagnosis=diagnosis,
            reopen_when=REOPEN_WHEN,
            at=datetime.now(UTC).isoformat(timespec="seconds"),
        )
        envelope = sign(
            CERTIFICATE_TYPE,
            document.model_dump(mode="json", by_alias=True),
            {"job": run.job_digest},
            self._key,
        )
        return self._artifacts.put(envelope)

    def _asker(self, job: AdaptationJob, *, cache: bool) -> Asker:
        return Asker(
            self._settings.serving_url,
            service_key(self._settings, job.tenant),
            self._settings.home / "cache" / "answers" if cache else None,
        )

    def _base_identity(self, job: AdaptationJob) -> str:
        base = resolve_base(job.base, self._settings.home)
        return base_digest(base, cache=digest_cache(self._settings.home))

    def _rows(self, uri: str) -> list[Row]:
        content = self._artifacts.get(Pinned.parse(uri).digest)
        return [parse_row(line) for line in content.splitlines() if line.strip()]
