"""The bench: what each gate asks of serving, and the artifacts it compares against.

All model answers come through the serving API. Greedy answers are cached by model content, so the
frozen base answers a question once, whichever gate or run asks it.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import httpx
from pydantic import TypeAdapter

from contracts.base import Digest
from contracts.data import DatasetCard, Row, parse_row
from contracts.evaluation import GateJudged
from contracts.job import AdaptationJob
from contracts.run import Run
from contracts.serving import (
    EngineDescription,
    FingerprintAnswer,
    FingerprintQuestion,
    ScoreAnswer,
    ScoreQuestion,
)
from contracts.training import AdapterTrained, Fingerprint
from services.evaluation import memorization, safety_items
from services.evaluation.adapters.harness import run_harness
from services.evaluation.gates import g1, g2, g3, g4, g5, g6, g7
from services.evaluation.gates.g5 import BenchmarkItem
from services.evaluation.gates.judgement import Judgement
from services.evaluation.memorization import Canary, Exposed
from shared.artifacts import ArtifactStore, Pinned
from shared.asking import Answer, Asker, AskOptions, Scored, score_answers
from shared.bundles import inspect_adapter
from shared.errors import PeerUnavailable, PermanentError
from shared.keys import service_key
from shared.messaging.steps import Step
from shared.models import resolve_base
from shared.scoring import resolve as resolve_scorer
from shared.settings import Settings

_FINGERPRINTS = TypeAdapter(tuple[Fingerprint, ...])
BASE = "base"
SAFETY_TOKENS = 24
"""How an answer begins shows whether it refuses."""
PROBE_TOKENS = 96


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
        async with self._http(job) as http:
            engine = EngineDescription.model_validate_json(
                await _send(http, http.build_request("GET", "internal/engine"))
            )
            fingerprints = _FINGERPRINTS.validate_json((folder / "fingerprints.json").read_bytes())
            served = [await _served(http, _candidate(trained), f) for f in fingerprints]
        verdict = g2.judge(
            g2.AdapterFacts(
                base=trained.base,
                tokenizer=trained.tokenizer,
                rank=config.r,
                target_modules=tuple(config.target_modules),
            ),
            g2.EngineFacts(
                base=engine.base,
                tokenizer=engine.tokenizer,
                maximum_rank=engine.max_lora_rank,
                target_modules=engine.target_modules,
            ),
            fingerprints,
            served,
            tolerance=g2.TOLERANCE_NATS[engine.dtype],
        )
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
        verdict = g4.judge(
            base, candidate, minimum_validity=job.gates.minimum_validity, level=job.gates.level
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
        """Safety and red team."""
        job, trained, began = _subject(step.run)
        rows = safety_items.rows()
        options = AskOptions(system_prompt=job.behaviour.system_prompt, max_tokens=SAFETY_TOKENS)
        base, candidate = (
            score_answers(rows, answers, g6.score)
            for answers in await self._both(step, "g6", rows, options, job, trained)
        )
        verdict = g6.judge(
            rows,
            base,
            candidate,
            maximum_decay=job.gates.maximum_safety_decay,
            level=job.gates.level,
        )
        return self._judged(verdict, trained, began, candidate)

    async def g7(self, step: Step) -> GateJudged:
        """Privacy and memorization."""
        job, trained, began = _subject(step.run)
        rows, canaries = await asyncio.to_thread(self._training_rows, step.run)
        probes, census = memorization.probes(rows)
        asked = [probe.asked for probe in probes]
        options = AskOptions(max_tokens=PROBE_TOKENS, continue_last=True)
        base, candidate = await self._both(step, "g7", asked, options, job, trained)
        reproduced = [
            g7.Reproduced(
                item=probe.asked.id,
                rest=len(probe.rest),
                base=memorization.reproduced(probe.rest, before.text),
                candidate=memorization.reproduced(probe.rest, after.text),
                output=after.text,
            )
            for probe, before, after in zip(probes, base, candidate, strict=True)
        ]
        exposed = await self._exposures(step, job, _candidate(trained), canaries)
        leaked = memorization.leaks([answer.text for answer in candidate], rows)
        verdict = g7.judge(
            reproduced,
            exposed,
            leaked,
            census=census,
            maximum_extraction=job.gates.maximum_extraction,
            level=job.gates.level,
        )
        return self._judged(verdict, trained, began, ())

    async def _exposures(
        self, step: Step, job: AdaptationJob, model: str, canaries: Sequence[Canary]
    ) -> list[Exposed]:
        """Each planted canary, ranked by the candidate among random ones."""
        found = []
        async with self._http(job) as http:
            for number, canary in enumerate(canaries):
                step.tick("g7", "ranking canaries", number, len(canaries))
                question = ScoreQuestion(
                    model=model,
                    messages=({"role": "user", "content": canary.request},),
                    answers=(canary.canary, *memorization.alternatives(canary)),
                )
                body = question.model_dump(mode="json")
                request = http.build_request("POST", "internal/score", json=body)
                scored = ScoreAnswer.model_validate_json(await _send(http, request))
                planted, *others = scored.logprobs
                found.append(memorization.exposed(canary, planted, others))
        return found

    def _training_rows(self, run: Run) -> tuple[list[Row], list[Canary]]:
        """What the candidate was trained on, and the canaries planted in it."""
        if run.dataset is None:
            return [], []
        card = DatasetCard.model_validate_json(self._artifacts.get(run.dataset.card))
        content = self._artifacts.get(run.dataset.train)
        rows = [parse_row(line) for line in content.splitlines() if line.strip()]
        planted = card.files.get("canaries.jsonl")
        return rows, memorization.read_canaries(self._artifacts.get(planted)) if planted else []

    async def _both(
        self,
        step: Step,
        gate: str,
        rows: Sequence[Row],
        options: AskOptions,
        job: AdaptationJob,
        trained: AdapterTrained,
    ) -> tuple[list[Answer], list[Answer]]:
        """The base's answers and the candidate's."""
        base = await self._ask(step, gate, rows, options, job, BASE, trained.base)
        candidate = _candidate(trained)
        return base, await self._ask(step, gate, rows, options, job, candidate, trained.adapter)

    async def _answers(
        self, step: Step, gate: str, job: AdaptationJob, model: str, identity: Digest
    ) -> tuple[Scored, ...]:
        """The held-out items, answered and scored."""
        rows = self._heldout(job)
        options = AskOptions(
            system_prompt=job.behaviour.system_prompt, max_tokens=job.behaviour.max_tokens
        )
        answers = await self._ask(step, gate, rows, options, job, model, identity)
        return score_answers(rows, answers, resolve_scorer(job.behaviour))

    async def _ask(
        self,
        step: Step,
        gate: str,
        rows: Sequence[Row],
        options: AskOptions,
        job: AdaptationJob,
        model: str,
        identity: Digest,
    ) -> list[Answer]:
        label = "the base" if model == BASE else "the candidate"
        await step.progress(gate, f"asking {label}", 0, len(rows))
        async with Asker(
            self._settings.serving_url,
            service_key(self._settings, job.tenant),
            self._home / "cache" / "answers",
        ) as asker:
            return await asker.ask_all(
                rows,
                model=model,
                options=options,
                identity=identity,
                on_done=lambda done, total, _row, _answer: step.tick(
                    gate, f"asking {label}", done, total
                ),
            )

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
            work=self._home / "evaluation" / "harness" / identity.removeprefix("sha256:"),
            api_key=service_key(self._settings, job.tenant),
            on_progress=lambda done, total: step.tick(
                "g5", f"general capability of {label}", done, total
            ),
        )

    def _heldout(self, job: AdaptationJob) -> list[Row]:
        content = self._artifacts.get(Pinned.parse(job.evaluation.heldout.uri).digest)
        return [parse_row(line) for line in content.splitlines() if line.strip()]

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


async def _served(http: httpx.AsyncClient, candidate: str, trained: Fingerprint) -> g2.Served:
    """The engine's view of one fingerprinted prompt, with and without the adapter."""
    answers = []
    for model in (candidate, BASE):
        question = FingerprintQuestion(
            model=model,
            messages=trained.messages,
            tools=trained.tools,
            token_ids=trained.top_token_ids,
        )
        body = question.model_dump(mode="json")
        content = await _send(http, http.build_request("POST", "internal/fingerprint", json=body))
        answers.append(FingerprintAnswer.model_validate_json(content))
    with_adapter, without = answers
    ids = trained.top_token_ids
    return g2.Served(
        prompt_token_ids=with_adapter.prompt_token_ids,
        candidate=dict(zip(ids, with_adapter.logprobs, strict=True)),
        base=dict(zip(ids, without.logprobs, strict=True)),
    )


async def _send(http: httpx.AsyncClient, request: httpx.Request) -> bytes:
    """The body of the answer. Raises PeerUnavailable or PermanentError."""
    try:
        response = await http.send(request)
    except httpx.HTTPError as error:
        raise PeerUnavailable(f"serving does not answer: {error!r}") from error
    if response.status_code == 429 or response.status_code >= 500:
        raise PeerUnavailable(f"serving answers {response.status_code}")
    if response.is_error:
        raise PermanentError(
            f"serving refuses {request.url.path}: {response.text[:500]}",
            mend="see that serving runs the same version as evaluation",
        )
    return response.content
