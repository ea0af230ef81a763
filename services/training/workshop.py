"""From a run to an adapter: prepare the order, have it trained, put the artifact away.

The order's work folder is named by the recipe's digest, so whoever holds the step next, in this
process or another, meets the checkpoints of whoever held it before.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from contracts.base import Problem
from contracts.progress import Progress
from contracts.run import Run
from contracts.training import AdapterTrained, TrainingStarted, TrainingStopped
from services.training.adapters import supervisor
from services.training.adapters.preparation import prepare
from services.training.plan import TrainerPlan, recipe_bytes, recipe_digest
from services.training.reports import STAGE, TrainFailure
from services.training.settings import TrainingSettings
from shared.artifacts import ArtifactStore, TrainingStore, evaluation_sets
from shared.errors import ArtifactMissing, InvalidInput, TransientError

IMPLEMENTED = (
    "sft",
    "instruction",
    "lora",
    "qlora",
    "preference",
    "distillation",
    "domain_adaptation",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """One training to carry out."""

    store: TrainingStore
    work: Path
    plan: TrainerPlan
    started: TrainingStarted


class Workshop:
    """Carries out training orders under `home`."""

    def __init__(self, settings: TrainingSettings, artifacts: ArtifactStore) -> None:
        self._settings = settings
        self._store_of = artifacts.for_training
        """Tenant → the store without its evaluation sets; the workshop holds no other (H9)."""

    async def order(self, run: Run) -> Order | TrainingStopped:
        """What to train for `run`, or why it cannot begin. No weight is loaded."""
        return await asyncio.to_thread(self._order, run)

    def _order(self, run: Run) -> Order | TrainingStopped:
        job, advised, dataset = run.job, run.advised, run.dataset
        if job is None or advised is None or dataset is None:
            raise ValueError(f"run {run.ref} has no curated dataset to train on")
        method = advised.choice.method
        if method not in IMPLEMENTED:
            return TrainingStopped(
                reason="method_unavailable",
                message=f"method {method!r} cannot be trained by this version",
                mend=f"set method.name to one of: {', '.join(IMPLEMENTED)}",
            )
        store = self._store_of(run.ref.tenant, evaluation_sets(job))
        try:
            prepared = prepare(job, dataset, method=method, store=store, settings=self._settings)
        except InvalidInput as error:
            return _refusal(error.problems[0])
        except ArtifactMissing as error:
            return TrainingStopped(
                reason="dataset_missing",
                message=str(error),
                mend="restore the artifact store, or `sluice retry` to curate again",
            )
        recipe = prepared.plan.recipe
        store.put(recipe_bytes(recipe))
        started = TrainingStarted(
            recipe=recipe_digest(recipe),
            steps=prepared.plan.steps,
            memory_estimate_bytes=prepared.memory,
        )
        return Order(store=store, work=prepared.work, plan=prepared.plan, started=started)

    async def train(
        self,
        order: Order,
        report: Callable[[str, Progress], Awaitable[None]],
        cancelled: asyncio.Event,
    ) -> AdapterTrained | TrainingStopped | TransientError | None:
        """Carry out `order`. None if it was cancelled; its checkpoint stays."""

        async def on_progress(news: Progress) -> None:
            await report(STAGE, news)

        result = await supervisor.train(
            order.work,
            order.plan,
            on_progress,
            cancelled,
            grace_s=self._settings.training_cancel_grace_s,
        )
        if isinstance(result, TrainFailure):
            return _ending(result)
        adapter = await asyncio.to_thread(order.store.put_tree, order.work / "adapter")
        await asyncio.to_thread(shutil.rmtree, order.work / "checkpoints", ignore_errors=True)
        return AdapterTrained(
            adapter=adapter,
            recipe=order.started.recipe,
            base=order.plan.recipe.base,
            tokenizer=order.plan.recipe.tokenizer,
            weights=result.weights,
            steps=result.steps,
            resumed_from=result.resumed_from,
            train_loss=result.train_loss,
            validation_loss=result.validation_loss,
            metrics=result.metrics,
            tokens_per_s=result.tokens_per_s,
            peak_memory_bytes=result.peak_memory_bytes,
            duration_s=result.duration_s,
        )


def _ending(failure: TrainFailure) -> TrainingStopped | TransientError | None:
    if failure.reason == "cancelled":
        return None
    if failure.retryable:
        return TransientError(failure.message, mend=failure.mend)
    return TrainingStopped(
        reason=failure.reason, message=failure.message, mend=failure.mend, step=failure.step
    )


def _refusal(problem: Problem) -> TrainingStopped:
    """A preflight's problem as the reason the run stops."""
    return TrainingStopped(
        reason="base_missing" if problem.where.startswith("base") else "out_of_memory",
        message=problem.problem,
        mend=problem.mend,
    )
