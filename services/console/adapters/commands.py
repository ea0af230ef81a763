"""Commands of console users, published to the JOBS stream like anyone else's."""

from __future__ import annotations

import uuid
from collections.abc import Callable

import nats.errors
from nats.js import JetStreamContext
from nats.js.errors import APIError

from contracts import subjects
from contracts.base import Frozen
from contracts.commands import Approve, Cancel, Hold, Retry, Rollback
from contracts.subjects import RunRef
from services.console.story import Verb
from shared.errors import TransientError

_BODIES: dict[Verb, Frozen] = {
    "cancel": Cancel(reason="cancelled in the console"),
    "retry": Retry(),
    "approve": Approve(),
    "hold": Hold(reason="in the console"),
    "rollback": Rollback(reason="in the console"),
}


class BusCommands:
    """Publishes commands over JetStream."""

    def __init__(self, jetstream: Callable[[], JetStreamContext]) -> None:
        self._jetstream = jetstream

    async def __call__(self, ref: RunRef, verb: Verb) -> None:
        """Raises TransientError if the broker did not take it."""
        jetstream = self._jetstream()
        identity = uuid.uuid4().hex
        try:
            await jetstream.publish(
                subjects.command(ref.tenant, ref.run, verb),
                _BODIES[verb].model_dump_json().encode(),
                stream="JOBS",
                timeout=5.0,
                headers={"Nats-Msg-Id": identity, "ce-id": identity},
            )
        except (nats.errors.Error, APIError, TimeoutError) as error:
            raise TransientError(f"the broker did not take the command: {error!r}") from error
