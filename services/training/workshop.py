"""From a run to an adapter: prepare the order, have it trained, put the artifact away.

The order's work folder is named by the recipe's digest, so whoever holds the step next, in this
process or another, meets the checkpoints of whoever held it before.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import json
import shutil
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import psutil

from contracts.data import parse_row
from contracts.progress import Progress
from contracts.run import Run
from contracts.training import AdapterTrained, Recipe, TrainingStarted, TrainingStopped
from services.training import memory
from services.training.adapters import supervisor
from services.training.plan import (
    TrainerPlan,
    optimizer_steps,
    recipe_bytes,
    recipe_digest,
    recipe_of,
    work_folder,
)
from services.training.reports import STAGE, TrainFailure
from shared.artifacts import ArtifactStore
from shared.errors import ArtifactMissing, InvalidInput, TransientError
from shared.models import base_digest, digest_cache, resolve_base, tokenizer_digest

LIBRARIES = ("accelerate", "peft", "safetensors", "tokenizers", "torch", "transformers", "trl")
IMPLEMENTED = ("lora",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """One training to carry out."""

    work: Path
    plan: TrainerPlan
    started: TrainingStarted


class Workshop:
    """Carries out training orders under `home`."""

    def __init__(
        self, home: Path, artifacts: ArtifactStore, *, threads: int, cancel_grace_s: float
    ) -> None:
        self._home = home.resolve()
        self._artifacts = artifacts
        self._threads = threads
        self._cancel_grace_s = cancel_grace_s

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
        try:
            base = resolve_base(job.base, self._home)
        except InvalidInput as error:
            problem = error.problems[0]
            return TrainingStopped(
                reason="base_missing", message=problem.problem, mend=problem.mend
            )
        cache = digest_cache(self._home)
        recipe = recipe_of(
            job,
            dataset,
            method=method,
            base=base_digest(base, cache=cache),
            tokenizer=tokenizer_digest(base, cache=cache),
            versions={name: importlib.metadata.version(name) for name in LIBRARIES},
        )
        work = work_folder(self._home, recipe)
        try:
            train = self._artifacts.fetch(dataset.train, work / "train.jsonl")
            validation = (
                self._artifacts.fetch(dataset.validation, work / "validation.jsonl")
                if dataset.validation
                else None
            )
        except ArtifactMissing as error:
            return TrainingStopped(
                reason="dataset_missing",
                message=str(error),
                mend="restore the artifact store, or `sluice retry` to curate again",
            )
        parts = _memory_parts(base, train, recipe)
        try:
            memory.require_memory(
                parts,
                available=psutil.virtual_memory().available,
                batch_size=recipe.train.batch_size,
            )
        except InvalidInput as error:
            problem = error.problems[0]
            return TrainingStopped(
                reason="out_of_memory", message=problem.problem, mend=problem.mend
            )
        steps = optimizer_steps(_count_lines(train), recipe.train)
        plan = TrainerPlan(
            recipe=recipe,
            base=base,
            base_label=job.base.label,
            train=train,
            validation=validation,
            steps=steps,
            threads=self._threads,
        )
        self._artifacts.put(recipe_bytes(recipe))
        started = TrainingStarted(
            recipe=recipe_digest(recipe), steps=steps, memory_estimate_bytes=parts
        )
        return Order(work=work, plan=plan, started=started)

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
            order.work, order.plan, on_progress, cancelled, grace_s=self._cancel_grace_s
        )
        if isinstance(result, TrainFailure):
            return _ending(result)
        adapter = await asyncio.to_thread(self._artifacts.put_tree, order.work / "adapter")
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


def _memory_parts(base: Path, train: Path, recipe: Recipe) -> dict[str, int]:
    """Bytes by part for the longest row of the dataset."""
    dimensions = memory.ModelDimensions.of(json.loads((base / "config.json").read_text()))
    longest = completion = 1
    with train.open("rb") as rows:
        for line in rows:
            row = parse_row(line)
            answer = len(row.target or "")
            prompt = sum(len(m.content) for m in row.messages) + len(json.dumps(row.tools))
            longest = max(longest, prompt + answer)
            completion = max(completion, answer)
    length = min(recipe.train.max_length, memory.tokens_at_most(longest))
    return memory.estimate(
        dimensions,
        method=recipe.method,
        lora=recipe.lora,
        batch_size=recipe.train.batch_size,
        length=length,
        completion_length=min(length, memory.tokens_at_most(completion)),
    )


def _count_lines(path: Path) -> int:
    with path.open("rb") as rows:
        return sum(1 for _ in rows)
