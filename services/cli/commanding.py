"""Publishing commands: submit, and what steers a run.

A submit is published with the expectation that its subject is empty, so the broker itself refuses a
second job under the same run id: there is no moment in which two could win.
"""

from __future__ import annotations

import re
import secrets
import uuid
from datetime import UTC, datetime

from nats.js.errors import APIError

from contracts import subjects
from contracts.base import Frozen
from contracts.job import AdaptationJob
from contracts.subjects import RunRef
from services.cli.session import Session
from shared.errors import PermanentError

_LONGEST_RUN_ID = 64


class RunExists(PermanentError):
    """A job was already submitted under this run id."""


def new_run_id(job_name: str) -> str:
    """`<job name>-<8 hex>`, as a slug."""
    suffix = secrets.token_hex(4)
    return f"{job_name[: _LONGEST_RUN_ID - 9].rstrip('-_')}-{suffix}"


def new_traceparent() -> str:
    """A W3C trace context that begins the run's trace, sampled."""
    return f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-01"


def command_headers(verb: str, ref: RunRef, traceparent: str) -> dict[str, str]:
    """The headers of a command: CloudEvents in binary mode, and the trace."""
    return {
        "content-type": "application/json",
        "ce-specversion": "1.0",
        "ce-id": uuid.uuid4().hex,
        "ce-type": f"sluice.v1.job.{verb}",
        "ce-source": "/sluice/cli",
        "ce-subject": str(ref),
        "ce-time": datetime.now(UTC).isoformat(),
        "traceparent": traceparent,
    }


async def publish_submit(opened: Session, ref: RunRef, job: AdaptationJob) -> str:
    """Publish the job; returns its traceparent.

    Raises:
        RunExists: the run id is taken.
    """
    traceparent = new_traceparent()
    headers = command_headers("submit", ref, traceparent)
    headers["Nats-Expected-Last-Subject-Sequence"] = "0"
    try:
        await opened.js.publish(
            subjects.command(ref.tenant, ref.run, "submit"),
            job.model_dump_json(by_alias=True).encode(),
            stream="JOBS",
            timeout=5.0,
            headers=headers,
        )
    except APIError as error:
        if error.err_code != 10071:
            raise
        raise RunExists(
            f"a job was already submitted as {ref}",
            mend=f"choose another --run; see it with `sluice show {ref}`, "
            f"try it again with `sluice retry {ref}`",
        ) from error
    return traceparent


async def publish_command(opened: Session, ref: RunRef, command: Frozen) -> None:
    """Publish any other command to a run."""
    verb = re.sub(r"(?<!^)(?=[A-Z])", "_", type(command).__name__).lower()
    await opened.js.publish(
        subjects.command(ref.tenant, ref.run, verb),
        command.model_dump_json().encode(),
        stream="JOBS",
        timeout=5.0,
        headers=command_headers(verb, ref, new_traceparent()),
    )
