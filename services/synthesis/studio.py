"""The studio: fetch the seeds, seat teachers and judges, generate, put the rows away."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path

from contracts.curation import SynthesisRequested
from contracts.data import Row, RowTemplate, parse_row
from contracts.distillation import DistillationParameters
from contracts.governance import JudgePanel, Synthesis, Teacher
from contracts.job import AdaptationJob
from contracts.run import Run
from contracts.synthesis import RowsSynthesized
from services.synthesis.adapters.journal import Journal
from services.synthesis.adapters.openai_teacher import OpenAITeacher
from services.synthesis.asking import Desk
from services.synthesis.coldstart import from_simulator, from_templates
from services.synthesis.distilling import Lesson, Verification, distil
from services.synthesis.diversity import diversity, program_alarms
from services.synthesis.generation import Advance, Plan, Synthesized, generate
from services.synthesis.judging import Calibration, Panel
from services.synthesis.pace import Spending
from services.synthesis.prompts import last_request
from services.synthesis.teachers import Seat
from shared.artifacts import ArtifactStore, Pinned, TrainingStore
from shared.errors import Misconfigured
from shared.keys import service_key
from shared.scoring import resolve as resolve_scorer
from shared.settings import Settings

_ANSWER_TOKENS = 700


class Studio:
    """Synthesizes rows for runs."""

    def __init__(self, settings: Settings, artifacts: ArtifactStore) -> None:
        self._settings = settings
        self._artifacts = artifacts
        self._store_of = artifacts.for_training
        """Tenant → the store without its evaluation sets: rows are made of nothing else (H9)."""

    async def synthesize(self, run: Run, on_advance: Callable[[Advance], None]) -> RowsSynthesized:
        """Rows for the run's wish. A second call pays only for what the first did not get."""
        job, asked = run.job, run.synthesis_requested
        if job is not None and asked is not None and (taught := run.asked_teacher) is not None:
            return await self._distil(job, taught, asked, on_advance)
        if job is None or job.synthesis is None or asked is None:
            raise ValueError(f"run {run.ref} asks for no synthesis")
        wish, store = job.synthesis, self._store_of(job.tenant)
        cold = await asyncio.to_thread(_cold, store, wish, asked.rows)
        spending = Spending(maximum=wish.maximum_cost)
        made = Synthesized((), 0, {}, diversity([]))
        calibrations: tuple[Calibration, ...] = ()
        if len(cold) < asked.rows:
            content = await asyncio.to_thread(store.get, asked.seeds)
            seeds = [parse_row(line) for line in content.splitlines()]
            plan = _plan(wish, asked.rows - len(cold))
            async with AsyncExitStack() as stack:
                journal = Journal(self._journal(asked.seeds))
                stack.callback(journal.close)
                seats = [self._seat(t, job.tenant, stack) for t in wish.teachers]
                panel = None
                if wish.panel:
                    judges = [self._seat(t, job.tenant, stack) for t in _judges(wish.panel)]
                    panel = Panel(wish.panel, judges, Desk(journal, spending))
                    calibrations = await panel.calibrate(await self._gold(wish.panel))
                if all(judge.may_vote for judge in calibrations):
                    made = await generate(
                        seeds, seats, journal, plan,
                        panel=panel, spending=spending, on_advance=on_advance,
                    )  # fmt: skip
        return await self._event(asked.rows, cold, made, calibrations, spending)

    async def _distil(
        self,
        job: AdaptationJob,
        taught: DistillationParameters,
        asked: SynthesisRequested,
        on_advance: Callable[[Advance], None],
    ) -> RowsSynthesized:
        """The teacher's answers to the seeds; each is paid for once, however often resumed."""
        teacher = taught.teacher.endpoint
        assert teacher is not None
        content = await asyncio.to_thread(self._store_of(job.tenant).get, asked.seeds)
        seeds = [parse_row(line) for line in content.splitlines() if line.strip()]
        spending = Spending(maximum=taught.maximum_cost)
        async with AsyncExitStack() as stack:
            journal = Journal(self._journal(asked.seeds))
            stack.callback(journal.close)
            made = await distil(
                seeds,
                self._seat(teacher, job.tenant, stack),
                journal,
                _lesson(job, taught),
                spending=spending,
                on_advance=on_advance,
            )
        return await self._event(asked.rows, [], made, (), spending)

    async def _event(
        self,
        requested: int,
        cold: list[Row],
        made: Synthesized,
        calibrations: tuple[Calibration, ...],
        spending: Spending,
    ) -> RowsSynthesized:
        rows = [*cold, *made.rows]
        measured = diversity([last_request(row) or "" for row in rows])
        alarms = [*measured.alarms, *program_alarms(made.records), *_refused(calibrations)]
        if spending.exhausted:
            alarms.append(f"stopped at the maximum cost: {spending.cost:.4f} are spent")
        records = [*({"kind": "calibration", **_as_dict(c)} for c in calibrations), *made.records]
        put = self._artifacts.put
        lines = b"".join(row.model_dump_json().encode() + b"\n" for row in rows)
        evidence = b"".join(json.dumps(r, sort_keys=True).encode() + b"\n" for r in records)
        return RowsSynthesized(
            rows=await asyncio.to_thread(put, lines),
            requested=requested,
            accepted=len(rows),
            rejected=made.rejected,
            distinct_2=measured.distinct_2,
            alarms=tuple(alarms),
            records=await asyncio.to_thread(put, evidence) if records else None,
            adjudication=made.diverged,
            cost=round(spending.cost, 6),
            tokens=spending.tokens,
        )

    async def _gold(self, panel: JudgePanel) -> list[Row]:
        content = await asyncio.to_thread(self._artifacts.get, Pinned.parse(panel.gold).digest)
        return [parse_row(line) for line in content.splitlines() if line.strip()]

    def _journal(self, seeds: str) -> Path:
        return self._settings.home / "synthesis" / f"{seeds.removeprefix('sha256:')}.jsonl"

    def _seat(self, settings: Teacher, tenant: str, stack: AsyncExitStack) -> Seat:
        port = self._port(settings, tenant)
        stack.push_async_callback(port.aclose)
        return Seat(settings=settings, port=port)

    def _port(self, teacher: Teacher, tenant: str) -> OpenAITeacher:
        if teacher.url is None:
            return OpenAITeacher(
                teacher.model,
                base_url=self._settings.serving_url,
                api_key=service_key(self._settings, tenant),
            )
        if teacher.key_variable is None:
            return OpenAITeacher(teacher.model, base_url=teacher.url)
        key = os.environ.get(teacher.key_variable)
        if not key:
            raise Misconfigured(
                f"teacher {teacher.model!r}: {teacher.key_variable} is not set for synthesis",
                mend=f"start synthesis with {teacher.key_variable} in its environment",
            )
        return OpenAITeacher(teacher.model, base_url=teacher.url, api_key=key)


