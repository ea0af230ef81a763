"""Accounts of the broker: one for the streams, one per service, one per tenant.

Generated from `contracts.grants`, so that nothing is allowed by hand. A service's account imports
the subjects it was granted and has no others. A tenant's account has streams of its own, filled by
the broker with the tenant's part of RUN, PROGRESS and ALERTS (`shared.messaging.copies`), so that
any NATS client works in it as in a server of its own, and no request of it reaches anyone else's
messages; only its commands go out, by one import.

The copies ask for their messages on a subject with a secret token, the *route*. Whoever knew it
could have the broker answer on a subject of its choice, so a tenant may neither read a stream's
configuration nor listen to advisories.
"""

from __future__ import annotations

import json
import os
import secrets
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from contracts.base import Service
from contracts.grants import API, Grants, copied_to, of_program, of_service, of_tenant
from shared.keys import load_or_create
from shared.messaging.login import BUS, Login
from shared.settings import Settings

OPERATOR = "operator"
INBOXES = "_INBOX.>"
_ANSWERS_WITHIN = "10s"
_MANY_ANSWERS = ("CONSUMER.MSG.NEXT.", "DIRECT.GET.")
_TENANT_MAY_ASK = (
    "INFO",
    "STREAM.NAMES",
    "STREAM.MSG.GET.*",
    "DIRECT.GET.>",
    "CONSUMER.>",
)


class Logins:
    """The logins of one installation: made at first use, one file each, mode 0600."""

    def __init__(self, home: Path) -> None:
        self.folder = home / "keys" / "nats"

    def path(self, user: str) -> Path:
        """The file of a login, made if there is none."""
        path = self.folder / user
        load_or_create(path, f"{user}:{secrets.token_hex(24)}")
        return path

    def login(self, user: str) -> Login:
        return Login.of(self.path(user).read_text(encoding="utf-8"))

    def route(self, tenant: str) -> str:
        """The secret token in the subjects by which the tenant's copies are filled."""
        return load_or_create(self.folder / f"route-{tenant}", secrets.token_hex(16))

    def tenants(self) -> tuple[str, ...]:
        """Tenants that have a login."""
        found = self.folder.glob(f"{tenant_user('*')}")
        return tuple(sorted(path.name.removeprefix(tenant_user("")) for path in found))


def tenant_user(tenant: str) -> str:
    return f"tenant-{tenant}"


def keeper_user(tenant: str) -> str:
    """Who makes the streams of a tenant's account."""
    return f"keeper-{tenant}"


def program_user(name: str) -> str:
    return f"program-{name}"


def api_of_copies(route: str) -> str:
    return f"$JS.{route}.API"


def delivery_of_copies(tenant: str) -> str:
    return f"sluice.copies.{tenant}"


def write(logins: Logins, target: Path, *, tenants: Iterable[str], programs: Iterable[str]) -> None:
    """Write the accounts' part of the broker's configuration, for its owner's eyes only."""
    part = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
    fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(fd, "w", encoding="utf-8") as out:
        out.write(configuration(logins, tenants=tenants, programs=programs))
    part.replace(target)


def configuration(logins: Logins, *, tenants: Iterable[str], programs: Iterable[str] = ()) -> str:
    """The `accounts` block for nats-server."""
    plan = _Plan(logins, tuple(tenants), tuple(programs))
    return "\n".join(plan.lines()) + "\n"


