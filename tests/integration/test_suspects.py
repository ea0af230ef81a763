"""Deaths are counted by message, and only deaths."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from shared.errors import PermanentError, TransientError
from shared.messaging import suspects
from shared.messaging.suspects import MOST_DEATHS, ProcessDied, SuspectInHand, Suspects

pytestmark = pytest.mark.req("P4")


def message(number: int = 1, *, delivery: int) -> Any:
    sequence = SimpleNamespace(stream=number)
    metadata = SimpleNamespace(consumer="training-train", num_delivered=delivery, sequence=sequence)
    return SimpleNamespace(metadata=metadata)


async def die(folder: Path, number: int = 1, *, delivery: int = 2) -> None:
    """A process takes the message and is no more: its handler never ends."""
    watching = Suspects(folder).watching(message(number, delivery=delivery))
    await watching.__aenter__()
    graveyard.append(watching)


graveyard: list[Any] = []
"""What nobody collects, as a killed process collects nothing."""


def marked(folder: Path) -> list[Path]:
    return list(folder.iterdir())


async def handle(folder: Path, number: int = 1, *, delivery: int = 9, error: Any = None) -> None:
    async with Suspects(folder).watching(message(number, delivery=delivery)):
        if error is not None:
            raise error


async def test_a_message_is_refused_after_so_many_deaths_and_then_forgotten(tmp_path: Path) -> None:
    for delivery in range(2, MOST_DEATHS + 1):
        await die(tmp_path, delivery=delivery)
    with pytest.raises(ProcessDied, match=f"{MOST_DEATHS} processes died") as refused:
        await handle(tmp_path)
    assert "sluice dead replay" in refused.value.mend
    await handle(tmp_path)  # as a replayed letter


@pytest.mark.parametrize("error", [TransientError("peer away"), None], ids=str)
async def test_what_ends_is_no_death_however_often_it_is_tried(tmp_path: Path, error: Any) -> None:
    for _ in range(3 * MOST_DEATHS):
        with suppress(TransientError):
            await handle(tmp_path, error=error)
    await handle(tmp_path)


async def test_a_cancelled_handler_is_no_death(tmp_path: Path) -> None:
    for _ in range(3 * MOST_DEATHS):
        with suppress(asyncio.CancelledError):
            await handle(tmp_path, error=asyncio.CancelledError())
    await handle(tmp_path)


@pytest.mark.parametrize("error", [None, PermanentError("as it is")], ids=["done", "buried"])
async def test_a_message_that_is_settled_leaves_no_count(tmp_path: Path, error: Any) -> None:
    for _ in range(2 * MOST_DEATHS):
        await die(tmp_path)
        with suppress(PermanentError):
            await handle(tmp_path, error=error)
    assert marked(tmp_path) == []


async def test_two_that_saw_a_death_are_never_handled_at_once_by_a_process(tmp_path: Path) -> None:
    for number in (1, 2):
        await die(tmp_path, number)
    here = Suspects(tmp_path)
    async with here.watching(message(1, delivery=3)):
        with pytest.raises(SuspectInHand):
            async with here.watching(message(2, delivery=3)):
                pass
        async with here.watching(message(3, delivery=2)):
            pass  # saw none
    async with here.watching(message(2, delivery=3)):
        pass


async def test_a_suspect_that_lives_keeps_nobody_waiting_and_is_forgiven(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in (1, 2):
        await die(tmp_path, number)
    monkeypatch.setattr(suspects, "ALONE_S", 0.0)
    monkeypatch.setattr(suspects, "FORGIVEN_S", 0.0)
    here = Suspects(tmp_path)
    async with here.watching(message(1, delivery=3)):
        await asyncio.sleep(0.01)
        async with here.watching(message(2, delivery=3)):
            await asyncio.sleep(0.01)
        assert marked(tmp_path) == []


async def test_a_home_that_takes_no_marks_handles_messages_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    await handle(tmp_path / "file")
