"""`precision: auto`: chosen by a short measurement, once for a recipe, and kept.

The choice becomes part of the recipe, whose digest names the work folder. A busy machine could
measure otherwise at the second attempt and never find the checkpoint of its first. So the first
measurement is written down under the digest of the recipe as it was before, and read ever after.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from pydantic import Field, ValidationError

from contracts.base import Frozen
from contracts.training import Recipe
from services.training.plan import recipe_digest
from shared.precision import Precision

FASTER = 1.15
"""bfloat16 keeps 8 bits of a number where float32 keeps 24, so it must be worth it."""

Seconds = dict[Precision, float]
"""Precision → seconds of the same short work."""


class PrecisionChoice(Frozen):
    """What was chosen for a recipe, and why."""

    precision: Precision
    seconds: Seconds = Field(default_factory=dict)
    """As measured; empty where the measurement failed."""
    problem: str = ""
    """Why nothing was measured."""

    def __str__(self) -> str:
        if not self.seconds:
            return f"{self.precision}, by the processor's flags: {self.problem}"
        taken = ", ".join(f"{name} {s * 1000:.3g} ms" for name, s in self.seconds.items())
        return f"{self.precision}, as measured: a step of one block takes {taken}"


def chosen(seconds: Seconds) -> PrecisionChoice:
    """bfloat16 where it is faster by `FASTER`, else float32."""
    half = seconds["float32"] >= FASTER * seconds["bfloat16"]
    return PrecisionChoice(precision="bfloat16" if half else "float32", seconds=seconds)


def choice_for(
    recipe: Recipe, home: Path, measure: Callable[[], PrecisionChoice]
) -> PrecisionChoice:
    """The choice kept for `recipe`, whose precision is `auto`; measured if there is none yet.

    Of two who measure at once the first to write it down decides for both.
    """
    kept = home / "training" / "precision" / recipe_digest(recipe).removeprefix("sha256:")
    if (found := _read(kept)) is not None:
        return found
    choice = measure()
    kept.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=kept.parent, delete=False) as part:
        part.write(choice.model_dump_json())
    try:
        os.link(part.name, kept)  # fails where another was first
    except FileExistsError:
        choice = _read(kept) or choice
    finally:
        Path(part.name).unlink()
    return choice


def _read(path: Path) -> PrecisionChoice | None:
    try:
        return PrecisionChoice.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None
