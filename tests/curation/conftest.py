from collections.abc import Callable
from typing import Any

import pytest

from contracts.job import AdaptationJob
from services.curation.adapters.pii import PiiDetector


@pytest.fixture
def job() -> Callable[..., AdaptationJob]:
    def make(**changes: Any) -> AdaptationJob:
        source = {"uri": "train.jsonl", "licence": "Apache-2.0", "provenance": {"source": "t"}}
        document: dict[str, Any] = {
            "schema": "sluice.job/v1",
            "name": "j",
            "tenant": "acme",
            "task_namespace": "calls",
            "base": {"model": "m"},
            "behaviour": {"description": "d", "scorer": "tool_call", "target": 0.9},
            "data": [source],
            "evaluation": {
                "dev": {"uri": "dev.jsonl", "licence": "Apache-2.0"},
                "heldout": {"uri": "heldout.jsonl", "licence": "Apache-2.0"},
            },
            "rollout": {"deployment": "d"},
        }
        return AdaptationJob.model_validate(document | changes)

    return make


@pytest.fixture(scope="session")
def detector() -> PiiDetector:
    return PiiDetector()
