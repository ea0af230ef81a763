"""Trap 8 of `test_traps`: what a handler lacks is said while wiring, not by a dead letter."""

from __future__ import annotations

import pytest

from contracts.base import Service
from shared.errors import (
    Misconfigured,
)
from shared.messaging.broker import Bus
from shared.messaging.steps import Step, Steps


async def not_taking_only_a_step(step: Step, database: object):
    return None


def not_async(step: Step):
    return None


@pytest.mark.parametrize("handler", [not_taking_only_a_step, not_async])
def test_a_handler_that_needs_what_it_was_not_given_fails_while_wiring(settings, handler) -> None:
    with pytest.raises(Misconfigured, match="synthesis-synthesize"):
        Steps(Bus(Service.SYNTHESIS, settings)).on("synthesize")(handler)


def test_a_step_without_a_consumer_in_the_topology_fails_while_wiring(settings) -> None:
    with pytest.raises(KeyError, match="synthesis-dream"):
        Steps(Bus(Service.SYNTHESIS, settings)).on("dream")
