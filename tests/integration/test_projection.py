"""Who has read a fact may act on it at serving at once, however far behind routing was."""

from __future__ import annotations

import asyncio

import pytest

from contracts.subjects import RunRef
from contracts.training import AdapterTrained
from services.serving import bus
from services.serving.bus import Projection
from services.serving.directory import Directory, UnknownModel
from services.serving.trust import Trust
from shared.artifacts import ArtifactStore
from shared.errors import TransientError
from shared.messaging.runlog import RunLog
from shared.signing import SigningKey, load_ring
from tests.registry.registry_office import open_office

REF = RunRef("acme", "one")
DIGEST = "sha256:" + "a" * 64


def projection(directory, jetstream, folder) -> Projection:
    store = ArtifactStore(f"file://{folder}/artifacts")
    return Projection(directory, lambda: jetstream, Trust(store, folder / "keys/signing-key.pub"))


async def train(jetstream, number: int) -> str:
    adapter = "sha256:" + f"{number:064x}"
    trained = AdapterTrained(
        adapter=adapter,
        recipe=DIGEST,
        base=DIGEST,
        tokenizer=DIGEST,
        weights=DIGEST,
        steps=1,
        train_loss=1.0,
        validation_loss=None,
        tokens_per_s=1.0,
        peak_memory_bytes=1,
        duration_s=1.0,
    )
    await RunLog(jetstream).append(REF, trained, cause="test", key=adapter)
    return adapter


async def test_a_candidate_may_be_asked_as_soon_as_its_training_is_in_the_log(
    jetstream, tmp_path
) -> None:
    directory = Directory()
    routing = projection(directory, jetstream, tmp_path)
    async with routing.running():
        for number in range(20):
            adapter = await train(jetstream, number)
            await routing.catch_up()
            route = directory.resolve(
                f"candidate:{adapter}", tenant="acme", evaluate=True, conversation="c"
            )
            assert route.target.adapter == adapter


async def test_a_projection_that_stays_behind_says_so_instead_of_denying_the_model(
    jetstream, tmp_path, monkeypatch
) -> None:
    monkeypatch.setattr(bus, "CAUGHT_UP_WITHIN_S", 0.2)
    directory = Directory()
    adapter = await train(jetstream, 1)
    with pytest.raises(TransientError, match="0 of 1 facts"):
        await projection(directory, jetstream, tmp_path).catch_up()
    with pytest.raises(UnknownModel):
        directory.resolve(f"candidate:{adapter}", tenant="acme", evaluate=True, conversation="c")


@pytest.mark.req("R4")
async def test_a_leaked_key_taken_out_of_the_ring_ends_its_adapters_service_within_seconds(
    jetstream, tmp_path
) -> None:
    office = open_office(tmp_path)
    run = await asyncio.to_thread(office.completed)
    log = RunLog(jetstream)
    for record in (*run.log, *office.follow(run, office.registry.promote(run)).log[-1:]):
        await log.append(record.ref, record.event, cause=record.cause, key=record.id)
    office.store.close()
    directory = Directory()

    def answering() -> str:
        route = directory.resolve("assistant", tenant="acme", evaluate=False, conversation="c")
        return route.target.model

    routing = projection(directory, jetstream, tmp_path)
    async with routing.running():
        await routing.catch_up()
        assert answering() == "SmolLM2-135M-Instruct-tool_calls-v1"
        SigningKey.rotate(tmp_path / "keys")
        ring = tmp_path / "keys" / "signing-key.pub"
        newest, _ = load_ring(ring)
        ring.write_bytes(newest.pem)
        async with asyncio.timeout(10):
            while answering() != "base":
                await asyncio.sleep(0.05)
