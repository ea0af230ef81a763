"""The permission matrix, generated from the topology, on a real broker: exactly what is declared.

Every login says every subject of the matrix; a listener in the account of the streams hears what
arrives there. Whatever does not arrive must have been refused aloud: an error nobody hears is how
a service loses facts in silence.
"""

from __future__ import annotations

import asyncio
import json
import random

import nats.errors
import pytest
from nats.js.errors import Error as JetStreamError

from contracts.base import Service
from contracts.grants import API, TENANT_STREAMS, Grants, copied_to, of_service, of_tenant
from contracts.topology import CONSUMERS, STREAMS
from shared.messaging.accounts import OPERATOR, Logins, configuration, tenant_user
from shared.messaging.login import BUS, Login
from tests.integration.secured import TENANTS, Ear, Secured, secured_broker

STREAM_NAMES = [row.name for row in STREAMS] + ["KV_LEASES"]
RUN_ID = "r1"


@pytest.fixture
async def secured(tmp_path):
    async with secured_broker(tmp_path) as broker:
        yield broker


def matches(pattern: str, subject: str) -> bool:
    """As NATS matches."""
    wanted, given = pattern.split("."), subject.split(".")
    for at, token in enumerate(wanted):
        if token == ">":
            return len(given) > at
        if at >= len(given) or token not in ("*", given[at]):
            return False
    return len(wanted) == len(given)


def concrete(pattern: str, tenant: str) -> str:
    """A subject that matches: the first open token is the tenant, the second the run."""
    for word in (tenant, RUN_ID):
        pattern = pattern.replace("*", word, 1)
    return pattern.replace("*", "x").replace(">", "x.y")


def sayings() -> list[str]:
    """What anyone may say, spelled out for both tenants, and each service's facts and letters."""
    patterns = [p for service in Service for p in of_service(service).says]
    patterns += [f"sluice.v1.health.{service}" for service in Service]
    patterns += [p for tenant in TENANTS for p in of_tenant(tenant).says]
    return sorted({concrete(p, tenant) for p in patterns for tenant in TENANTS})


def asking() -> list[str]:
    """The JetStream API below its prefix: read, pull, and administer everything there is."""
    asks = ["STREAM.CREATE.NEW", "STREAM.NAMES", "STREAM.LIST", "INFO", "ACCOUNT.PURGE.bus"]
    for name in STREAM_NAMES:
        asks += [f"STREAM.{verb}.{name}" for verb in ("INFO", "UPDATE", "DELETE", "PURGE")]
        asks += [f"STREAM.MSG.{verb}.{name}" for verb in ("GET", "DELETE")]
        asks += [f"DIRECT.GET.{name}", f"DIRECT.GET.{name}.sluice.v1.run.acme.r1.a.b"]
        asks += [f"CONSUMER.CREATE.{name}.spy", f"CONSUMER.CREATE.{name}.spy.sluice.v1.run.>"]
        asks += [f"CONSUMER.DURABLE.CREATE.{name}.spy", f"CONSUMER.NAMES.{name}"]
    for row in CONSUMERS:
        asks += [
            f"CONSUMER.{verb}.{row.stream}.{row.durable}"
            for verb in ("INFO", "MSG.NEXT", "DELETE", "PAUSE")
        ]
    return asks


def allowed(grants: Grants) -> set[str]:
    """What of the matrix must arrive in the streams' account, as it is spelled there."""
    said = {s for s in sayings() if any(matches(pattern, s) for pattern in grants.says)}
    return said | {f"{API}.{ask}" for ask in asking() if ask in grants.asks}


