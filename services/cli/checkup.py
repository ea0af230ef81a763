"""A check-up of an installation: what is there, what is missing, how to mend it.

A finding is `ok`, a `warning` (something optional is missing) or `bad` (something will not work).
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from nats.js.errors import APIError, NotFoundError

from contracts.base import Service
from contracts.topology import CONSUMERS, STREAMS
from services.cli.numbers import size
from services.cli.session import Session, session
from services.cli.supervision.health import ask
from shared.errors import Misconfigured, SluiceError
from shared.messaging.embedded import binary
from shared.messaging.login import without_login
from shared.messaging.provision import check, stream_config
from shared.settings import Settings

LIBRARIES: dict[str, tuple[str, ...]] = {
    "": ("pydantic", "nats-py", "faststream", "fastapi", "sqlalchemy", "securesystemslib"),
    "models": ("torch", "transformers", "peft", "trl", "safetensors", "llguidance"),
    "curation": ("presidio-analyzer", "detect-secrets", "rensa"),
    "evaluation": ("lm-eval", "statsmodels", "scipy"),
}
"""Extra of the package → the libraries it brings; `` is the package itself."""
ENOUGH_DISK_BYTES = 5 << 30
STALE_DISK_BYTES = 1 << 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was looked at."""

    what: str
    state: Literal["ok", "warning", "bad"]
    says: str
    mend: str = ""


async def check_up(settings: Settings) -> AsyncIterator[Finding]:
    """Everything, in the order a person would look."""
    for finding in (*_python(), *_libraries(), _server_binary(), *_home(settings), _base(settings)):
        yield finding
    try:
        async with session(settings) as opened:
            yield Finding(what="broker", state="ok", says=_version(opened))
            async for finding in _broker(opened):
                yield finding
    except SluiceError as error:
        yield Finding(what="broker", state="bad", says=str(error), mend=error.mend)


def _python() -> Iterator[Finding]:
    version = platform.python_version()
    good = sys.version_info >= (3, 11)
    says = f"{version} on {platform.system()} {platform.machine()}, {os.cpu_count()} processors"
    mend = "" if good else "use Python 3.11 or newer"
    yield Finding(what="python", state="ok" if good else "bad", says=says, mend=mend)
    waits = os.environ.get("OMP_WAIT_POLICY", "")
    if waits.lower() == "active" and "GOMP_SPINCOUNT" not in os.environ:
        yield Finding(
            what="OMP_WAIT_POLICY",
            state="warning",
            says="idle threads of one service spin beside the others",
            mend="unset it, or set it to passive",
        )


def _libraries() -> Iterator[Finding]:
    for extra, names in LIBRARIES.items():
        versions, missing = [], []
        for name in names:
            try:
                versions.append(f"{name} {importlib.metadata.version(name)}")
            except importlib.metadata.PackageNotFoundError:
                missing.append(name)
        what = f"libraries [{extra}]" if extra else "libraries"
        if missing:
            target = f"sluiceway[{extra}]" if extra else "sluiceway"
            yield Finding(
                what=what,
                state="warning" if extra else "bad",
                says=f"missing: {', '.join(missing)}",
                mend=f"pip install '{target}', or run `make setup`",
            )
        else:
            yield Finding(what=what, state="ok", says=", ".join(versions))


def _server_binary() -> Finding:
    try:
        return Finding(what="nats-server", state="ok", says=binary())
    except Misconfigured as error:
        return Finding(what="nats-server", state="warning", says=str(error), mend=error.mend)


def _home(settings: Settings) -> Iterator[Finding]:
    home = settings.home.resolve()
    existing = next(folder for folder in (home, *home.parents) if folder.exists())
    if not os.access(existing, os.W_OK):
        yield Finding(
            what="home",
            state="bad",
            says=f"{home} cannot be written",
            mend="choose another with --home or SLUICE_HOME",
        )
        return
    yield Finding(what="home", state="ok", says=str(home))
    free = shutil.disk_usage(existing).free
    state: Literal["ok", "warning", "bad"] = (
        "bad" if free < STALE_DISK_BYTES else "warning" if free < ENOUGH_DISK_BYTES else "ok"
    )
    mend = "" if state == "ok" else "free some space: checkpoints and artifacts need it"
    yield Finding(what="disk", state=state, says=f"{size(free)} free", mend=mend)


def _base(settings: Settings) -> Finding:
    named = os.environ.get("SLUICE_BASE", "")
    models = settings.home / "models"
    places = [Path(named), models / named] if named else sorted(models.glob("*"))
    found = [str(place) for place in places if (place / "config.json").is_file()]
    if found:
        return Finding(what="base model", state="ok", says=", ".join(found))
    return Finding(
        what="base model",
        state="warning",
        says=f"no checkpoint {named or 'under ' + str(models)}",
        mend="run `make assets`, or name a checkpoint folder with SLUICE_BASE",
    )


def _version(opened: Session) -> str:
    found = opened.connection.connected_server_version
    number = f"{found.major}.{found.minor}.{found.patch}"
    return f"nats-server {number} at {without_login(opened.settings.nats_url)}"


async def _broker(opened: Session) -> AsyncIterator[Finding]:
    mend = "run `sluice provision`"
    for row in STREAMS:
        try:
            info = await opened.js.stream_info(row.name)
        except (NotFoundError, APIError) as error:
            yield Finding(what=f"stream {row.name}", state="bad", says=str(error), mend=mend)
            continue
        wanted = stream_config(row, info.config.num_replicas or 1)
        differs = [
            name
            for name in ("subjects", "retention", "storage", "max_age", "max_bytes")
            if getattr(info.config, name) != getattr(wanted, name)
        ]
        if differs:
            says = f"differs from the topology in {', '.join(differs)}"
            yield Finding(what=f"stream {row.name}", state="bad", says=says, mend=mend)
        else:
            yield Finding(
                what=f"stream {row.name}", state="ok", says=f"{info.state.messages} messages"
            )
    drifted = False
    for consumer in CONSUMERS:
        try:
            await check(opened.js, [consumer])
        except (SluiceError, APIError) as error:
            drifted = True
            what = f"consumer {consumer.durable}"
            yield Finding(what=what, state="bad", says=str(error), mend=mend)
    if not drifted:
        yield Finding(what="consumers", state="ok", says=f"{len(CONSUMERS)} as declared")
    for service in Service:
        answer = await ask(opened.connection, service)
        if answer is None:
            yield Finding(
                what=service,
                state="warning",
                says="does not answer",
                mend=f"start it: `sluice up`, or `python -m services.{service}`",
            )
        else:
            says = f"pid {answer.get('pid')}, up {answer.get('up_s')} s"
            yield Finding(what=service, state="ok", says=says)
