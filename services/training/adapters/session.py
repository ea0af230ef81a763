"""What a training method is given, and what it gives back.

A method is one readable file under `methods/`: it loads, trains and hands over a model. Everything
around it (reports, cancel, checkpoints' seals, failure names, the artifact) is the session's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from contracts.job import LoraParameters
from contracts.preference import PreferenceParameters
from contracts.training import Recipe
from services.training.adapters.channel import Channel
from services.training.health import RunStopped
from services.training.plan import TrainerPlan


class Cancelled(Exception):
    """SIGTERM came; a checkpoint is kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """One trainer process at work on one plan."""

    work: Path
    plan: TrainerPlan
    channel: Channel
    is_cancelled: Callable[[], bool]

    @property
    def checkpoints(self) -> Path:
        return self.work / "checkpoints"


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """A trained model in memory, and the run's numbers."""

    model: Any
    """A PEFT model."""
    tokenizer: Any
    resumed_from: int | None
    train_loss: float
    validation_loss: float | None
    tokens_per_s: float
    rows: int
    rows_too_long: int
    metrics: dict[str, float] = field(default_factory=dict)
    """The method's own measures on the validation rows."""


class Method(Protocol):
    """A training method.

    Raises `RunStopped` for a named reason and `Cancelled` after its checkpoint is kept.
    """

    def __call__(self, session: Session) -> Trained: ...


def preference_recipe(recipe: Recipe) -> tuple[LoraParameters, PreferenceParameters]:
    """What preference tuning reads of its recipe. Raises RunStopped if it is not there."""
    if recipe.lora is None or recipe.preference is None:
        raise RunStopped(
            "method_unavailable",
            "the recipe has no lora or no preference parameters",
            "set method.lora and method.preference",
        )
    return recipe.lora, recipe.preference
