"""The topology and the catalog agree: nobody waits for what nobody says."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import get_args

import pytest

from contracts.base import Event, Service
from contracts.catalog import EVENTS
from contracts.evaluation import GateJudged
from contracts.fault import StepFailed
from contracts.job import GateId
from contracts.subjects import PREFIX
from contracts.topology import CONSUMERS, STREAMS, Consumer, stream

VERBS = {"submit", "cancel", "retry", "approve", "withdraw", "reconsider"}

TERMINAL = {
    "diagnosis.rejected",
    "diagnosis.cancelled",
    "diagnosis.concluded",
    "diagnosis.train_declined",
    "diagnosis.halted",
    "diagnosis.reopened",
    "curation.halted",
    "training.started",
    "training.stopped",
    "registry.refused",
    "registry.promoted",
    "registry.withdrawn",
    "rollout.rolled_back",
    "rollout.held",
}
"""Facts that end a run, hold it, or only inform: no service acts on them."""


def _tokens() -> dict[str, type[Event]]:
    """`<service>.<fact>` as subjects spell it → the event type."""
    found: dict[str, type[Event]] = {}
    for event in EVENTS.values():
        if event is GateJudged:
            found |= {f"evaluation.{g.lower()}_judged": event for g in get_args(GateId)}
        elif event is not StepFailed:
            found[f"{event.service}.{event.fact}"] = event
    return found


def _consumed() -> set[str]:
    return {
        f.removeprefix(f"{PREFIX}.run.*.*.")
        for row in CONSUMERS
        if row.stream == "RUN"
        for f in row.filters
    }


@pytest.mark.parametrize("row", CONSUMERS, ids=lambda row: row.durable)
def test_every_consumer_waits_for_something_that_can_be_said(row: Consumer) -> None:
    for subject in row.filters:
        kind = subject.removeprefix(f"{PREFIX}.").split(".", 1)[0]
        if kind == "run":
            assert subject.removeprefix(f"{PREFIX}.run.*.*.") in _tokens()
        elif kind == "job":
            assert subject.removeprefix(f"{PREFIX}.job.*.*.") in VERBS
        else:
            assert kind in {"telemetry", "progress", "alert"}
        covers = [s.replace(">", "*") for s in stream(row.stream).subjects]
        assert any(fnmatchcase(subject, pattern) for pattern in covers)


@pytest.mark.parametrize("token", sorted(_tokens()))
def test_every_fact_has_a_producer_and_is_acted_on_or_known_to_be_terminal(token: str) -> None:
    assert _tokens()[token].service in Service
    if token not in TERMINAL:
        assert token in _consumed(), f"nobody acts on {token}"


def test_the_list_of_terminal_facts_names_only_facts() -> None:
    assert set(_tokens()) >= TERMINAL


def test_durable_names_are_unique_and_streams_do_not_overlap() -> None:
    durables = [row.durable for row in CONSUMERS]
    assert len(durables) == len(set(durables))
    subjects = [s for row in STREAMS for s in row.subjects]
    assert len(subjects) == len(set(subjects))


def test_consumers_never_stop_delivering_by_themselves() -> None:
    """The middleware buries a message; a server-side `max_deliver` would drop it in silence."""
    assert {row.max_deliver for row in CONSUMERS} == {-1}
