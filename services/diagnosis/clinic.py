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
from services.diagnosis import verdict
from services.diagnosis.challengers import challengers, plain
from services.diagnosis.method import choose, data_preflight
from services.diagnosis.verdict import Asked
from shared.artifacts import ArtifactStore, Pinned
from shared.asking import Asker, AskOptions
from shared.doctrine.volatility import volatile_problems
from shared.keys import service_key
from shared.messaging.steps import Step
from shared.models import base_digest, digest_cache, resolve_base
from shared.scoring import resolve as resolve_scorer
from shared.settings import Settings
from shared.signing import SigningKey, sign
from shared.statistics import mean_with_interval

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
        if halt := self._before_measuring(job, training, {"dev": dev, "heldout": heldout}):
            return halt
        return await self._measure(step, job, training, dev, [*dev, *heldout])

    def _before_measuring(
        self, job: AdaptationJob, training: Sequence[Row], sets: dict[str, list[Row]]
    ) -> DiagnosisHalted | None:
        volatile = volatile_problems((f"row {row.id}", row) for row in training)
        if volatile:
            return DiagnosisHalted(reason="volatile_facts", problems=tuple(volatile[:NAMED]))
        counts = {name: len(rows) for name, rows in sets.items()}
        gaps = verdict.too_few_items(counts, job.evaluation)
        if gaps:
            return DiagnosisHalted(reason="evaluation_gap", problems=tuple(gaps))
        return None

    async def _measure(
        self,
        step: Step,
        job: AdaptationJob,
        training: Sequence[Row],
        dev: list[Row],
        held: Sequence[Row],
    ) -> Verdict:
        identity = await asyncio.to_thread(self._base_identity, job)
        async with self._asker(job, cache=True) as asker, self._asker(job, cache=False) as fresh:

            async def ask(label: str, options: AskOptions) -> Asked:
                answers = await asker.ask_all(
                    dev,
                    model="base",
                    options=options,
                    identity=identity,
                    on_done=lambda done, total, _row, _answer: step.tick(
                        "diagnosis", f"asking the base: {label}", done, total
                    ),
                )
                score = resolve_scorer(job.behaviour)
                scores = [score(row, a.text) for row, a in zip(dev, answers, strict=True)]
                return Asked(dev, answers, scores)

            await step.progress("diagnosis", "asking the base: plainly", 0, len(dev))
            base = await ask("plainly", plain(job))
            sample = dev[: verdict.REPEATED]
            again = await fresh.ask_all(sample, model="base", options=plain(job))
            gaps = verdict.unstable(
                [a.text for a in base.answers[: len(sample)]], [a.text for a in again], sample
            )
            if gaps:
                return DiagnosisHalted(reason="evaluation_gap", problems=tuple(gaps))
            rungs, skipped = challengers(job, training, held)
            asked: dict[RungName, Asked] = {
                rung: await ask(rung.replace("_", " "), options) for rung, options in rungs.items()
            }
        target = job.behaviour.target
        clusters = [row.cluster for row in dev]
        diagnosis = Diagnosis(
            base=mean_with_interval("success", base.values, clusters),
            target=target,
            rungs=tuple(
                verdict.rung_result(rung, result, base, target) for rung, result in asked.items()
            ),
            skipped=skipped,
        )
        return self._conclude(step.run, job, diagnosis, len(training))

    def _conclude(self, run: Run, job: AdaptationJob, diagnosis: Diagnosis, rows: int) -> Verdict:
        rung = verdict.sufficient(diagnosis)
        if rung is not None and not job.train_even_if_lighter_suffices:
            certificate = self._certificate(run, diagnosis, rung)
            return TrainingDeclined(diagnosis=diagnosis, rung=rung, certificate=certificate)
        if rung is not None:
            note = f"{rung} suffices; trained anyway: {job.train_even_if_lighter_suffices}"
            diagnosis = diagnosis.model_copy(update={"notes": (*diagnosis.notes, note)})
        choice = choose(job)
        synthetic = job.synthesis.rows if job.synthesis else 0
        short = data_preflight(job, choice, rows + synthetic)
        if short:
            return DiagnosisHalted(reason="data_preflight", problems=tuple(short))
        return TrainingAdvised(diagnosis=diagnosis, choice=choice)

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
