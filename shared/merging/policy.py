"""What may be merged into one checkpoint (F15).

A merge adds up changes to one base. Changes made to different bases, over different vocabularies,
or towards different objectives add up to nothing anybody has measured, so they are refused. Pure,
and read from the adapters' own files: no weight is loaded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from contracts.base import Digest, Problem
from contracts.training import Recipe
from shared.bundles import AdapterConfig, inspect_adapter
from shared.bundles.layout import ADAPTER, WEIGHTS
from shared.errors import InvalidInput
from shared.models import file_digest

_DEMONSTRATED = frozenset({"lora", "qlora", "instruction", "sft"})
"""Methods of one objective: the likelihood of demonstrated answers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MergeSource:
    """One adapter to merge."""

    folder: Path
    config: AdapterConfig
    recipe: Recipe
    weights: Digest

    @property
    def objective(self) -> str:
        """What the adapter was trained towards."""
        return "demonstrations" if self.recipe.method in _DEMONSTRATED else self.recipe.method

    @property
    def scale(self) -> float:
        """Alpha / r."""
        return self.config.lora_alpha / self.config.r


def read_source(folder: Path) -> MergeSource:
    """The adapter in `folder`, or in the `adapter/` of a bundle there. Raises InvalidInput."""
    inner = folder / ADAPTER.rstrip("/")
    folder = inner if inner.is_dir() else folder
    config = inspect_adapter(folder)
    try:
        recipe = Recipe.model_validate_json((folder / "recipe.json").read_bytes())
    except (OSError, ValidationError) as error:
        problem = Problem(
            where=str(folder / "recipe.json"),
            problem="does not say what the adapter was trained on",
            mend="merge adapters as training wrote them, recipe.json included",
        )
        raise InvalidInput([problem]) from error
    return MergeSource(
        folder=folder, config=config, recipe=recipe, weights=file_digest(folder / WEIGHTS)
    )


def merge_problems(
    sources: Sequence[MergeSource], *, base: Digest, tokenizer: Digest
) -> list[Problem]:
    """Why `sources` may not be merged into the base of these digests; empty if they may."""
    problems = []
    for source in sources:
        if source.recipe.base != base:
            problems.append(
                _problem(source, "was trained on another base", "merge it into its own base")
            )
        if source.recipe.tokenizer != tokenizer:
            problems.append(
                _problem(
                    source,
                    "was trained with another tokenizer or chat template",
                    "restore the tokenizer it was trained with",
                )
            )
    seen: dict[Digest, MergeSource] = {}
    for source in sources:
        if source.weights in seen:
            problems.append(
                _problem(source, f"is {seen[source.weights].folder} again", "name it once")
            )
        seen.setdefault(source.weights, source)
    objectives = sorted({source.objective for source in sources})
    if len(objectives) > 1:
        problems.append(
            Problem(
                where="adapters",
                problem=f"they pull towards different objectives: {', '.join(objectives)}",
                mend="train the second objective on top of the first, or serve them apart",
            )
        )
    return problems


def _problem(source: MergeSource, problem: str, mend: str) -> Problem:
    return Problem(where=str(source.folder), problem=problem, mend=mend)
