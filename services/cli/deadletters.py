"""Dead letters: messages no service could handle, with the reason, and their replay.

A dead *fact* of a run that has since closed is obsolete where it stands: its services would ignore
it. What a person means by replaying it is another attempt of the run, so that is what is published.
Everything else goes back to the subject it came from.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from contracts.commands import Retry
from contracts.subjects import RunRef
from services.cli.commanding import publish_command
from services.cli.reading import messages
from services.cli.session import Session
from shared.errors import PermanentError
from shared.messaging.runlog import RunLog
from shared.messaging.tail import Stored

STREAM = "DEAD"
_OURS = "sluice-dead-"


class NoSuchLetter(PermanentError):
    """No dead letter has this number."""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One buried message."""

    stored: Stored

    @property
    def number(self) -> int:
        return self.stored.seq

    @property
    def service(self) -> str:
        return self.stored.subject.rsplit(".", 1)[-1]

    def header(self, name: str) -> str:
        return self.stored.headers.get(_OURS + name, "")

    def as_json(self) -> dict[str, Any]:
        names = ("subject", "stream", "sequence", "consumer", "error", "reason", "mend")
        return {
            "number": self.number,
            "at": self.stored.at.isoformat(),
            "service": self.service,
            **{name: self.header(name) for name in names},
        }


async def letters(opened: Session) -> list[DeadLetter]:
    """Every dead letter, oldest first."""
    return [DeadLetter(found) async for found in messages(opened.js, STREAM, "sluice.v1.dead.>")]


async def letter(opened: Session, number: int) -> DeadLetter:
    """Raises NoSuchLetter."""
    async for found in messages(opened.js, STREAM, "sluice.v1.dead.>", start=number):
        if found.seq == number:
            return DeadLetter(found)
        break
    raise NoSuchLetter(f"there is no dead letter {number}", mend="see `sluice dead list`")


async def replay(opened: Session, dead: DeadLetter, *, keep: bool = False) -> str:
    """Send it again; says what was done. The letter is removed unless `keep`.

    Raises:
        PermanentError: the letter does not say where it came from.
    """
    subject, stream = dead.header("subject"), dead.header("stream")
    if not subject or not stream:
        raise PermanentError(
            f"dead letter {dead.number} does not say where it came from",
            mend=f"publish it by hand: `sluice dead show {dead.number}`",
        )
    if stream == "RUN" and (ref := await _closed_run(opened, subject)):
        await publish_command(opened, ref, Retry())
        done = f"run {ref} is closed: asked for another attempt"
    else:
        headers = {k: v for k, v in dead.stored.headers.items() if not k.startswith(_OURS)}
        headers["sluice-replay-of"] = str(dead.number)
        await opened.js.publish(
            subject, dead.stored.data, stream=stream, timeout=5.0, headers=headers
        )
        done = f"published again on {subject}"
    if not keep:
        await opened.js.delete_msg(STREAM, dead.number)
    return done


async def _closed_run(opened: Session, subject: str) -> RunRef | None:
    try:
        ref = RunRef.of(subject)
        run = await RunLog(opened.js).load(ref)
    except ValueError:  # no run's subject
        return None
    return ref if run.closed else None