@dataclass(frozen=True, slots=True)
class _Plan:
    logins: Logins
    tenants: tuple[str, ...]
    programs: tuple[str, ...]

    def peers(self) -> dict[str, Grants]:
        """Account → grants, for everyone but the streams' own account."""
        return {
            **{service.value: of_service(service) for service in Service},
            **{program_user(name): of_program(name) for name in self.programs},
            **{tenant_user(tenant): of_tenant(tenant) for tenant in self.tenants},
        }

    def lines(self) -> Iterator[str]:
        peers = self.peers()
        yield "accounts {"
        yield from self._bus(peers)
        for name, grants in peers.items():
            if name not in {tenant_user(tenant) for tenant in self.tenants}:
                yield from self._service(name, grants)
        for tenant in self.tenants:
            yield from self._tenant(tenant)
        yield "}"

    def _bus(self, peers: dict[str, Grants]) -> Iterator[str]:
        yield f"  {BUS} {{"
        yield "    jetstream: enabled"
        yield f"    users: [{self._user(OPERATOR)}]"
        yield "    exports: ["
        shared: dict[str, list[str]] = {}
        for name, grants in peers.items():
            for subject in (*grants.says, *(f"{API}.{ask}" for ask in grants.asks)):
                shared.setdefault(subject, []).append(name)
        for subject, names in shared.items():
            yield f"      {{{_exported(subject)}, accounts: {_list(names)}}}"
        for tenant in self.tenants:
            account = _list([tenant_user(tenant)])
            for subject in _copy_requests(tenant):
                yield f"      {{service: {_text(subject)}, accounts: {account}}}"
            delivery = _text(f"{delivery_of_copies(tenant)}.>")
            yield f"      {{stream: {delivery}, accounts: {account}}}"
        yield "    ]"
        yield "    imports: ["
        for name, grants in peers.items():
            for subject in grants.answers:
                yield f"      {_import('service', name, subject)}"
        yield "    ]"
        yield "  }"

    def _service(self, name: str, grants: Grants) -> Iterator[str]:
        asked = [(f"{API}.{ask}", f"$JS.{BUS}.API.{ask}") for ask in grants.asks]
        may_say = [*grants.says, *(local for _, local in asked), *grants.answers]  # ask itself
        may_hear = [INBOXES, *grants.answers]
        yield f"  {name} {{"
        yield f"    users: [{self._user(name, may_say, may_hear)}]"
        yield f"    exports: [{', '.join(_answered(s) for s in grants.answers)}]"
        yield "    imports: ["
        for subject in grants.says:
            yield f"      {_import('service', BUS, subject)}"
        for subject, local in asked:
            yield f"      {_import('service', BUS, subject, local)}"
        yield "    ]"
        yield "  }"

    def _tenant(self, tenant: str) -> Iterator[str]:
        grants = of_tenant(tenant)
        route = api_of_copies(self.logins.route(tenant))
        may_say = [*grants.says, *(f"{API}.{ask}" for ask in _TENANT_MAY_ASK), "$JS.ACK.>"]
        may_say.append("$JS.FC.>")
        may_hear = [INBOXES, *copied_to(tenant).values()]
        yield f"  {tenant_user(tenant)} {{"
        yield "    jetstream: enabled"
        yield (
            f"    users: [{self._user(tenant_user(tenant), may_say, may_hear)}, "
            f"{self._user(keeper_user(tenant))}]"
        )
        yield "    imports: ["
        for subject in grants.says:
            yield f"      {_import('service', BUS, subject)}"
        for subject in _copy_requests(tenant):
            local = subject.replace(API, route) if subject.startswith(API) else None
            yield f"      {_import('service', BUS, subject, local)}"
        yield f"      {_import('stream', BUS, delivery_of_copies(tenant) + '.>')}"
        yield "    ]"
        yield "  }"

    def _user(
        self, name: str, say: Iterable[str] | None = None, hear: Iterable[str] | None = None
    ) -> str:
        login = self.logins.login(name)
        who = f"user: {_text(login.user)}, password: {_text(login.password)}"
        if say is None or hear is None:
            return f"{{{who}}}"
        return (
            f"{{{who}, permissions: {{publish: {{allow: {_list(say)}}}, "
            f"subscribe: {{allow: {_list(hear)}}}, allow_responses: true}}}}"
        )


def prepare(home: Path, target: Path, tenants: Iterable[str]) -> None:
    """Every login of an installation, and the broker's accounts in `target`, for a container.

    `target` may be read by whoever has its volume: the broker runs as another user.
    """
    logins = Logins(home)
    for tenant in tenants:
        logins.path(tenant_user(tenant))
    write(logins, target, tenants=logins.tenants(), programs=())
    target.chmod(0o644)


def _copy_requests(tenant: str) -> Iterator[str]:
    """What the broker asks of the streams' account to fill a tenant's copies."""
    for stream, subjects in copied_to(tenant).items():
        yield f"{API}.CONSUMER.CREATE.{stream}.*.{subjects}"
        yield f"$JS.FC.{stream}.>"


def _exported(subject: str) -> str:
    many = subject.removeprefix(f"{API}.").startswith(_MANY_ANSWERS)
    shape = f", response_type: stream, response_threshold: {_ANSWERS_WITHIN}" if many else ""
    return f"service: {_text(subject)}{shape}"


def _answered(subject: str) -> str:
    return f"{{service: {_text(subject)}, accounts: {_list([BUS])}}}"


def _import(kind: str, account: str, subject: str, to: str | None = None) -> str:
    renamed = f", to: {_text(to)}" if to else ""
    return f"{{{kind}: {{account: {_text(account)}, subject: {_text(subject)}}}{renamed}}}"


def _text(value: str) -> str:
    return json.dumps(value)


def _list(values: Iterable[str]) -> str:
    return "[" + ", ".join(_text(value) for value in values) + "]"


if __name__ == "__main__":
    prepare(Settings().home, Path(sys.argv[1]), sys.argv[2:])