@pytest.mark.req("P6")
@pytest.mark.parametrize("service", Service)
async def test_a_service_says_and_asks_exactly_what_is_declared(
    secured: Secured, service: Service
) -> None:
    operator = await secured.enter(OPERATOR)
    ear = await Ear().listen(operator.connection)
    member = await secured.enter(service)
    mark = f"from {service}".encode()
    attempts = [*sayings()]
    for ask in asking():
        attempts += [f"{API}.{ask}", f"$JS.{BUS}.API.{ask}"]
    for subject in attempts:
        await member.connection.publish(subject, mark)
    await member.settled()
    await operator.settled()
    expected = allowed(of_service(service))
    assert ear.subjects(mark) == expected
    itself = set(of_service(service).answers)  # stays in its own account
    assert len(member.violations) == len(attempts) - len(expected) - len(itself)
    assert all("permissions violation" in error.lower() for error in member.violations)


@pytest.mark.req("P6")
@pytest.mark.timeout(600)
@pytest.mark.parametrize("service", Service)
async def test_subjects_drawn_from_every_declared_token_arrive_only_where_declared(
    secured: Secured, service: Service, seed: int, long: bool
) -> None:
    """What nobody wrote down: a token too many or too few, of another tenant, stream or service."""
    draw, attempts = random.Random(f"{seed} {service}"), 5_000 if long else 200
    grants = of_service(service)
    asked = f"$JS.{BUS}.API."
    known = [*sayings(), *(f"{start}{ask}" for start in (asked, f"{API}.") for ask in asking())]
    tokens = sorted({token for subject in known for token in subject.split(".")})
    drawn = {bent(draw, known, tokens) for _ in range(attempts)}
    drawn -= set(grants.answers)  # stay in its own account
    expected = {s for s in drawn if any(matches(pattern, s) for pattern in grants.says)} | {
        s.replace(asked, f"{API}.")
        for s in drawn
        if s.startswith(asked) and s.removeprefix(asked) in grants.asks
    }
    operator = await secured.enter(OPERATOR)
    ear = await Ear().listen(operator.connection)
    member = await secured.enter(service)
    mark = f"drawn by {service}".encode()
    for at, subject in enumerate(sorted(drawn)):
        await member.connection.publish(subject, mark)
        if at % 100 == 0:
            await member.settled()
    await member.settled()
    await operator.settled()
    print(f"{service}: {len(drawn)} subjects, {len(expected)} declared", flush=True)
    assert ear.subjects(mark) == expected
    assert len(member.violations) == len(drawn) - len(expected)


def bent(draw: random.Random, known: list[str], tokens: list[str]) -> str:
    """A known subject with one to three tokens changed, added or taken away."""
    subject = draw.choice(known).split(".")
    for _ in range(draw.randint(1, 3)):
        at = draw.randrange(len(subject))
        how = draw.choice(["change", "change", "add", "take"])
        if how == "change":
            subject[at] = draw.choice([*tokens, subject[at].upper(), f"{subject[at]}x"])
        elif how == "add":
            subject.insert(at, draw.choice(tokens))
        elif len(subject) > 1:
            del subject[at]
    return ".".join(subject)


@pytest.mark.req("P6")
@pytest.mark.parametrize("service", Service)
async def test_a_service_hears_nobody_and_forges_nothing_with_a_reply_subject(
    secured: Secured, service: Service
) -> None:
    operator = await secured.enter(OPERATOR)
    js = operator.connection.jetstream()
    for row in CONSUMERS:  # something to pull for everyone, and to read
        for pattern in row.filters:
            await js.publish(concrete(pattern, "acme"), b"bait", stream=row.stream)
    before = {name: (await js.stream_info(name)).state.last_seq for name in STREAM_NAMES}
    # by name: a delivery to any inbox would show the subject under which its message is stored
    said = [await Ear().listen(operator.connection, s) for s in ("sluice.>", f"{API}.>", "$KV.>")]

    member = await secured.enter(service)
    heard = [await Ear().listen(member.connection, s) for s in (">", "sluice.>", "$JS.>", "$KV.>")]
    inboxes = await Ear().listen(member.connection, "_INBOX.>")
    forged = [s for s in sayings() if not any(matches(p, s) for p in of_service(service).says)] + [
        f"{API}.STREAM.DELETE.RUN"
    ]
    body = json.dumps({"seq": 1, "batch": 1}).encode()
    for ask in of_service(service).asks:
        for target in forged if ".GET." in ask or ".NEXT." in ask else forged[:3]:
            await member.connection.publish(f"$JS.{BUS}.API.{ask}", body, reply=target)
    await member.settled()
    await js.publish("sluice.v1.progress.acme.r1.x", b"loud", stream="PROGRESS")
    await js.stream_info("RUN")  # an answer to someone else's inbox
    await asyncio.sleep(0.2)
    await member.settled()

    assert not any(ear.heard for ear in heard)
    assert not inboxes.heard
    assert len([v for v in member.violations if "subscription" in v.lower()]) == len(heard)
    assert [it for ear in said for it in ear.heard if it[0] in forged] == []
    after = {name: (await js.stream_info(name)).state.last_seq for name in STREAM_NAMES}
    assert after == before | {"PROGRESS": before["PROGRESS"] + 1}


