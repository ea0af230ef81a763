"""Whether a candidate fits: its files are safe, and they are what job, recipe and log say (R2)."""

from __future__ import annotations

from pathlib import Path

from contracts.base import Problem
from contracts.training import AdapterTrained, Recipe
from services.registry.cards import Candidate
from shared.artifacts import Tree
from shared.bundles import AdapterConfig, inspect_adapter
from shared.bundles.layout import ALLOWED_SUFFIXES, CONFIG, WEIGHTS

MAXIMUM_FILES = 64
RECIPE = "recipe.json"


def tree_problems(tree: Tree, trained: AdapterTrained) -> list[Problem]:
    """What is wrong with the adapter's manifest, before anything of it is fetched."""
    problems = [
        _problem(name, "is not a file an adapter may hold", "save it with safe serialization")
        for name in tree.files
        if Path(name).suffix not in ALLOWED_SUFFIXES
    ]
    problems += [
        _problem(name, "is missing from the adapter", "train again")
        for name in (WEIGHTS, CONFIG, RECIPE)
        if name not in tree.files
    ]
    if len(tree.files) > MAXIMUM_FILES:
        problems.append(
            _problem("adapter", f"holds more than {MAXIMUM_FILES} files", "train again")
        )
    if tree.files.get(WEIGHTS, trained.weights) != trained.weights:
        problems.append(_problem(WEIGHTS, "are not the weights training reported", "train again"))
    return problems


def recipe_problems(recipe: Recipe, candidate: Candidate) -> list[Problem]:
    """Where the recipe in the adapter contradicts the run's log."""
    expected = {
        "base": candidate.trained.base,
        "tokenizer": candidate.trained.tokenizer,
        "dataset": candidate.dataset.card,
    }
    return [
        _problem(
            f"{RECIPE}.{name}",
            f"is {getattr(recipe, name)}, the run says {digest}",
            "train again from the run's own dataset and base",
        )
        for name, digest in expected.items()
        if getattr(recipe, name) != digest
    ]


def adapter_problems(config: AdapterConfig, recipe: Recipe) -> list[Problem]:
    """Where the adapter's configuration is not the recipe's."""
    if recipe.lora is None:
        return [_problem(f"{RECIPE}.lora", "is absent, the registry takes LoRA", "train a LoRA")]
    lora = recipe.lora
    pairs = {
        "r": (config.r, lora.r),
        "lora_alpha": (config.lora_alpha, lora.alpha),
        "lora_dropout": (config.lora_dropout, lora.dropout),
    }
    if lora.target_modules != "all-linear":
        modules = (sorted(config.target_modules), sorted(lora.target_modules))
        pairs["target_modules"] = modules  # type: ignore[assignment]
    return [
        _problem(f"{CONFIG}.{name}", f"is {found}, the recipe says {asked}", "train again")
        for name, (found, asked) in pairs.items()
        if found != asked
    ]


def inspect(folder: Path, maximum_rank: int) -> AdapterConfig:
    """The fetched adapter's configuration. Raises InvalidInput."""
    return inspect_adapter(folder, maximum_rank=maximum_rank)


def _problem(where: str, problem: str, mend: str) -> Problem:
    return Problem(where=where, problem=problem, mend=mend)