def _plan(wish: Synthesis, rows: int) -> Plan:
    if wish.produces == "requests":
        return Plan(rows=rows)
    return Plan(
        rows=rows, produces="answers", verify=wish.verify, max_tokens=_ANSWER_TOKENS,
        near_duplicate_threshold=0.98,
    )  # fmt: skip


def _lesson(job: AdaptationJob, taught: DistillationParameters) -> Lesson:
    marker = job.behaviour.answer_marker
    verification = None
    if taught.objective == "reasoning":
        if marker is None:
            raise Misconfigured(
                "reasoning distillation needs behaviour.answer_marker",
                mend="submit the job with one",
            )
        verification = Verification(marker=marker, scorer=resolve_scorer(job.behaviour))
    return Lesson(
        answers_per_request=taught.answers_per_request,
        max_tokens=taught.answer_tokens,
        verification=verification,
    )


def _judges(panel: JudgePanel) -> list[Teacher]:
    return [
        Teacher(
            model=judge.model,
            url=judge.url,
            temperature=0.0,
            top_p=1.0,
            override_reason="a judge gives one row one score",
            key_variable=judge.key_variable,
            rate_per_minute=judge.rate_per_minute,
            price_per_mtok=judge.price_per_mtok,
        )
        for judge in panel.judges
    ]


def _as_dict(found: Calibration) -> dict[str, object]:
    return {"judge": found.judge, "kappa": found.kappa, "items": found.items,
            "may_vote": found.may_vote}  # fmt: skip


def _refused(calibrations: tuple[Calibration, ...]) -> list[str]:
    return [
        f"judge {c.judge} has no vote: its kappa with the gold labels is "
        f"{'no number' if c.kappa is None else f'{c.kappa:.2f}'} on {c.items} rows; "
        "nothing was generated"
        for c in calibrations
        if not c.may_vote
    ]


def _cold(store: TrainingStore, wish: Synthesis, count: int) -> list[Row]:
    """Rows of templates and of the simulator; neither needs a teacher."""
    rows: list[Row] = []
    if wish.templates:
        lines = store.get(Pinned.parse(wish.templates).digest).splitlines()
        templates = [RowTemplate.model_validate_json(line) for line in lines if line.strip()]
        rows += from_templates(templates, count)
    if wish.simulator and len(rows) < count:
        program = store.get(Pinned.parse(wish.simulator).digest)
        rows += from_simulator(program, count - len(rows))
    return rows
