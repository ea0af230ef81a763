"""What one training run will do, decided before any work.

The `Recipe` names everything that determines the adapter; its digest names the work folder. So the
same job twice meets in the same folder: the second one resumes or finds the finished result.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path

from pydantic import Field

from contracts.base import Digest, Frozen, digest_of
from contracts.curation import DatasetCurated
from contracts.job import AdaptationJob, Hyperparameters, Parameters
from contracts.training import Recipe
from shared.precision import Precision

PLAN_FILE = "plan.json"


class TrainerPlan(Frozen):
    """All the trainer process needs, as `plan.json` in the work folder."""

    recipe: Recipe
    base: Path
    base_label: str
    """How the adapter names its base: never a path of this machine."""
    train: Path
    validation: Path | None = None
    teacher: Path | None = None
    """The teacher's checkpoint, where its logits are read."""
    steps: int = Field(ge=1)
    threads: int = Field(default=2, ge=1)
    """CPU threads of each process. Sums are split by thread, so equal digests need an equal number,
    and as many processes."""
    processes: int = Field(default=1, ge=1)
    """Processes that share each batch."""
    precision_reason: str = ""
    """Why the recipe has its precision, where the job left it to be chosen."""


def recipe_of(
    job: AdaptationJob,
    curated: DatasetCurated,
    *,
    method: str,
    base: Digest,
    tokenizer: Digest,
    versions: Mapping[str, str],
) -> Recipe:
    """The recipe of `job` on the curated dataset. `method` is the job's, or diagnosis' choice.

    The recipe of `preference` or `distillation` is named for its objective. A precision of `auto`
    is yet to be chosen (`with_precision`).
    """
    return Recipe(
        method=job.method.recipe(method),
        base=base,
        tokenizer=tokenizer,
        dataset=curated.card,
        lora=job.method.lora,
        parameters=job.method.parameters,
        preference=job.method.preference if method == "preference" else None,
        distillation=job.method.distillation if method == "distillation" else None,
        train=job.method.train,
        versions=dict(versions),
    )


def with_precision(recipe: Recipe, precision: Precision) -> Recipe:
    """The recipe, its precision chosen."""
    train = recipe.train.model_copy(update={"precision": precision})
    return recipe.model_copy(update={"train": train})


def moving(recipe: Recipe) -> Parameters:
    """Which weights the recipe moves: what it says, or what its method's name says."""
    named: dict[str, Parameters] = {
        "sft": "full",
        "instruction": "full",
        "cpt": "full",
        "qlora": "qlora",
    }
    return recipe.parameters or named.get(recipe.method, "lora")


def recipe_bytes(recipe: Recipe) -> bytes:
    """Canonical JSON: keys sorted, no spaces."""
    return json.dumps(
        recipe.model_dump(mode="json"), sort_keys=True, separators=(",", ":"), ensure_ascii=False
    ).encode()


def recipe_digest(recipe: Recipe) -> Digest:
    """The identity of a training run."""
    return digest_of(recipe_bytes(recipe))


def work_folder(home: Path, recipe: Recipe) -> Path:
    """Where the run of `recipe` keeps its plan, checkpoints and result."""
    return home / "training" / recipe_digest(recipe).removeprefix("sha256:")


def processes_for(recipe: Recipe, most: int) -> int:
    """How many processes train `recipe`: up to `most` that share its batch evenly; PPO in one."""
    if recipe.method == "ppo":
        return 1
    batch = recipe.train.batch_size
    return max(n for n in range(1, min(most, batch) + 1) if batch % n == 0)


def optimizer_steps(rows: int, train: Hyperparameters) -> int:
    """Optimizer steps for `rows` training rows: `max_steps`, or the epochs' worth."""
    if train.max_steps is not None:
        return train.max_steps
    batches = math.ceil(rows / train.batch_size)
    per_epoch = math.ceil(batches / train.gradient_accumulation)
    return max(1, math.ceil(per_epoch * train.epochs))


def learning_rate_share(step: int, *, steps: int, warmup_share: float) -> float:
    """The share of the peak learning rate at 0-based `step`: linear up, linear down, never zero.

    The usual schedule gives the first step a rate of 0, which a run of 20 steps cannot spare.
    """
    warmup = round(warmup_share * steps)
    if step < warmup:
        return (step + 1) / (warmup + 1)
    return max(steps - step, 1) / (steps - warmup)
