"""The bench: asks the base, in every way of every trial, and scores what it says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from contracts.data import Row
from contracts.diagnosis import RungSkipped
from services.diagnosis.rungs import Trial, Way
from services.diagnosis.verdict import MeasuredRung, measured_rung
from shared.asking import Asker, Scored, scored_answers
from shared.errors import PermanentError
from shared.messaging.steps import Step
from shared.scoring import Scorer


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A model to ask."""

    name: str
    asker: Asker
    identity: str
    """What its answers are remembered by: the digest of its weights, or as much as is known."""
    price_per_mtok: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """Where a run's base is measured, and its larger base where the job names one."""

    step: Step
    scorer: Scorer
    base: Model
    larger: Model | None = None

    async def ask(
        self, label: str, rows: Sequence[Row], way: Way, *, model: Model | None = None
    ) -> tuple[Scored, ...]:
        """The answers of `model`, the base by default, to `rows` asked this way, scored.

        Raises:
            PeerUnavailable: the endpoint does not answer.
            PermanentError: the endpoint refuses a request.
        """
        asked_of = model or self.base
        doing = f"asking {asked_of.name}: {label}"
        await self.step.progress("diagnosis", doing, 0, len(rows))
        asked = rows if way.rewrite is None else [way.rewrite(row) for row in rows]
        answers = await asked_of.asker.ask_all(
            asked,
            model=asked_of.name,
            options=way.options,
            identity=asked_of.identity,
            retry=way.retry,
            on_done=lambda done, total, _row, _answer: self.step.tick(
                "diagnosis", doing, done, total
            ),
        )
        return await scored_answers(rows, answers, self.scorer)

    async def climb(
        self, trials: Sequence[Trial], rows: Sequence[Row]
    ) -> tuple[list[MeasuredRung], list[RungSkipped]]:
        """Every trial measured, and those whose requests are refused, with the reason.

        A prompt beyond the base's context is no defect of the run: that rung cannot be taken here.
        """
        measured: list[MeasuredRung] = []
        refused: list[RungSkipped] = []
        for trial in trials:
            try:
                measured.append(await self._measure(trial, rows))
            except PermanentError as error:
                refused.append(RungSkipped(rung=trial.rung, reason=str(error)[:300]))
        return measured, refused

    async def _measure(self, trial: Trial, rows: Sequence[Row]) -> MeasuredRung:
        model = self.larger if trial.larger and self.larger else self.base
        label = trial.rung.replace("_", " ")
        names = [way.name for way in trial.ways]
        ways = [
            await self.ask(f"{label} {way.name}".rstrip(), rows, way, model=model)
            for way in trial.ways
        ]
        return measured_rung(trial.rung, names, ways, model.price_per_mtok)