@pytest.mark.req("P6")
async def test_a_tenant_publishes_its_own_commands_and_nothing_else(secured: Secured) -> None:
    operator = await secured.enter(OPERATOR)
    ear = await Ear().listen(operator.connection)
    member = await secured.enter(tenant_user("acme"))
    attempts = sayings()
    for ask in asking():
        attempts += [f"$JS.{BUS}.API.{ask}"]
    for subject in attempts:
        await member.connection.publish(subject, b"from acme")
    await member.settled()
    await operator.settled()
    expected = allowed(of_tenant("acme"))
    assert expected
    assert all(s.startswith("sluice.v1.job.acme.") for s in expected)
    assert ear.subjects(b"from acme") == expected
    own = [s for s in attempts if s.startswith("$JS.ACK.")]  # in its account: of its own consumers
    assert len(member.violations) == len(attempts) - len(own) - len(expected)


@pytest.mark.req("P6")
@pytest.mark.req("P2")
async def test_a_tenant_sees_its_own_runs_progress_and_alerts_with_any_client(
    secured: Secured,
) -> None:
    operator = await secured.enter(OPERATOR)
    training = await secured.enter(Service.TRAINING)
    member = await secured.enter(tenant_user("acme"))
    live = await Ear().listen(member.connection, "sluice.v1.progress.acme.r1.*")
    foreign = await Ear().listen(member.connection, "sluice.v1.progress.globex.>")
    everything = await Ear().listen(member.connection, ">")
    js = operator.connection.jetstream()
    for tenant in TENANTS:
        for n in range(3):
            subject = f"sluice.v1.run.{tenant}.r1.curation.curated"
            await js.publish(subject, f"{tenant} {n}".encode(), stream="RUN")
        await js.publish(f"sluice.v1.alert.{tenant}.d.m", tenant.encode(), stream="ALERTS")
        await js.publish(f"sluice.v1.remedy.{tenant}.d.r", tenant.encode(), stream="REMEDIES")
        await training.connection.publish(f"sluice.v1.progress.{tenant}.r1.train", tenant.encode())
    own = member.connection.jetstream()

    facts = await own.subscribe("sluice.v1.run.acme.r1.>", stream="RUN", ordered_consumer=True)
    assert [(await facts.next_msg(timeout=5)).data for _ in range(3)] == [
        f"acme {n}".encode() for n in range(3)
    ]
    alerts = await own.subscribe("sluice.v1.alert.>", stream="ALERTS", ordered_consumer=True)
    assert (await alerts.next_msg(timeout=5)).data == b"acme"
    with pytest.raises(nats.errors.TimeoutError):
        await alerts.next_msg(timeout=0.3)
    assert live.heard == [("sluice.v1.progress.acme.r1.train", b"acme")]
    assert foreign.heard == everything.heard == []
    for stream in TENANT_STREAMS:
        for reads in ("sluice.v1.*.globex.>", ">"):
            subjects = await _read_all(own, stream, reads)
            assert {s.split(".")[3] for s in subjects} <= {"acme"}


