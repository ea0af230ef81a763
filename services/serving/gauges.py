"""What an engine's pool holds, as metrics: names in Prometheus have `_` for `.`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from opentelemetry import metrics
from opentelemetry.metrics import CallbackOptions, Meter, Observation

from services.serving.engine.port import EngineStats
from shared.metrics import METER

Read = Callable[[EngineStats], Mapping[str, float]]
"""State → value."""


def observe(stats: Callable[[], EngineStats | None], meter: Meter | None = None) -> None:
    """Report `stats`, read whenever metrics are collected; nothing where an engine has none."""
    meter = meter or metrics.get_meter(METER)

    def reading(read: Read) -> Callable[[CallbackOptions], Iterable[Observation]]:
        def observed(_: CallbackOptions) -> Iterable[Observation]:
            now = stats()
            if now is None:
                return []
            return [Observation(v, {"sluice.state": state}) for state, v in read(now).items()]

        return observed

    gauges: dict[str, tuple[str, str, Read]] = {
        "sluice.pool.size": (
            "By",
            "Pages of the engine's pool, in bytes.",
            lambda s: {
                "free": s.pages_free * s.page_bytes,
                "cached": s.pages_cached * s.page_bytes,
                "held": s.pages_held * s.page_bytes,
            },
        ),
        "sluice.pool.adapters": (
            "By",
            "Adapters by where they are; in the pool, with their pages.",
            lambda s: {"pool": s.pages_of_adapters * s.page_bytes, "host": s.host_bytes},
        ),
        "sluice.pool.waste": (
            "1",
            "Share of used pages in which nothing is written.",
            lambda s: {"used": s.waste},
        ),
        "sluice.engine.requests": (
            "{request}",
            "Requests in the engine.",
            lambda s: {"running": s.running, "waiting": s.waiting},
        ),
    }
    counters: dict[str, tuple[str, str, Read]] = {
        "sluice.pool.evictions": (
            "{block}",
            "Cached beginnings and idle adapters that made room.",
            lambda s: {"evicted": s.evictions},
        ),
        "sluice.engine.preemptions": (
            "{request}",
            "Requests that gave their pages up and started again.",
            lambda s: {"preempted": s.preemptions},
        ),
        "sluice.engine.prefix_blocks": (
            "{block}",
            "Blocks of prompts: found computed, or computed.",
            lambda s: {"hit": s.prefix_hits, "miss": s.prefix_misses},
        ),
    }
    for name, (unit, what, read) in gauges.items():
        meter.create_observable_gauge(name, [reading(read)], unit, what)
    for name, (unit, what, read) in counters.items():
        meter.create_observable_counter(name, [reading(read)], unit, what)


def observe_routing(waiting: Callable[[], int], meter: Meter | None = None) -> None:
    """Report how many runs are routed as they were, since a fact of theirs cannot be checked."""
    meter = meter or metrics.get_meter(METER)

    def observed(_: CallbackOptions) -> Iterable[Observation]:
        return [Observation(waiting())]

    meter.create_observable_gauge(
        "sluice.routing.waiting",
        [observed],
        "{run}",
        "Runs with facts that cannot be checked, as artifacts or keys are out of reach.",
    )
