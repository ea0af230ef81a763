"""Messages on which processes die: counted outside the process, and buried when it goes on.

A handler that raises says what became of its message. A process that is killed says nothing (a
crash in native code, the kernel's out-of-memory killer, kill -9): its message comes to the next
process, which may die as well. Nothing inside a process can count that, so each delivery after the
first leaves a mark in a small file under `<home>/suspects` before its handler begins, and another
when the handler has ended, however it did. A beginning without an end is a death.

A death also takes what else was in hand. So that the innocent are not counted with the guilty, a
process handles one message at a time of those that saw a death.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from nats.aio.msg import Msg

from shared.errors import PermanentError, TransientError
from shared.messaging.delivery import will_retry

log = logging.getLogger("sluice.suspects")

MOST_DEATHS = 5
"""Processes that may die on one message before it is buried."""
ALONE_S = 30.0
"""A suspect that has lived so long no longer keeps others waiting."""
FORGIVEN_S = 600.0
"""A death after so long does not count: long work goes on from its checkpoint."""
_BEGUN, _ENDED = b"+", b"-"


class ProcessDied(PermanentError):
    """Every process that took this message died over it."""


class SuspectInHand(TransientError):
    """This message saw a death, and so did one that is being handled: one at a time."""


class Suspects:
    """The deaths of one service's processes, by message. `folder` may be shared by replicas."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._in_hand: Path | None = None

    @asynccontextmanager
    async def watching(self, message: Msg) -> AsyncIterator[None]:
        """Around a handler.

        Raises:
            ProcessDied: too many processes have died over this message.
            SuspectInHand: another suspect is being handled.
        """
        deliveries = message.metadata.num_delivered or 1
        if deliveries == 1:
            yield
            return
        file = self._folder / f"{message.metadata.consumer}.{message.metadata.sequence.stream}"
        deaths = _deaths(file)
        if deaths + 1 >= MOST_DEATHS:  # the first delivery left no mark
            _forget(file)
            raise ProcessDied(
                f"{deaths + 1} processes died while they handled this message",
                mend="the end of the service's log shows how; often it is memory. "
                "Mend that, then `sluice dead replay` it",
            )
        if deaths and self._in_hand is not None:
            raise SuspectInHand(f"waits for {self._in_hand.name}, which saw a death as well")
        loop = asyncio.get_running_loop()
        if deaths:
            self._in_hand = file
        _mark(file, _BEGUN)
        timers = [
            loop.call_later(ALONE_S, self._let_others, file),
            loop.call_later(FORGIVEN_S, _forget, file),
        ]
        try:
            yield
        except Exception as error:
            if will_retry(error, deliveries):
                _mark(file, _ENDED)
            else:
                _forget(file)
            raise
        except BaseException:
            _mark(file, _ENDED)
            raise
        else:
            _forget(file)
        finally:
            for timer in timers:
                timer.cancel()
            self._let_others(file)

    def _let_others(self, file: Path) -> None:
        if self._in_hand == file:
            self._in_hand = None


def _deaths(file: Path) -> int:
    try:
        marks = file.read_bytes()
    except OSError:
        return 0
    return max(0, marks.count(_BEGUN) - marks.count(_ENDED))


def _mark(file: Path, mark: bytes) -> None:
    """Best effort: without the mark a death is not counted, and the message comes again."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("ab") as marks:
            marks.write(mark)
    except OSError as error:
        log.warning("%s: not marked: %s", file.name, error)


def _forget(file: Path) -> None:
    with suppress(OSError):
        file.unlink(missing_ok=True)