async def _read_all(js, stream: str, pattern: str) -> list[str]:
    found, position = [], 1
    while True:
        try:
            message = await js.get_msg(
                stream, seq=position, subject=pattern, direct=True, next=True
            )
        except JetStreamError:
            return found
        found.append(message.subject)
        position = message.seq + 1


@pytest.mark.req("P6")
async def test_a_tenant_cannot_learn_or_use_the_way_its_copies_are_filled(
    secured: Secured,
) -> None:
    """Its account can reach the streams' consumers; the token that names the way is the lock."""
    operator = await secured.enter(OPERATOR)
    js = operator.connection.jetstream()
    member = await secured.enter(tenant_user("acme"))
    own = member.connection.jetstream(timeout=0.3)
    for ask in ("STREAM.INFO.RUN", "STREAM.LIST", "STREAM.DELETE.RUN", "STREAM.PURGE.RUN"):
        with pytest.raises(nats.errors.TimeoutError):
            await member.connection.request(f"{API}.{ask}", b"", timeout=0.3)
    heard = [
        await Ear().listen(member.connection, subject)
        for subject in ("$JS.EVENT.>", "sluice.copies.>", f"$JS.{secured.logins.route('acme')}.>")
    ]
    await own.pull_subscribe(
        "sluice.v1.run.acme.>", durable="spy", stream="RUN"
    )  # its own account: allowed
    consumers = (await js.stream_info("RUN")).state.consumer_count
    guesses = [
        f"{API}.CONSUMER.CREATE.RUN.spy.sluice.v1.run.acme.>",
        f"$JS.{BUS}.API.CONSUMER.CREATE.RUN.spy.sluice.v1.run.acme.>",
        "sluice.v1.run.globex.r1.registry.promoted",
        "sluice.v1.job.globex.r1.submit",
    ]
    ear = await Ear().listen(operator.connection)
    for guess in guesses:
        await member.connection.publish(f"{API}.CONSUMER.INFO.RUN.spy", b"", reply=guess)
    await member.settled()
    await asyncio.sleep(0.2)
    assert not [s for s, _ in ear.heard if "spy" in s or "globex" in s]
    assert (await js.stream_info("RUN")).state.consumer_count == consumers
    assert not any(ear.heard for ear in heard)
    assert len([v for v in member.violations if "subscription" in v.lower()]) == 3


@pytest.mark.req("P6")
async def test_a_wrong_password_and_no_login_are_refused(secured: Secured) -> None:
    right = secured.logins.login("training")
    assert (await _answer(secured, {"user": right.user, "pass": right.password})) == b"PONG\r\n"
    for login in ({}, {"user": "training", "pass": "training"}, {"user": OPERATOR}):
        assert b"Authorization Violation" in await _answer(secured, login)


async def _answer(secured: Secured, login: dict[str, str]) -> bytes:
    """What the broker says to a client that presents this login."""
    reader, writer = await asyncio.open_connection("127.0.0.1", secured.server.port)
    try:
        assert (await reader.readline()).startswith(b"INFO ")
        writer.write(f"CONNECT {json.dumps({'verbose': False} | login)}\r\nPING\r\n".encode())
        return await reader.readline()
    finally:
        writer.close()
        await writer.wait_closed()


def test_logins_are_made_once_and_only_their_owner_reads_them(tmp_path) -> None:
    logins = Logins(tmp_path)
    first = {user: logins.login(user) for user in (OPERATOR, *Service, tenant_user("acme"))}
    configuration(logins, tenants=("acme",))
    assert {user: Logins(tmp_path).login(user) for user in first} == first
    assert len({login.password for login in first.values()}) == len(first)
    assert logins.tenants() == ("acme",)
    for path in logins.folder.iterdir():
        assert path.stat().st_mode & 0o777 == 0o600
    assert first[OPERATOR].password not in repr(first[OPERATOR])
    assert Login.of(str(first[OPERATOR])) == first[OPERATOR]


def test_a_tenant_has_copies_of_its_own_subjects_alone() -> None:
    assert all(".acme." in subjects for subjects in copied_to("acme").values())
    assert of_tenant("acme").asks == ()
