"""Numbers as people read them: a figure with its interval and its n."""

from __future__ import annotations

from contracts.measure import Comparison, Interval, Measurement


def share(value: float) -> str:
    return f"{100 * value:.1f} %"


def points(value: float) -> str:
    """A difference of proportions, in percentage points."""
    return f"{100 * value:+.1f}"


def measurement(row: Measurement) -> str:
    """`success 91.2 % [88.0, 93.9] n=400`; a value beyond 1 is no proportion and stays as it is."""
    if abs(row.value) > 1 or row.name.endswith(("_ms", "_s", "_bytes", "_nats", "ratio")):
        inside = "" if row.interval is None else _plain(row.interval)
        return f"{row.name} {row.value:.4g}{inside} n={row.n}"
    inside = "" if row.interval is None else _shares(row.interval)
    return f"{row.name} {share(row.value)}{inside} n={row.n}"


def comparison(row: Comparison) -> str:
    """`success 41.0 % → 88.5 %: +47.5 points [+42.1, +52.9] n=400`."""
    if max(abs(row.baseline), abs(row.candidate)) > 1:
        low, high = row.interval.low, row.interval.high
        text = (
            f"{row.metric} {row.baseline:.4g} → {row.candidate:.4g}: "
            f"{row.difference:+.4g} [{low:+.4g}, {high:+.4g}] n={row.n}"
        )
    else:
        text = (
            f"{row.metric} {share(row.baseline)} → {share(row.candidate)}: "
            f"{points(row.difference)} points "
            f"[{points(row.interval.low)}, {points(row.interval.high)}] n={row.n}"
        )
    if row.p_value is not None:
        text += f", p={row.p_value:.2g}"
    if row.detectable is not None:
        text += f", detects ≥ {row.detectable:.2g}"
    return text


def duration(seconds: float) -> str:
    """`4.2 s`, `3 min 05 s`, `2 h 07 min`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def size(count: float) -> str:
    """Bytes as `512 MiB`."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.4g} {unit}"
        count /= 1024
    return f"{count:.4g} TiB"


def _shares(interval: Interval) -> str:
    return f" [{100 * interval.low:.1f}, {100 * interval.high:.1f}]"


def _plain(interval: Interval) -> str:
    return f" [{interval.low:.4g}, {interval.high:.4g}]"
