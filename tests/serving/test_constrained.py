"""An adapter whose job asks for constraints answers under them; a request's own contract wins."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from contracts.envelope import Recorded
from contracts.registry import AdapterPromoted, CandidateRegistered
from contracts.subjects import RunRef
from services.serving.directory import Constraint, Directory
from services.serving.engine.port import GenerationRequest
from services.serving.execution import Ask, constrained

CALL = {"type": "object", "title": "a call"}
ANSWER = {"type": "object", "title": "an answer"}
PLAIN = GenerationRequest(prompt=(1,), max_tokens=4)


@pytest.mark.req("G4")
@pytest.mark.parametrize(
    ("constraint", "asked", "calls", "schema"),
    [
        pytest.param(None, PLAIN, CALL, None, id="no constraint"),
        pytest.param(Constraint(), PLAIN, CALL, CALL, id="a call of the request's tools"),
        pytest.param(Constraint(), PLAIN, None, None, id="no tools to call"),
        pytest.param(Constraint(ANSWER), PLAIN, CALL, ANSWER, id="the job's output schema"),
        pytest.param(
            Constraint(ANSWER), replace(PLAIN, json_schema=CALL), None, CALL, id="the request's own"
        ),
        pytest.param(Constraint(), replace(PLAIN, regex="a+"), CALL, None, id="its own pattern"),
    ],
)
def test_an_adapters_constraint_holds_where_the_request_sets_none(
    constraint: Constraint | None,
    asked: GenerationRequest,
    calls: dict[str, Any] | None,
    schema: dict[str, Any] | None,
) -> None:
    ask = Ask(
        id="x",
        tenant="acme",
        generation=asked,
        call_schema=None if calls is None else lambda: calls,
    )
    assert constrained(ask, constraint).json_schema == schema


@pytest.mark.req("G4")
@pytest.mark.parametrize("on", [True, False])
def test_the_registry_tells_serving_of_the_constraint(on: bool) -> None:
    registered = CandidateRegistered(
        adapter_id="Base-calls-v1",
        adapter="sha256:" + "a" * 64,
        card="sha256:" + "c" * 64,
        deployment="calls",
        constrained=on,
        output_schema=ANSWER if on else None,
    )
    promoted = AdapterPromoted(
        adapter_id="Base-calls-v1", deployment="calls", bundle="sha256:" + "b" * 64
    )
    directory = Directory(
        records=[
            Recorded(
                id=str(seq),
                ref=RunRef("acme", "r1"),
                event=event,
                cause="",
                at=datetime(2026, 5, 4, tzinfo=UTC),
                seq=seq,
            )
            for seq, event in enumerate((registered, promoted), 1)
        ]
    )
    route = directory.resolve("calls", tenant="acme", evaluate=False, conversation="c")
    assert route.target.constraint == (Constraint(ANSWER) if on else None)
