"""What happens to a message whose handler raised: try again later, or bury it with the reason.

FastStream's own policies lose the message (REJECT_ON_ERROR) or retry in a hot loop (NACK_ON_ERROR).
This middleware looks at the error: a transient one is redelivered after a growing delay; a
permanent one, or an unexpected one on its last try, goes to `dead.<service>` and is then
acknowledged. If DEAD cannot take it, the message stays where it is. `after_processed` is the hook
because errors of parsing and decoding never reach `consume_scope`.
"""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable
from types import TracebackType
from typing import Any

import nats.errors
from faststream import BaseMiddleware
from faststream.exceptions import AckMessage, HandlerException, NackMessage
from nats.aio.msg import Msg
from nats.js import JetStreamContext
from nats.js.errors import APIError

from contracts import subjects
from contracts.base import Service
from shared.errors import SluiceError, TransientError

log = logging.getLogger("sluice.delivery")

UNEXPECTED_TRIES = 3
MAX_DELAY_S = 30.0
DEAD_STREAM = "DEAD"
UNFORESEEN = "an error nobody foresaw: mend its cause, then `sluice dead replay` it"


class ServiceStops(TransientError):
    """A long step gives its message back because the process ends."""


AFTER_STOP_S = 2.5
"""Longer than a fetch waits: the message must not be handed to the process that is leaving."""


def backoff_s(deliveries: int) -> float:
    """Seconds to wait before delivery `deliveries + 1`: 0.5, 1, 2 … 30."""
    return float(min(MAX_DELAY_S, 0.5 * 2 ** max(0, min(deliveries - 1, 10))))


def will_retry(error: Exception, deliveries: int) -> bool:
    """Whether a message that failed with `error` on its `deliveries`-th delivery is tried again."""
    if isinstance(error, SluiceError):
        return error.retryable
    return deliveries < UNEXPECTED_TRIES


async def bury(
    jetstream: JetStreamContext, service: Service, message: Msg, error: BaseException
) -> None:
    """Publish `message` to `dead.<service>` with everything a replay needs.

    Raises:
        nats.errors.Error, TimeoutError: DEAD did not take it.
    """
    headers = {
        **{k: v for k, v in (message.headers or {}).items() if not k.startswith("Nats-")},
        "sluice-dead-subject": message.subject,
        "sluice-dead-stream": message.metadata.stream,
        "sluice-dead-sequence": str(message.metadata.sequence.stream),
        "sluice-dead-consumer": str(message.metadata.consumer),
        "sluice-dead-error": type(error).__name__,
        "sluice-dead-reason": _one_line(str(error)),
        "sluice-dead-mend": _one_line(getattr(error, "mend", "") or UNFORESEEN),
        "Nats-Msg-Id": f"{message.metadata.consumer}:{message.metadata.sequence.stream}",
    }
    await jetstream.publish(
        subjects.dead(service), message.data, stream=DEAD_STREAM, timeout=5.0, headers=headers
    )


def _one_line(text: str) -> str:
    return " ".join(text.split())[:2000]


class RetryOrBury(BaseMiddleware[Any, Msg]):
    """The middleware; one instance per message. Built by `retry_or_bury`."""

    service: Service
    jetstream: JetStreamContext

    async def after_processed(
        self,
        exc_type: type[BaseException] | None = None,
        exc_val: BaseException | None = None,
        exc_tb: TracebackType | None = None,
    ) -> bool | None:
        """Turn the handler's error into an acknowledgement decision."""
        if exc_val is None or isinstance(exc_val, HandlerException):
            return False
        if not isinstance(exc_val, Exception) or not self.msg.reply.startswith("$JS.ACK."):
            return False
        deliveries = self.msg.metadata.num_delivered or 1
        if will_retry(exc_val, deliveries):
            leaving = isinstance(exc_val, ServiceStops)
            delay = AFTER_STOP_S if leaving else backoff_s(deliveries)
            log.warning("%s: %s; again in %.1f s", self.msg.subject, exc_val, delay)
            raise NackMessage(delay=delay) from exc_val
        try:
            await bury(self.jetstream, self.service, self.msg, exc_val)
        except (nats.errors.Error, APIError, TimeoutError) as error:
            log.error("%s: DEAD does not answer (%r); kept", self.msg.subject, error)
            raise NackMessage(delay=backoff_s(deliveries)) from exc_val
        expected = isinstance(exc_val, SluiceError)
        reason = str(exc_val) if expected else "".join(traceback.format_exception(exc_val))
        log.error("%s: buried: %s", self.msg.subject, reason)
        raise AckMessage from exc_val


def retry_or_bury(service: Service, jetstream: Callable[[], JetStreamContext]) -> Any:
    """The middleware of one service. `jetstream` is called when needed: it exists after connect."""

    class Bound(RetryOrBury):
        pass

    Bound.service = service
    Bound.jetstream = property(lambda _self: jetstream())  # type: ignore[assignment]
    return Bound
