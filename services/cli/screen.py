"""Where a live run is shown: JSON Lines, plain lines, or a terminal with a moving status line."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from contracts.envelope import Recorded
from contracts.progress import Progress
from contracts.run import Run
from services.cli import numbers
from services.cli.outcome import EXIT_CODES
from services.cli.reporting import emit, note
from services.cli.story import stopped_by, tell

PROGRESS_EVERY_S = 2.0
"""Plain lines show progress at most this often per stage."""


class View(Protocol):
    """What following a run shows."""

    def fact(self, record: Recorded) -> None: ...
    def progress(self, news: Progress) -> None: ...
    def waiting(self, text: str) -> None: ...
    def outcome(self, run: Run) -> None: ...


def fact_as_json(record: Recorded) -> dict[str, Any]:
    """A fact for machines."""
    return {
        "kind": "fact",
        "type": record.event.type_name(),
        "service": record.event.producer(),
        "at": record.at.isoformat(),
        "seq": record.seq,
        "id": record.id,
        "cause": record.cause,
        "data": record.event.model_dump(mode="json", by_alias=True),
    }


def outcome_as_json(run: Run) -> dict[str, Any]:
    """How a run ended, for machines."""
    stop = stopped_by(run)
    return {
        "kind": "outcome",
        "tenant": run.ref.tenant,
        "run": run.ref.run,
        "status": run.status,
        "attempt": run.attempt,
        "exit_code": EXIT_CODES.get(run.status),
        "adapter_id": run.promoted.adapter_id if run.promoted else None,
        "stopped_by": stop.headline if stop else None,
        "mends": list(stop.mends) if stop else [],
    }


class JsonView:
    """One JSON object a line."""

    def fact(self, record: Recorded) -> None:
        emit(fact_as_json(record))

    def progress(self, news: Progress) -> None:
        emit({"kind": "progress", **news.model_dump(mode="json")})

    def waiting(self, text: str) -> None:
        emit({"kind": "waiting", "message": text})

    def outcome(self, run: Run) -> None:
        emit(outcome_as_json(run))


class PlainView:
    """Lines of text. Progress is thinned, so that a log stays readable."""

    def __init__(self) -> None:
        self._shown: dict[str, float] = {}

    def line(self, text: str) -> None:
        print(text, flush=True)

    def fact(self, record: Recorded) -> None:
        telling = tell(record.event)
        mark = {"good": "✓", "bad": "✗", "plain": "·"}[telling.mood]
        clock = record.at.astimezone().strftime("%H:%M:%S")
        self.line(f"{clock} {mark} {telling.headline}")
        for detail in telling.details:
            self.line(f"           {detail}")
        for mend in telling.mends:
            self.line(f"           mend: {mend}")

    def progress(self, news: Progress) -> None:
        import time

        now = time.monotonic()
        if now - self._shown.get(news.stage, -PROGRESS_EVERY_S) >= PROGRESS_EVERY_S:
            self._shown[news.stage] = now
            self.line(f"           {progress_text(news)}")

    def waiting(self, text: str) -> None:
        self.line(f"           {text}")

    def outcome(self, run: Run) -> None:
        self.line(f"run {run.ref}: {run.status.replace('_', ' ')}")
        stop = stopped_by(run)
        if stop and run.status not in {"cancelled"}:
            self.line(f"  where: {stop.headline}")
            for mend in stop.mends:
                self.line(f"  mend: {mend}")


class AsideView(PlainView):
    """What goes on, aside on stderr; facts and outcome are the caller's to tell."""

    def line(self, text: str) -> None:
        note(text.strip())

    def fact(self, record: Recorded) -> None:
        pass

    def outcome(self, run: Run) -> None:
        pass


class TerminalView(PlainView):
    """Plain lines above a status line that moves."""

    def __init__(self, console: Any, status: Any) -> None:
        super().__init__()
        self._console = console
        self._status = status

    def line(self, text: str) -> None:
        style = {"✓": "green", "✗": "red"}.get(text[9:10])
        self._console.print(text, style=style, markup=False, highlight=False)

    def progress(self, news: Progress) -> None:
        self._update(progress_text(news))

    def waiting(self, text: str) -> None:
        self._update(text)

    def _update(self, text: str) -> None:
        from rich.text import Text

        self._status.update(Text(text))


def progress_text(news: Progress) -> str:
    """`training: step 12/40, loss 1.2, eta 0:31`."""
    text = f"{news.stage}: {news.message}"
    if news.total:
        text += f" {news.done:g}/{news.total:g} ({100 * news.done / news.total:.0f} %)"
    return text + "".join(f", {_value(name, value)}" for name, value in news.values.items())


def _value(name: str, value: float) -> str:
    if name.endswith("_bytes"):
        return f"{name.removesuffix('_bytes')} {numbers.size(value)}"
    if name.endswith("_per_s"):
        return f"{name.removesuffix('_per_s')}/s {value:.4g}"
    if name.endswith("_s"):
        return f"{name.removesuffix('_s')} {numbers.duration(value)}"
    return f"{name} {value:.4g}"


@contextmanager
def screen(*, json: bool) -> Iterator[View]:
    """The view that suits stdout."""
    if json:
        yield JsonView()
    elif not sys.stdout.isatty():
        yield PlainView()
    else:
        from rich.console import Console

        console = Console()
        with console.status("…") as status:
            yield TerminalView(console, status)
