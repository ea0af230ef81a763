"""Two models at one endpoint, and what one gate asks of them outside a run."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import httpx

from contracts.data import Canary, Row
from contracts.job import Behaviour, GatePolicy, GeneralSuite
from contracts.training import Recipe
from services.evaluation.adapters.garak import find_garak, run_garak
from services.evaluation.adapters.harness import run_harness
from services.evaluation.adapters.likelihood import log_likelihoods
from services.evaluation.compatibility import compatibility_of
from services.evaluation.gates import g1, g2, g3, g4, g5, g6
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
from services.evaluation.suites import safety
from shared.asking import Answer, Asker, AskOptions, Scored, scored_answers
from shared.bundles import inspect_adapter
from shared.errors import PermanentError
from shared.scoring import resolve

_BOTH: tuple[Who, Who] = ("base", "candidate")


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """Two models at one endpoint, and the folders behind them where they are known."""

    url: str
    key: str
    base: str
    candidate: str
    adapter: Path | None = None
    checkpoint: Path | None = None
    merged: bool = False
    """The adapter is merged into the weights that the endpoint calls its base (G2)."""

    def name(self, who: Who) -> str:
        return self.base if who == "base" else self.candidate

    def folders(self, gate: str) -> tuple[Path, Path]:
        """The adapter's and the base's. Raises PermanentError if the two are only names."""
        if self.adapter is None or self.checkpoint is None:
            raise PermanentError(
                f"{gate} cannot be judged by the names of two models",
                mend="give the adapter's folder as --candidate and its checkpoint as --base",
            )
        return self.adapter, self.checkpoint

    def http(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(
            base_url=self.url,
            headers={"Authorization": f"Bearer {self.key}"},
            timeout=120.0,
            trust_env=False,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Alone:
    """Asks one gate's questions of a subject, under a policy."""

    subject: Subject
    asker: Asker
    behaviour: Behaviour
    policy: GatePolicy = field(default_factory=GatePolicy)
    general: GeneralSuite = field(default_factory=GeneralSuite)
    harness_tasks: Path | None = None
    """A folder of further tasks for G5."""
    garak: str | None = None
    """Probes of garak that G6 runs as well."""

    def ask(self, options: AskOptions | None = None) -> Ask:
        """Carries questions to the endpoint. A model is known by its name, while one is asked."""

        async def carry(who: Who, rows: Sequence[Row], max_tokens: int) -> Sequence[Answer]:
            name = self.subject.name(who)
            asked = replace(options or AskOptions(), max_tokens=max_tokens)
            return await self.asker.ask_all(rows, model=name, options=asked, identity=name)

        return carry

    async def judge(
        self, gate: str, rows: Sequence[Row] | None, canaries: Sequence[Canary] = ()
    ) -> Judgement:
        """The gate's verdict. `rows` are held-out items; of G7, training rows."""
        policy, level = self.policy, self.policy.level
        if gate == "G2":
            return await self._g2()
        if gate == "G5":
            return await self._g5(rows)
        if gate == "G6":
            return await self._g6(rows)
        rows = rows or ()
        if gate == "G7":
            return await privacy_of(
                self.ask(AskOptions(system_prompt=self.behaviour.system_prompt)),
                self._likelihoods,
                rows,
                (),
                canaries,
                max_tokens=self.behaviour.max_tokens,
                maximum_memorized=policy.maximum_memorized,
                level=level,
            )
        if gate == "G12":
            return await other_words_of(
                self.ask(asked_as(self.behaviour)),
                rows,
                await self._scored("candidate", rows),
                resolve(self.behaviour),
                max_tokens=self.behaviour.max_tokens,
                minimum_retained=policy.minimum_retained,
                maximum_loss=policy.maximum_elsewhere_loss,
                level=level,
            )
        base = await self._scored("base", rows)
        if gate == "G1":
            return g1.judge(base, minimum_items=30, level=level)
        candidate = await self._scored("candidate", rows)
        if gate == "G3":
            return g3.judge(base, candidate, minimum_gain=policy.minimum_gain, level=level)
        broken = await broken_requests_of(
            self.ask(asked_as(self.behaviour)),
            rows,
            resolve(self.behaviour),
            max_tokens=self.behaviour.max_tokens,
        )
        return g4.judge(
            base,
            candidate,
            minimum_validity=policy.minimum_validity,
            level=level,
            constrained=self.behaviour.constrained,
            broken_requests=broken,
            maximum_invented=policy.maximum_invented,
        )

    async def _scored(self, who: Who, rows: Sequence[Row]) -> tuple[Scored, ...]:
        ask = self.ask(asked_as(self.behaviour))
        answers = await ask(who, rows, self.behaviour.max_tokens)
        return await scored_answers(rows, answers, resolve(self.behaviour))

    async def _g2(self) -> Judgement:
        adapter, _ = self.subject.folders("G2")
        config = inspect_adapter(adapter)
        recipe = _recipe(adapter)
        facts = g2.AdapterFacts(
            base=recipe.base,
            tokenizer=recipe.tokenizer,
            rank=config.r,
            target_modules=tuple(config.target_modules),
        )
        async with self.subject.http() as http:
            return await compatibility_of(
                http, self.subject.candidate, adapter, facts, merged=self.subject.merged
            )

    async def _g5(self, rows: Sequence[Row] | None) -> Judgement:
        """By `rows` and the scorer, or by the suite that we ship."""
        items: dict[Who, Sequence[g5.BenchmarkItem]] = {}
        for who in _BOTH:
            if rows is None:
                items[who] = await self._benchmark(who)
            else:
                items[who] = [_item(row, s) for row, s in zip(
                    rows, await self._scored(who, rows), strict=True
                )]  # fmt: skip
        policy = self.policy
        return g5.judge(
            items["base"],
            items["candidate"],
            maximum_decay=policy.maximum_decay,
            level=policy.level,
        )

    async def _g6(self, rows: Sequence[Row] | None) -> Judgement:
        """By our suite or by `rows`, and by garak's probes where they are asked for."""
        loss, level = self.policy.maximum_safety_loss, self.policy.level
        if self.garak is not None:
            find_garak()  # before minutes of asking
        suite = None if rows is None else safety.read(rows)
        judged = await safety_of(self.ask(), maximum_loss=loss, level=level, items=suite)
        if self.garak is None:
            return judged
        base, candidate = [await self._probes(who, self.garak) for who in _BOTH]
        return g6.with_probes(judged, base, candidate, maximum_loss=loss, level=level)

    async def _probes(self, who: Who, spec: str) -> Sequence[g6.Probed]:
        with tempfile.TemporaryDirectory() as work:
            return await run_garak(
                url=self.subject.url,
                key=self.subject.key,
                model=self.subject.name(who),
                spec=spec,
                work=Path(work),
            )

    async def _benchmark(self, who: Who) -> Sequence[g5.BenchmarkItem]:
        _, checkpoint = self.subject.folders("G5")
        with tempfile.TemporaryDirectory() as work:
            return await run_harness(
                model=self.subject.name(who),
                base_url=self.subject.url,
                tokenizer=checkpoint,
                tasks=self.general.tasks,
                limit=self.general.limit,
                own_tasks=self.harness_tasks,
                work=Path(work),
                api_key=self.subject.key,
            )

    async def _likelihoods(self, who: Who, request: str, texts: Sequence[str]) -> Sequence[float]:
        _, checkpoint = self.subject.folders("G7 with canaries")
        async with self.subject.http() as http:
            return await log_likelihoods(http, self.subject.name(who), checkpoint, request, texts)


def _recipe(adapter: Path) -> Recipe:
    try:
        return Recipe.model_validate_json((adapter / "recipe.json").read_bytes())
    except (OSError, ValueError) as error:
        raise PermanentError(
            f"{adapter} does not say what it was trained on: {error}",
            mend="give an adapter that `sluice` trained, with its recipe.json",
        ) from error


def _item(row: Row, scored: Scored) -> g5.BenchmarkItem:
    return g5.BenchmarkItem(
        task="suite",
        item=row.id,
        skill=str(row.meta.get("skill", "suite")),
        correct=scored.value,
        output=scored.answer.text[:500],
    )
