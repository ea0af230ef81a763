"""Rows whose better answer depends on the request, and a small transformer that can learn them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from contracts.base import digest_of
from contracts.data import Row
from contracts.job import Hyperparameters, LoraParameters
from contracts.preference import PreferenceParameters
from contracts.training import Recipe
from services.training.plan import TrainerPlan
from shared.models import base_digest, tokenizer_digest

ANSWERS = {"morning": ("hello there", "good bye"), "evening": ("good bye", "hello there")}
"""Time of day → the better and the worse answer. What one rewards, the other punishes."""


def request(i: int) -> tuple[str, str]:
    """The time of day and the request of row `i`."""
    time = ("morning", "evening")[i % 2]
    return time, f"{time} no {i * 37 % 101}"


def pair(i: int) -> Row:
    time, text = request(i)
    chosen, rejected = ANSWERS[time]
    return Row.model_validate(
        {
            "id": f"p{i}",
            "messages": [{"role": "user", "content": text}],
            "target": chosen,
            "rejected": rejected,
        }
    )


def judged(i: int) -> Row:
    """Row `i`, unpaired: the better answer for three of four requests, else the worse one."""
    time, text = request(i)
    good = i // 2 % 4 != 3
    return Row.model_validate(
        {
            "id": f"j{i}",
            "messages": [{"role": "user", "content": text}],
            "target": ANSWERS[time][not good],
            "desirable": good,
        }
    )


def write(path: Path, rows: list[Row]) -> Path:
    path.write_text("".join(row.model_dump_json(exclude_defaults=True) + "\n" for row in rows))
    return path


def plan(
    base: Path,
    folder: Path,
    *,
    method: str,
    train: list[Row],
    validation: list[Row],
    steps: int,
    preference: dict[str, Any] | None = None,
    **hyperparameters: float,
) -> TrainerPlan:
    """A plan for rows that are written to `folder`."""
    settings = {"learning_rate": 1e-2, "batch_size": 8, "checkpoint_every": 10} | hyperparameters
    written = write(folder / "train.jsonl", train)
    return TrainerPlan(
        recipe=Recipe(
            method=method,
            base=base_digest(base),
            tokenizer=tokenizer_digest(base),
            dataset=digest_of(json.dumps([row.id for row in train]).encode()),
            lora=LoraParameters(r=8, alpha=16),
            preference=PreferenceParameters.model_validate(
                {"objective": method} | (preference or {})
            ),
            train=Hyperparameters.model_validate(settings),
            versions={},
        ),
        base=base,
        base_label="tiny-llama",
        train=written,
        validation=write(folder / "validation.jsonl", validation),
        steps=steps,
        threads=1,
    )
