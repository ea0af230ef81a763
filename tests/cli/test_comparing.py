"""Two runs side by side: only what differs is told, unless all is asked for."""

from __future__ import annotations

import pytest

from contracts.run import fold
from services.cli.comparing import Line, compared
from shared.testing.runs import REF, gated_events, healthy_job, recorded_log


def run_with(**changes: object):
    job = healthy_job().model_copy(update=changes)
    events = [
        event.model_copy(update={"job": job}) if event.fact == "accepted" else event
        for event in gated_events()
    ]
    return fold(REF, recorded_log(REF, events))


@pytest.mark.req("P8")
def test_what_was_asked_differently_is_named_by_its_path() -> None:
    behaviour = healthy_job().behaviour
    other = run_with(behaviour=behaviour.model_copy(update={"target": 0.123}))
    lines = [line for line in compared(run_with(), other) if line.differs]
    assert lines == [Line("job", "behaviour.target", str(behaviour.target), "0.123")]


def test_every_gates_numbers_stand_beside_each_other() -> None:
    lines = {(line.section, line.name): line for line in compared(run_with(), run_with())}
    gates = {section for section, name in lines if name == "verdict"}
    assert gates == set(run_with().gates)
    assert all(line.left == line.right is not None for line in lines.values())


def test_what_only_one_run_has_stands_alone() -> None:
    whole = run_with()
    begun = fold(REF, whole.log[:1])
    lines = {(line.section, line.name): line for line in compared(begun, whole)}
    assert lines["training", "steps"].left is None
    assert lines["training", "steps"].right is not None
