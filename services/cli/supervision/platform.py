"""The platform on one machine: the embedded broker and every service, as one thing to start.

The broker is a supervised program like the others: killed, it comes back on the same store.
"""

from __future__ import annotations

import asyncio
import importlib.util
import os
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nats.aio.client import Client

from contracts.base import Service
from services.cli.session import session
from services.cli.supervision.base import base_folder
from services.cli.supervision.broker_watch import watch_broker
from services.cli.supervision.health import wait_until_healthy
from services.cli.supervision.home import announce, locked_home
from services.cli.supervision.supervisor import Program, Supervisor, Watched
from services.cli.supervision.tenant_watch import watch_tenants
from shared.errors import Misconfigured
from shared.messaging.accounts import OPERATOR, Logins, program_user, tenant_user, write
from shared.messaging.broker import wait_for_broker
from shared.messaging.copies import provision_tenant
from shared.messaging.embedded import EmbeddedNats
from shared.messaging.provision import provision
from shared.settings import Settings
from shared.waiting import ASLEEP, BRIEFLY_AWAKE

BROKER = "nats"
HOST = "127.0.0.1"
BROKER_GRACE_S = 10.0
BROKER_PAUSE_S = 1.0
"""The longest before the broker is started again, however often it dies: all wait for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to run, and where."""

    home: Path
    port: int = 4222
    serving_port: int = 8080
    console_port: int = 8081
    base: str | None = None
    services: tuple[str, ...] = tuple(Service)
    extra: tuple[tuple[str, str], ...] = ()
    """(name, Python module) of programs of the user's own."""
    wait_s: float = 300.0
    tenants: tuple[str, ...] = ()
    """Who gets an account on the broker from the start; `sluice credentials` adds others."""

    @property
    def nats_url(self) -> str:
        return f"nats://{HOST}:{self.port}"

    @property
    def urls(self) -> dict[str, str]:
        """Service → where a person or client finds it."""
        return {
            BROKER: self.nats_url,
            Service.SERVING: f"http://{HOST}:{self.serving_port}/v1",
            Service.CONSOLE: f"http://{HOST}:{self.console_port}",
        }

    def environment(self) -> dict[str, str]:
        """What every service is told. Raises Misconfigured if serving has no base to load."""
        told = {
            "SLUICE_HOME": str(self.home),
            "SLUICE_NATS_URL": self.nats_url,
            "SLUICE_SERVING_URL": self.urls[Service.SERVING],
            "SLUICE_SERVING_PORT": str(self.serving_port),
            "SLUICE_CONSOLE_PORT": str(self.console_port),
            "PYTHONUNBUFFERED": "1",
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        } | ASLEEP
        if self.base:
            told["SLUICE_BASE"] = self.base
        if Service.SERVING in self.services:
            told["SLUICE_BASE"] = str(base_folder(self.home, self.base))
        return told

    def programs(self) -> tuple[Program, ...]:
        """One program per service. Raises Misconfigured if one cannot run."""
        modules = [(name, f"services.{name}") for name in self.services]
        missing = [name for name, module in modules if not _runnable(module)]
        if missing:
            raise Misconfigured(
                f"not installed: {', '.join(missing)}", mend="leave them out with --without"
            )
        told = self.environment()
        own = {name: self._login(name) for name in self.services}
        own |= {name: self._login(program_user(name), in_url=True) for name, _ in self.extra}
        if Service.SERVING in own:
            chosen = {k: v for k, v in os.environ.items() if k == "GOMP_SPINCOUNT"}
            own[Service.SERVING] |= BRIEFLY_AWAKE | chosen
        return tuple(
            Program(name=name, argv=(sys.executable, "-m", module), env=told | own[name])
            for name, module in (*modules, *self.extra)
        )

    def _login(self, user: str, *, in_url: bool = False) -> dict[str, str]:
        """Each program's own login; a user's program may know no more of us than a URL."""
        logins = Logins(self.home)
        if in_url:
            return {"SLUICE_NATS_URL": f"nats://{logins.login(user)}@{HOST}:{self.port}"}
        return {"SLUICE_NATS_CREDENTIALS": str(logins.path(user))}


def _runnable(module: str) -> bool:
    try:
        return importlib.util.find_spec(f"{module}.__main__") is not None
    except ModuleNotFoundError:
        return False


