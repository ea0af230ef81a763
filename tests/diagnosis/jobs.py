"""A valid job and rows that the diagnosis tests vary."""

from __future__ import annotations

from typing import Any

from contracts.data import Message, Row
from contracts.job import AdaptationJob
from shared.asking import Answer, Scored
from shared.scoring import Score


def job(**changes: Any) -> AdaptationJob:
    document: dict[str, Any] = {
        "name": "j",
        "tenant": "demo",
        "task_namespace": "t",
        "base": {"model": "m"},
        "behaviour": {"description": "d", "scorer": "exact_match", "target": 0.5},
        "data": [{"uri": "a", "licence": "MIT", "provenance": {"source": "s"}}],
        "evaluation": {
            "dev": {"uri": "b", "licence": "MIT"},
            "heldout": {"uri": "c", "licence": "MIT"},
        },
        "rollout": {"deployment": "d"},
    }
    for path, value in changes.items():
        *parents, last = path.split("__")
        place = document
        for name in parents:
            place = place.setdefault(name, {})
        place[last] = value
    return AdaptationJob.model_validate(document)


def row(name: str, **more: Any) -> Row:
    fields = {"target": "a", "expected": "a", **more}
    return Row(id=name, messages=(Message(role="user", content=f"question {name}"),), **fields)


def scored(values: list[float], prompt_tokens: int = 10, latency_ms: float = 5) -> list[Scored]:
    return [
        Scored(
            item=f"i{n}",
            cluster=f"i{n}",
            answer=Answer(
                text="a",
                latency_ms=latency_ms,
                prompt_tokens=prompt_tokens,
                completion_tokens=1,
                finish_reason="stop",
            ),
            score=Score(value=value, valid=True),
        )
        for n, value in enumerate(values)
    ]
