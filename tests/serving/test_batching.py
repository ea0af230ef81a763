"""Admission: users first, and background traffic that neither crowds out nor starves."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from services.serving.engine.batching import admissible


class NothingCached:
    def covered(self, keys: tuple[bytes, ...]) -> int:
        return 0


def request(priority: int) -> Any:
    return SimpleNamespace(
        request=SimpleNamespace(priority=priority), keys=(), prefilling=False, computed=0
    )


def admitted(running: list[int], waiting: list[int], free: int) -> list[int]:
    """Priorities of those that enter."""
    chosen = admissible(
        [request(p) for p in waiting],
        [request(p) for p in running],
        free,
        NothingCached(),  # type: ignore[arg-type]
    )
    return [sequence.request.priority for sequence in chosen]


@pytest.mark.req("G8")
@pytest.mark.parametrize(
    ("running", "waiting", "free", "enters"),
    [
        pytest.param([0] * 8, [10, 10], 24, [10, 10], id="mirrors-run-beside-users"),
        pytest.param([0] * 8, [10] * 9, 24, [10] * 4, id="but-hold-an-eighth-of-the-slots"),
        pytest.param([0] * 8 + [10] * 4, [10], 20, [], id="and-no-more"),
        pytest.param([0] * 4 + [10], [0, 10], 3, [0], id="users-always-enter"),
        pytest.param([], [10] * 4, 8, [10] * 4, id="an-idle-engine-takes-all"),
        pytest.param([0], [10], 1, [10], id="a-small-engine-takes-one"),
    ],
)
def test_background_requests_get_their_share(
    running: list[int], waiting: list[int], free: int, enters: list[int]
) -> None:
    assert admitted(running, waiting, free) == enters
