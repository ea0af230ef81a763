"""More than one of everything: three broker nodes, copied streams, two replicas of a service."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import nats
import pytest
from nats.js.errors import Error as JetStreamError

from contracts.base import Service
from contracts.curation import SynthesisRequested
from contracts.subjects import RunRef
from contracts.synthesis import RowsSynthesized
from shared.errors import TransientError
from shared.messaging.accounts import OPERATOR, Logins, write
from shared.messaging.broker import Bus
from shared.messaging.embedded import EmbeddedNats, free_port
from shared.messaging.host import App
from shared.messaging.provision import provision
from shared.messaging.runlog import RunLog
from shared.messaging.steps import Step, Steps
from shared.settings import Settings

NODES = 3
RUNS = 30
NOTHING = "sha256:" + "0" * 64

pytestmark = pytest.mark.timeout(300)


class Node(EmbeddedNats):
    """One of several servers that share accounts and streams."""

    def __init__(self, folder: Path, logins: Logins, number: int, routes: list[int]) -> None:
        super().__init__(
            folder / f"n{number}",
            port=free_port(),
            write_accounts=lambda target: write(logins, target, tenants=(), programs=()),
        )
        self._number, self._routes = number, routes

    def prepare(self) -> list[str]:
        program = super().prepare()
        config = self.folder / "nats.conf"
        others = ", ".join(f'"nats://127.0.0.1:{port}"' for port in self._routes)
        config.write_text(
            config.read_text().replace("server_name: sluice", f"server_name: n{self._number}")
            + f'cluster {{ name: sluice, listen: "127.0.0.1:{self._routes[self._number]}", '
            f"routes: [{others}] }}\n"
        )
        return program


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[tuple[list[Node], Logins]]:
    logins = Logins(tmp_path / "home")
    routes = [free_port() for _ in range(NODES)]
    nodes = [Node(tmp_path, logins, number, routes) for number in range(NODES)]
    try:
        for node in nodes:
            await node.start()
        yield nodes, logins
    finally:
        for node in nodes:
            node.stop()


async def enter(node: Node, logins: Logins) -> nats.NATS:
    async def quiet(_error: Exception) -> None: ...

    login = logins.login(OPERATOR)
    return await nats.connect(
        node.url,
        user=login.user,
        password=login.password,
        max_reconnect_attempts=-1,
        reconnect_time_wait=0.2,
        error_cb=quiet,
    )


@asynccontextmanager
async def replica(node: Node, logins: Logins, home: Path, work) -> AsyncIterator[None]:
    settings = Settings(
        home=home, nats_url=node.url, nats_credentials=logins.path(Service.SYNTHESIS)
    )
    bus = Bus(Service.SYNTHESIS, settings)
    Steps(bus).on("synthesize")(work)
    async with App(bus).running():
        yield


@pytest.mark.req("P7")
@pytest.mark.req("P3")
async def test_a_node_dies_amid_the_work_of_two_replicas_and_every_step_is_done_once(
    cluster, tmp_path: Path
) -> None:
    nodes, logins = cluster
    operator = await enter(nodes[0], logins)
    js = operator.jetstream(timeout=5)
    async with asyncio.timeout(60):
        while True:
            try:
                await provision(js, replicas=NODES)
                break
            except (JetStreamError, nats.errors.Error, TimeoutError):  # no leader yet
                await asyncio.sleep(0.3)
    assert len((await js.stream_info("RUN")).cluster.replicas) == NODES - 1

    done: Counter[str] = Counter()

    def worker(name: str):
        async def work(step: Step) -> RowsSynthesized:
            await asyncio.sleep(0.05)
            done[name] += 1
            return RowsSynthesized(rows=NOTHING, requested=1, accepted=1, distinct_2=1.0)

        return work

    log = RunLog(js)
    refs = [RunRef("acme", f"r{n}") for n in range(RUNS)]

    async def ask(ref: RunRef) -> None:
        while True:
            try:
                await log.append(ref, SynthesisRequested(seeds=NOTHING, rows=1), cause="test")
                return
            except TransientError:
                await asyncio.sleep(0.2)

    async with AsyncExitStack() as stack:
        for name, node in (("a", nodes[1]), ("b", nodes[2])):
            await stack.enter_async_context(replica(node, logins, tmp_path / name, worker(name)))
        for number, ref in enumerate(refs):
            await ask(ref)
            if number == RUNS // 2:
                leader = (await js.stream_info("RUN")).cluster.leader
                next(node for node in nodes if node._number == int(leader[1:])).kill()
        async with asyncio.timeout(120):
            for ref in refs:
                while True:
                    try:
                        if (await log.load(ref)).synthesized:
                            break
                    except TransientError:
                        pass
                    await asyncio.sleep(0.1)
    for ref in refs:
        assert len((await log.load(ref)).log) == 2, ref
    assert min(done["a"], done["b"]) > 0
    await operator.close()
