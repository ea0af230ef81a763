"""A person's feedback is acknowledged when the broker has it, and not before."""

from __future__ import annotations

from pathlib import Path

import httpx
import nats
import pytest

from contracts.telemetry import Feedback
from services.serving import bus
from services.serving.bus import TELEMETRY, TelemetrySink
from services.serving.directory import Directory
from services.serving.http.app import create_app
from shared.messaging.provision import provision
from shared.messaging.tail import history
from tests.serving.live_server import KEYS
from tests.serving.test_directory import story

ASK = {"request_id": "r1", "model": "bot", "kind": "safety_incident"}


@pytest.mark.req("M9")
async def test_feedback_is_refused_while_the_broker_is_away_and_kept_once_when_it_is_back(
    nats_server, monkeypatch
) -> None:
    monkeypatch.setattr(bus, "KEPT_WITHIN_S", 0.5)
    connection = await nats.connect(
        nats_server.url, max_reconnect_attempts=-1, reconnect_time_wait=0.1
    )
    jetstream = connection.jetstream()
    await provision(jetstream)
    app = create_app(
        engine=lambda: None,
        directory=Directory(records=story()),
        keys=KEYS,
        sink=TelemetrySink(lambda: jetstream),
        folders=Path,
    )

    async def kept() -> list[Feedback]:
        subject = "sluice.v1.telemetry.acme.>"
        found = await history(jetstream, TELEMETRY, subject)
        return [Feedback.model_validate_json(message.data) for message in found]

    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app),
        base_url="http://serving",
        headers={"Authorization": "Bearer sk-acme"},
    ) as person:
        nats_server.stop()
        refused = await person.post("/v1/feedback", json=ASK)
        assert refused.status_code == 503
        assert int(refused.headers["Retry-After"]) > 0
        assert "send it again" in refused.json()["error"]["mend"]
        await nats_server.start()
        status = 503
        while status == 503:
            status = (await person.post("/v1/feedback", json=ASK)).status_code
        assert status == 202
        assert [(one.request_id, one.kind) for one in await kept()] == [("r1", "safety_incident")]
        other = await person.post("/v1/feedback", json={**ASK, "request_id": "r2"})
        assert other.status_code == 202
        assert [one.request_id for one in await kept()] == ["r1", "r2"]
    await connection.close()
