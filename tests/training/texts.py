"""Texts of two kinds and conversations of several turns, and a small transformer for them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from contracts.base import digest_of
from contracts.data import Row
from contracts.job import Hyperparameters, LoraParameters
from contracts.training import Recipe
from services.training.plan import TrainerPlan
from shared.models import base_digest, tokenizer_digest
from tests.training.judged import write

PARTS = ("valve", "rotor", "gasket", "piston", "bearing", "filter")
ANIMALS = ("fox", "dog", "cat", "hen", "owl", "bee")


def document(i: int, kind: str) -> Row:
    """Text `i`: of the domain, parts that need one another; in general, animals that meet."""
    first, second = i % 6, (i // 6 + 1 + i) % 6
    text = {
        "domain": f"check the {PARTS[first]} torque, then seal {PARTS[second]} unit {i % 7}.",
        "general": f"the {ANIMALS[first]} meets the {ANIMALS[second]} on day {i % 7} at home.",
    }[kind]
    return Row.model_validate(
        {
            "id": f"{kind}{i}",
            "messages": [{"role": "user", "content": f"{kind} {i}"}],
            "target": text,
            "document": kind,
        }
    )


def conversation(i: int) -> Row:
    """Two turns of the assistant, each of which its request decides."""
    first, second = i % 6, i * 5 % 6
    return Row.model_validate(
        {
            "id": f"c{i}",
            "messages": [
                {"role": "system", "content": "be brief"},
                {"role": "user", "content": f"part {first}"},
                {"role": "assistant", "content": PARTS[first]},
                {"role": "user", "content": f"animal {second}"},
            ],
            "target": ANIMALS[second],
        }
    )


def likelihood_plan(
    base: Path,
    folder: Path,
    *,
    method: str,
    train: list[Row],
    validation: list[Row],
    steps: int,
    rank: int = 8,
    **more: Any,
) -> TrainerPlan:
    """A plan of sft, instruction or cpt; `parameters` among `more` says which weights move."""
    parameters = more.pop("parameters", None)
    settings = {"learning_rate": 3e-3, "batch_size": 8, "checkpoint_every": 10} | more
    folder.mkdir(exist_ok=True)
    return TrainerPlan(
        recipe=Recipe(
            method=method,
            base=base_digest(base),
            tokenizer=tokenizer_digest(base),
            dataset=digest_of(repr([row.id for row in train]).encode()),
            lora=LoraParameters(r=rank, alpha=2 * rank),
            parameters=parameters,
            train=Hyperparameters.model_validate(settings),
            versions={},
        ),
        base=base,
        base_label="tiny-llama",
        train=write(folder / "train.jsonl", train),
        validation=write(folder / "validation.jsonl", validation),
        steps=steps,
        threads=1,
    )
