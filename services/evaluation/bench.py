"""The bench: what each gate asks of serving, and the artifacts it compares against.

All model answers come through the serving API. Greedy answers are cached by model content, so the
frozen base answers a question once, whichever gate or run asks it.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import httpx

from contracts.base import Digest
from contracts.data import Canary, DatasetCard, Row, parse_row
from contracts.evaluation import GateJudged
from contracts.job import AdaptationJob
from contracts.run import Run
from contracts.training import AdapterTrained
from services.evaluation.adapters.harness import run_harness
from services.evaluation.adapters.likelihood import log_likelihoods
from services.evaluation.compatibility import BASE, compatibility_of
from services.evaluation.gates import g1, g2, g3, g4, g5
from services.evaluation.gates.g5 import BenchmarkItem
from services.evaluation.gates.judgement import Judgement
from services.evaluation.inquiry import (
    Ask,
    Who,
    asked_as,
    broken_requests_of,
    other_words_of,
    privacy_of,
    safety_of,
)
from shared.artifacts import ArtifactStore, Pinned
from shared.asking import Answer, Asker, AskOptions, Scored, scored_answers
from shared.bundles import inspect_adapter
from shared.keys import service_key
from shared.messaging.steps import Step
from shared.models import resolve_base
from shared.scoring import resolve as resolve_scorer
from shared.settings import Settings


class Bench:
    """Runs gates for candidates."""

    def __init__(self, settings: Settings, artifacts: ArtifactStore) -> None:
        self._settings = settings
        self._artifacts = artifacts
        self._home = settings.home.resolve()

    async def g1(self, step: Step) -> GateJudged:
        """Baseline calibration."""
        job, trained, began = _subject(step.run)
        base = await self._answers(step, "g1", job, BASE, trained.base)
        verdict = g1.judge(base, minimum_items=job.evaluation.minimum_items, level=job.gates.level)
        return self._judged(verdict, trained, began, base)

    async def g2(self, step: Step) -> GateJudged:
        """Artifact compatibility, and served equals trained."""
        job, trained, began = _subject(step.run)
        await step.progress("g2", "comparing the served model with the trained one")
        folder = await asyncio.to_thread(
            self._artifacts.fetch_tree, trained.adapter, self._adapter_folder(trained)
        )
        config = await asyncio.to_thread(inspect_adapter, folder)
        facts = g2.AdapterFacts(
            base=trained.base,
            tokenizer=trained.tokenizer,
            rank=config.r,
            target_modules=tuple(config.target_modules),
        )
        async with self._http(job) as http:
            verdict = await compatibility_of(http, _candidate(trained), folder, facts)
        return self._judged(verdict, trained, began, ())

    async def g3(self, step: Step) -> GateJudged:
        """Held-out target behaviour."""
        job, trained, began = _subject(step.run)
        base = await self._answers(step, "g3", job, BASE, trained.base)
        candidate = await self._answers(step, "g3", job, _candidate(trained), trained.adapter)
        verdict = g3.judge(
            base, candidate, minimum_gain=job.gates.minimum_gain, level=job.gates.level
        )
        return self._judged(verdict, trained, began, candidate)

    async def g4(self, step: Step) -> GateJudged:
        """Structured output and tools."""
        job, trained, began = _subject(step.run)
        base = await self._answers(step, "g4", job, BASE, trained.base)
        candidate = await self._answers(step, "g4", job, _candidate(trained), trained.adapter)
        async with self._asker(job) as asker:
            broken = await broken_requests_of(
                _carrier(asker, step, "g4", trained, asked_as(job.behaviour)),
                self._heldout(job),
                resolve_scorer(job.behaviour),
                max_tokens=job.behaviour.max_tokens,
            )
        verdict = g4.judge(
            base,
            candidate,
            minimum_validity=job.gates.minimum_validity,
            level=job.gates.level,
            constrained=job.behaviour.constrained,
            broken_requests=broken,
            maximum_invented=job.gates.maximum_invented,
        )
        return self._judged(verdict, trained, began, candidate)

    async def g5(self, step: Step) -> GateJudged:
        """General capability, by lm-evaluation-harness."""
        job, trained, began = _subject(step.run)
        base = await self._benchmark(step, job, BASE, trained.base)
        candidate = await self._benchmark(step, job, _candidate(trained), trained.adapter)
        verdict = g5.judge(
            base, candidate, maximum_decay=job.gates.maximum_decay, level=job.gates.level
        )
        return self._judged(verdict, trained, began, ())

    async def g6(self, step: Step) -> GateJudged:
        """Safety."""
        job, trained, began = _subject(step.run)
        async with self._asker(job) as asker:
            verdict = await safety_of(
                _carrier(asker, step, "g6", trained),
                maximum_loss=job.gates.maximum_safety_loss,
                level=job.gates.level,
            )
        return self._judged(verdict, trained, began, ())

    async def g7(self, step: Step) -> GateJudged:
        """Privacy and memorization."""
        job, trained, began = _subject(step.run)
        dataset = step.run.dataset
        if dataset is None:
            raise ValueError(f"run {step.run.ref} has no dataset")
        card = DatasetCard.model_validate_json(self._artifacts.get(dataset.card))
        planted = card.files.get("canaries.jsonl")
        lines = self._artifacts.get(planted).splitlines() if planted else []

        async def likelihoods(who: Who, request: str, texts: Sequence[str]) -> Sequence[float]:
            folder = resolve_base(job.base, self._home)
            model = BASE if who == "base" else _candidate(trained)
            return await log_likelihoods(http, model, folder, request, texts)

        async with self._asker(job) as asker, self._http(job) as http:
            verdict = await privacy_of(
                _carrier(
                    asker,
                    step,
                    "g7",
                    trained,
                    AskOptions(system_prompt=job.behaviour.system_prompt),
                ),
                likelihoods,
                self._rows(dataset.train),
                self._rows(dataset.validation) if dataset.validation else (),
                [Canary.model_validate_json(line) for line in lines if line.strip()],
                max_tokens=job.behaviour.max_tokens,
                maximum_memorized=job.gates.maximum_memorized,
                level=job.gates.level,
            )
        return self._judged(verdict, trained, began, ())

    async def g12(self, step: Step) -> GateJudged:
        """The held-out suite in other words."""
        job, trained, began = _subject(step.run)
        plain = await self._answers(step, "g12", job, _candidate(trained), trained.adapter)
        async with self._asker(job) as asker:
            verdict = await other_words_of(
                _carrier(asker, step, "g12", trained, asked_as(job.behaviour)),
                self._heldout(job),
                plain,
                resolve_scorer(job.behaviour),
                max_tokens=job.behaviour.max_tokens,
                minimum_retained=job.gates.minimum_retained,
                maximum_loss=job.gates.maximum_elsewhere_loss,
                level=job.gates.level,
            )
        return self._judged(verdict, trained, began, plain)

    def _asker(self, job: AdaptationJob) -> Asker:
        return Asker(
            self._settings.serving_url,
            service_key(self._settings, job.tenant),
            self._home / "cache" / "answers",
        )

    async def _answers(
        self, step: Step, gate: str, job: AdaptationJob, model: str, identity: Digest
    ) -> tuple[Scored, ...]:
        rows = self._heldout(job)
        label = "the base" if model == BASE else "the candidate"
        await step.progress(gate, f"asking {label}", 0, len(rows))
        async with self._asker(job) as asker:
            answers = await asker.ask_all(
                rows,
                model=model,
                options=asked_as(job.behaviour),
                identity=identity,
                on_done=lambda done, total, _row, _answer: step.tick(
                    gate, f"asking {label}", done, total
                ),
            )
        return await scored_answers(rows, answers, resolve_scorer(job.behaviour))

    async def _benchmark(
        self, step: Step, job: AdaptationJob, model: str, identity: Digest
    ) -> tuple[BenchmarkItem, ...]:
        label = "the base" if model == BASE else "the candidate"
        await step.progress("g5", f"general capability of {label}")
        return await run_harness(
            model=model,
            base_url=self._settings.serving_url,
            tokenizer=resolve_base(job.base, self._home),
            tasks=job.evaluation.general.tasks,
            limit=job.evaluation.general.limit,
            own_tasks=self._settings.harness_tasks,
            work=self._home / "evaluation" / "harness" / identity.removeprefix("sha256:"),
            api_key=service_key(self._settings, job.tenant),
            on_progress=lambda done, total: step.tick(
                "g5", f"general capability of {label}", done, total
            ),
        )

    def _heldout(self, job: AdaptationJob) -> list[Row]:
        return self._rows(Pinned.parse(job.evaluation.heldout.uri).digest)

    def _rows(self, digest: Digest) -> list[Row]:
        lines = self._artifacts.get(digest).splitlines()
        return [parse_row(line) for line in lines if line.strip()]

    def _judged(
        self, verdict: Judgement, trained: AdapterTrained, began: float, seen: Sequence[Scored]
    ) -> GateJudged:
        evidence = None
        if seen:
            lines = [json.dumps(asdict(scored), ensure_ascii=False) + "\n" for scored in seen]
            evidence = self._artifacts.put("".join(lines).encode())
        return verdict.event(
            candidate=trained.adapter,
            evidence=evidence,
            duration_s=round(time.monotonic() - began, 3),
        )

    def _adapter_folder(self, trained: AdapterTrained) -> Path:
        return self._home / "evaluation" / "adapters" / trained.adapter.removeprefix("sha256:")

    def _http(self, job: AdaptationJob) -> httpx.AsyncClient:
        key = service_key(self._settings, job.tenant)
        return httpx.AsyncClient(
            base_url=self._settings.serving_url,
            headers={"Authorization": f"Bearer {key}"},
            timeout=120.0,
            trust_env=False,
        )


def _subject(run: Run) -> tuple[AdaptationJob, AdapterTrained, float]:
    """The job, its candidate, and when this gate began."""
    if run.job is None or run.trained is None:
        raise ValueError(f"run {run.ref} has no candidate to judge")
    return run.job, run.trained, time.monotonic()


def _candidate(trained: AdapterTrained) -> str:
    """How serving names a candidate nobody but the platform may ask."""
    return f"candidate:{trained.adapter}"


def _carrier(
    asker: Asker,
    step: Step,
    gate: str,
    trained: AdapterTrained,
    options: AskOptions | None = None,
) -> Ask:
    """Carries a gate's questions to serving; greedy answers are kept by the model's content."""

    async def ask(who: Who, rows: Sequence[Row], max_tokens: int) -> Sequence[Answer]:
        label = f"asking the {who}"
        return await asker.ask_all(
            rows,
            model=BASE if who == "base" else _candidate(trained),
            options=replace(options or AskOptions(), max_tokens=max_tokens),
            identity=trained.base if who == "base" else trained.adapter,
            on_done=lambda done, total, _row, _answer: step.tick(gate, label, done, total),
        )

    return ask
