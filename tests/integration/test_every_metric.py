"""Each metric of M1 to M15 provoked on a real nats-server, and who may read its alert."""

from __future__ import annotations

import asyncio
from typing import get_args

import nats
import pytest

from contracts import subjects
from contracts.alerts import Alert, MetricName
from contracts.remedies import Remedy, RemedyName
from contracts.telemetry import Feedback
from services.monitoring.app import create_app
from shared.messaging.embedded import EmbeddedNats, free_port
from shared.messaging.provision import provision
from shared.messaging.tail import history
from tests.monitoring.provocations import provoked_by

METRICS: tuple[MetricName, ...] = get_args(MetricName)


async def publish(connection: nats.NATS, signals) -> None:
    for signal in signals:
        place = signal.tenant, signal.deployment
        to = subjects.feedback if isinstance(signal, Feedback) else subjects.telemetry
        await connection.publish(to(*place), signal.model_dump_json().encode())
    await connection.flush()


@pytest.mark.req("M1")
@pytest.mark.req("M2")
@pytest.mark.req("M3")
@pytest.mark.req("M4")
@pytest.mark.req("M5")
@pytest.mark.req("M6")
@pytest.mark.req("M7")
@pytest.mark.req("M8")
@pytest.mark.req("M9")
@pytest.mark.req("M10")
@pytest.mark.req("M11")
@pytest.mark.req("M12")
@pytest.mark.req("M13")
@pytest.mark.req("M14")
@pytest.mark.req("M15")
@pytest.mark.req("M16")
async def test_each_metric_alerts_end_to_end_with_evidence_and_remediation(
    nats_server, settings
) -> None:
    connection = await nats.connect(nats_server.url)
    js = connection.jetstream()
    await provision(js)
    async with create_app(settings).running():
        for metric in METRICS:
            await publish(connection, provoked_by(metric))
        async with asyncio.timeout(30):
            while True:
                info = await js.consumer_info("TELEMETRY", "monitoring-outcomes")
                if info.num_pending == 0 and info.num_ack_pending == 0 and info.delivered:
                    break
                await asyncio.sleep(0.05)
    fired: dict[str, set[str]] = {}
    due: dict[str, set[str]] = {}
    for message in await history(js, "ALERTS", "sluice.v1.alert.acme.>"):
        alert = Alert.model_validate_json(message.data)
        assert message.subject == subjects.alert("acme", alert.deployment, alert.metric)
        assert alert.remediation
        assert alert.evidence or alert.metric in {"cost_per_success", "drift"}
        fired.setdefault(alert.deployment, set()).add(alert.metric)
    assert set(fired) == set(METRICS)
    for message in await history(js, "REMEDIES", "sluice.v1.remedy.acme.>"):
        remedy = Remedy.model_validate_json(message.data)
        assert message.subject == subjects.remedy("acme", remedy.deployment, remedy.remedy)
        assert remedy.metric in fired[remedy.deployment]
        assert (remedy.by == "platform") == (remedy.remedy == "withdraw")
        due.setdefault(remedy.metric, set()).add(remedy.remedy)
    assert due == {m: {r} for m, r in zip(METRICS, get_args(RemedyName), strict=True)}
    for metric in METRICS:
        assert metric in fired[metric]
    alone = {metric for metric in METRICS if fired[metric] == {metric}}
    assert len(alone) >= 11, fired  # a broken schema, say, fails first attempts too
    await connection.close()


class TwoTenants(EmbeddedNats):
    """A server whose tenants read their own alerts and nothing else."""

    def prepare(self) -> list[str]:
        program = super().prepare()
        config = self.folder / "nats.conf"
        tenants = ", ".join(
            f'{{ user: {name}, password: x, permissions: {{ publish: "_INBOX.>", '
            f'subscribe: "sluice.v1.alert.{name}.>" }} }}'
            for name in ("acme", "globex")
        )
        users = f"authorization {{ users: [ {{ user: us, password: x }}, {tenants} ] }}\n"
        config.write_text(config.read_text(encoding="utf-8") + users, encoding="utf-8")
        return program


@pytest.mark.req("M16")
async def test_a_plain_client_follows_its_own_tenants_alerts_only(tmp_path, settings) -> None:
    server = TwoTenants(tmp_path / "tenants", port=free_port())
    await server.start()
    ours = await nats.connect(server.url, user="us", password="x")
    refused: list[str] = []

    async def note(error: Exception) -> None:
        refused.append(str(error))

    clients = {
        name: await nats.connect(server.url, user=name, password="x", error_cb=note)
        for name in ("acme", "globex")
    }
    await provision(ours.jetstream())
    heard = {
        name: await client.subscribe(f"sluice.v1.alert.{name}.>")
        for name, client in clients.items()
    }
    for client in clients.values():
        await client.flush()
    url = server.url.replace("nats://", "nats://us:x@")
    async with create_app(settings.model_copy(update={"nats_url": url})).running():
        await publish(ours, provoked_by("grounding"))
        message = await heard["acme"].next_msg(timeout=10)
        assert Alert.model_validate_json(message.data).metric == "grounding"
        with pytest.raises(nats.errors.TimeoutError):
            await heard["globex"].next_msg(timeout=0.3)
        assert refused == []
        await clients["globex"].subscribe("sluice.v1.alert.acme.>")
        await clients["globex"].flush()
        await asyncio.sleep(0.1)
    assert any("permissions violation" in text.lower() for text in refused)
    for client in (*clients.values(), ours):
        await client.close()
    server.stop()
