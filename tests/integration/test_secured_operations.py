"""Rollout and monitoring under their own logins: batches, leases of deployments, the alarm."""

from __future__ import annotations

import asyncio

import pytest

from contracts import subjects
from services.monitoring.app import create_app as monitoring
from services.rollout.app import create_app as rollout
from shared.messaging.accounts import OPERATOR
from shared.settings import Settings
from tests.integration.rollouts import REF, register, until
from tests.integration.secured import secured_broker
from tests.integration.test_rollout_by_hand import alert
from tests.monitoring.provocations import provoked_by
from tests.rollout.traffic import ADAPTER


@pytest.mark.req("P6")
@pytest.mark.req("H8")
async def test_a_rollout_begins_and_ends_and_an_alert_goes_out_with_the_services_own_grants(
    tmp_path,
) -> None:
    async with secured_broker(tmp_path) as secured:
        operator = await secured.enter(OPERATOR)
        js = operator.connection.jetstream()

        def as_service(name: str) -> Settings:
            login = secured.logins.login(name)
            url = secured.server.url.replace("nats://", f"nats://{login}@")
            return Settings(home=tmp_path / name, nats_url=url)

        await register(js)
        async with (
            rollout(as_service("rollout")).running(),
            monitoring(as_service("monitoring")).running(),
        ):
            for signal in provoked_by("grounding"):
                place = subjects.telemetry(signal.tenant, signal.deployment)
                await js.publish(place, signal.model_dump_json().encode(), stream="TELEMETRY")
            await until(js, lambda run: run.stage)
            item = alert("critical")
            await js.publish(
                subjects.alert("acme", "assistant", item.metric),
                item.model_dump_json().encode(),
                stream="ALERTS",
            )
            run = await until(js, lambda run: run.closed)
            async with asyncio.timeout(20):
                while (await js.stream_info("ALERTS")).state.messages < 2:
                    await asyncio.sleep(0.05)
    assert (run.ref, run.status) == (REF, "rolled_back")
    assert run.log[-1].event.adapter_id == ADAPTER
    assert operator.violations == []
