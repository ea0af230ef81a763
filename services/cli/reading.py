"""Reading streams: messages in order, runs, and what lies in them.

Messages are asked for one by one (`next by subject`), which needs no consumer, no permission to
create one, and starts again anywhere after a broken connection.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime

from nats.js import JetStreamContext
from nats.js.errors import NotFoundError

from contracts import subjects
from contracts.envelope import recorded
from contracts.registry import CandidateRegistered
from contracts.run import Run
from contracts.subjects import PREFIX, RunRef
from services.cli.session import Session, run_ref
from shared.errors import InvalidInput, PermanentError
from shared.messaging.runlog import RunLog
from shared.messaging.tail import Stored


class NoSuchRun(PermanentError):
    """No command and no fact names this run."""


async def messages(
    js: JetStreamContext, stream: str, subject: str, *, start: int = 1
) -> AsyncIterator[Stored]:
    """Every message on `subject` from sequence `start` on, up to now."""
    seq = start
    while True:
        try:
            found = await js.get_msg(stream, seq=seq, subject=subject, direct=True, next=True)
        except NotFoundError as error:
            if error.err_code == 10059:
                raise
            return
        yield Stored(
            subject=str(found.subject),
            seq=int(found.seq or 0),
            headers=dict(found.headers or {}),
            data=found.data or b"",
            at=found.time or datetime.now(UTC),
        )
        seq = int(found.seq or 0) + 1


async def subjects_in(js: JetStreamContext, stream: str, pattern: str) -> list[str]:
    """The distinct subjects a stream holds messages on."""
    info = await js.stream_info(stream, subjects_filter=pattern)
    return sorted(info.state.subjects or {})


async def run_refs(js: JetStreamContext, tenant: str) -> list[RunRef]:
    """Runs that were submitted or have a log. `tenant` may be `*`."""
    submitted = await subjects_in(js, "JOBS", subjects.command(tenant, "*", "submit"))
    logged = await subjects_in(js, "RUN", f"{PREFIX}.run.{tenant}.*.>")
    refs = {RunRef.of(subject) for subject in (*submitted, *logged)}
    return sorted(refs, key=str)


async def submitted_at(js: JetStreamContext, ref: RunRef) -> datetime | None:
    """When the job was published, or None if it never was."""
    pattern = subjects.command(ref.tenant, ref.run, "submit")
    async for message in messages(js, "JOBS", pattern):
        return message.at
    return None


async def load_run_or_adapter(opened: Session, name: str, tenant: str) -> Run:
    """The run of that name, or else the run that registered the adapter of that id.

    Raises:
        NoSuchRun: there is neither.
    """
    try:
        ref = run_ref(name, tenant)
        return await load_run(opened, ref)
    except (NoSuchRun, InvalidInput):
        pattern = f"{PREFIX}.run.{tenant}.*.registry.registered"
        async for message in messages(opened.js, "RUN", pattern):
            found = recorded(message.subject, message.headers, message.data, message.seq)
            if isinstance(found.event, CandidateRegistered) and found.event.adapter_id == name:
                return await RunLog(opened.js).load(found.ref)
        raise


async def load_run(opened: Session, ref: RunRef) -> Run:
    """The run as of now; version 0 if it was submitted and no service has taken it yet.

    Raises:
        NoSuchRun: it was never submitted.
    """
    run = await RunLog(opened.js).load(ref)
    if run.version == 0 and await submitted_at(opened.js, ref) is None:
        raise NoSuchRun(f"there is no run {ref}", mend="list them with `sluice runs`")
    return run
