"""Who has read a fact may act on it at serving at once, however far behind routing was."""

from __future__ import annotations

import nats
import pytest

from contracts.subjects import RunRef
from contracts.training import AdapterTrained
from services.serving import bus
from services.serving.bus import Projection
from services.serving.directory import Directory, UnknownModel
from shared.artifacts import ArtifactStore
from shared.errors import TransientError
from shared.messaging.provision import provision
from shared.messaging.runlog import RunLog

REF = RunRef("acme", "one")
DIGEST = "sha256:" + "a" * 64


@pytest.fixture
async def jetstream(nats_server):
    connection = await nats.connect(nats_server.url)
    jetstream = connection.jetstream()
    await provision(jetstream)
    yield jetstream
    await connection.close()


def projection(directory, jetstream, folder) -> Projection:
    store = ArtifactStore(f"file://{folder}/artifacts")
    return Projection(directory, lambda: jetstream, store, folder / "registry.pub")


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