@dataclass(slots=True)
class Platform:
    """A running platform."""

    plan: Plan
    supervisor: Supervisor
    health: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Service → what it said of itself when it came up."""


@asynccontextmanager
async def running_platform(plan: Plan, tell: Callable[[str], None]) -> AsyncIterator[Platform]:
    """Everything up and healthy inside the block; everything ended after it.

    Raises:
        HomeInUse: another `sluice up` has this home.
        Misconfigured: a program refused to start, or is not healthy within `plan.wait_s`.
    """
    programs = plan.programs()

    def on_restart(watched: Watched, pause: float) -> None:
        last = " ".join(watched.last_lines(1))
        tell(f"{watched.program.name} ended ({watched.exit_code}): {last}; again in {pause:g} s")

    with locked_home(plan.home):
        supervisor = Supervisor(plan.home / "logs", on_restart=on_restart)
        platform = Platform(plan, supervisor)
        watches: list[asyncio.Task[None]] = []
        try:
            server = await _start_broker(plan, supervisor)
            watches = [
                asyncio.create_task(watch_broker(server, lambda: supervisor.restart(BROKER), tell))
            ]
            logins = Logins(plan.home)
            settings = Settings(
                home=plan.home, nats_url=plan.nats_url, nats_credentials=logins.path(OPERATOR)
            )
            async with session(settings) as opened:
                await provision(opened.js)
                known = logins.tenants()
                for tenant in known:
                    await provision_tenant(plan.nats_url, logins, tenant)
                watches.append(
                    asyncio.create_task(
                        watch_tenants(
                            logins,
                            server,
                            lambda: supervisor.restart(BROKER),
                            known,
                            tell,
                        )
                    )
                )
                announce(plan.home, _addresses(plan))
                await _start_programs(platform, programs, opened.connection, tell)
            yield platform
        finally:
            for watch in watches:
                watch.cancel()
            await asyncio.shield(_stop(supervisor))


def _addresses(plan: Plan) -> dict[str, object]:
    return {
        "pid": os.getpid(),
        "nats_url": plan.nats_url,
        "serving_url": plan.urls[Service.SERVING],
        "console_url": plan.urls[Service.CONSOLE],
    }


async def _start_broker(plan: Plan, supervisor: Supervisor) -> EmbeddedNats:
    _refuse_taken(plan.port, "--port")
    logins = Logins(plan.home)
    for tenant in plan.tenants:
        logins.path(tenant_user(tenant))

    def write_accounts(target: Path) -> None:
        programs = [name for name, _ in plan.extra]
        write(logins, target, tenants=logins.tenants(), programs=programs)

    server = EmbeddedNats(
        plan.home / "nats", port=plan.port, host=HOST, write_accounts=write_accounts
    )
    watched = supervisor.start(
        Program(name=BROKER, argv=tuple(server.prepare()), longest_pause_s=BROKER_PAUSE_S)
    )
    ended = asyncio.create_task(watched.first_end.wait())
    up = asyncio.create_task(wait_for_broker(plan.nats_url, timeout_s=30.0))
    try:
        await asyncio.wait({ended, up}, return_when=asyncio.FIRST_COMPLETED)
        if ended.done():
            raise _refused(watched)
        await up
    finally:
        ended.cancel()
        up.cancel()
    return server


def _refuse_taken(port: int, option: str) -> None:
    import socket

    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise Misconfigured(
                f"port {port} is taken: {error.strerror}",
                mend=f"stop what listens there, or choose another with {option}",
            ) from error


async def _start_programs(
    platform: Platform,
    programs: tuple[Program, ...],
    connection: Client,
    tell: Callable[[str], None],
) -> None:
    plan = platform.plan
    for name, port in ((Service.SERVING, plan.serving_port), (Service.CONSOLE, plan.console_port)):
        if name in plan.services:
            _refuse_taken(port, f"--{name}-port")
    for program in programs:
        platform.supervisor.start(program)
    coming = [
        asyncio.create_task(_come_up(platform, program.name, connection, tell))
        for program in programs
    ]
    try:
        async with asyncio.timeout(plan.wait_s):
            await asyncio.gather(*coming)
    except TimeoutError as error:
        late = [program.name for program in programs if program.name not in platform.health]
        logs = ", ".join(str(platform.supervisor.watched[name].log) for name in late)
        raise Misconfigured(
            f"not healthy within {plan.wait_s:g} s: {', '.join(late)}", mend=f"see {logs}"
        ) from error
    finally:
        for task in coming:
            task.cancel()


async def _come_up(
    platform: Platform, name: str, connection: Client, tell: Callable[[str], None]
) -> None:
    watched = platform.supervisor.watched[name]
    url = platform.plan.urls.get(name)
    probe = f"{url.removesuffix('/v1')}/healthz" if url and name == Service.SERVING else None
    healthy = asyncio.create_task(wait_until_healthy(connection, name, probe))
    ended = asyncio.create_task(watched.refused.wait())
    try:
        await asyncio.wait({healthy, ended}, return_when=asyncio.FIRST_COMPLETED)
        if ended.done():
            raise _refused(watched)
        platform.health[name] = healthy.result()
        tell(f"{name} is up")
    finally:
        healthy.cancel()
        ended.cancel()


def _refused(watched: Watched) -> Misconfigured:
    lines = "\n  ".join(watched.last_lines())
    return Misconfigured(
        f"{watched.program.name} refused to start (exit {watched.exit_code}):\n  {lines}",
        mend=f"see {watched.log}",
    )


async def _stop(supervisor: Supervisor) -> None:
    await supervisor.stop([name for name in supervisor.watched if name != BROKER])
    await supervisor.stop([BROKER], grace_s=BROKER_GRACE_S)
