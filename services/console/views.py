"""Pages and page fragments, rendered from the projection. Everything is escaped by default."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from contracts.alerts import Alert
from contracts.run import Run
from services.console import story
from services.console.facts import sentence
from services.console.projection import Projection
from services.console.verdicts import MARGIN, WIDTH, rung_numbers, verdict_rows

HERE = Path(__file__).parent
STATIC = HERE / "static"
FACTS_SHOWN = 300

_STATUS_WORDS = {"active": "under way", "declined": "no training needed"}
_UNITS = (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1))


def age(moment: datetime, now: datetime | None = None) -> str:
    """How long ago, in the largest unit that fits: `4 min`."""
    seconds = max(0, int(((now or datetime.now(UTC)) - moment).total_seconds()))
    for unit, size in _UNITS:
        if seconds >= size:
            return f"{seconds // size} {unit}"
    return "now"


def clock(moment: datetime, now: datetime | None = None) -> str:
    """The time, with its day where that is not today: `22:37:51`, `21 Nov 22:37:51`. In UTC."""
    moment = moment.astimezone(UTC)
    today = moment.date() == (now or datetime.now(UTC)).date()
    return moment.strftime("%H:%M:%S" if today else "%d %b %H:%M:%S")


def number(value: float) -> str:
    """A live number, short: `1,850`, `0.214`."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def path_of(run: Run) -> str:
    """The page of a run; whatever its names hold stays one path segment."""
    return f"/runs/{quote(run.ref.tenant, safe='')}/{quote(run.ref.run, safe='')}"


_ENVIRONMENT = Environment(
    loader=FileSystemLoader(HERE / "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_ENVIRONMENT.filters |= {
    "age": age,
    "clock": clock,
    "status": lambda status: _STATUS_WORDS.get(status, status.replace("_", " ")),
    "number": number,
    "sentence": sentence,
    "path": path_of,
    "words": lambda text: str(text).replace("_", " "),
    "moment": lambda at: datetime.fromtimestamp(at, UTC),
}
_ENVIRONMENT.globals |= {"width": WIDTH, "margin": MARGIN}


def render(template: str, **values: Any) -> str:
    return _ENVIRONMENT.get_template(template).render(**values)


def runs_fragment(projection: Projection) -> str:
    """The table of runs."""
    rows = [(run, story.current_stage(run)) for run in projection.runs()]
    counts = {
        "under way": sum(not run.closed for run, _ in rows),
        "promoted": sum(run.status == "promoted" for run, _ in rows),
        "no training needed": sum(run.status == "declined" for run, _ in rows),
        "stopped": sum(
            run.status in {"failed", "halted", "rejected", "rolled_back", "withdrawn"}
            for run, _ in rows
        ),
        "alerts firing": sum(alert.state == "firing" for alert in projection.alerts()),
    }
    return render("_runs.html", rows=rows, counts=counts)


def run_fragment(run: Run, projection: Projection) -> str:
    """The story of one run."""
    return render(
        "_run.html",
        run=run,
        rail=story.rail(run),
        ending=story.ending(run),
        verbs=story.verbs(run),
        news=[] if run.closed else projection.news(run.ref),
        alerts=alerts_of(run, projection),
        rungs=rung_numbers(run),
        verdicts=verdict_rows(run),
        facts=list(reversed(run.log[-FACTS_SHOWN:])),
    )


def alerts_of(run: Run, projection: Projection) -> list[Alert]:
    """Alerts on the run's adapter, firing first."""
    if run.registered is None:
        return []
    about = (run.ref.tenant, run.registered.deployment, run.registered.adapter_id)
    return [a for a in projection.alerts() if (a.tenant, a.deployment, a.model) == about]


def alerts_fragment(projection: Projection) -> str:
    """The table of alerts."""
    return render("_alerts.html", alerts=projection.alerts())


def page(
    title: str,
    body: str,
    *,
    live: str,
    here: str,
    heading: str | None = None,
    labelled: bool = False,
) -> str:
    """A whole page around a fragment that `live` keeps up to date.

    `labelled` says that there is a labelling page to link to.
    """
    return render(
        "page.html",
        title=title,
        heading=heading or title,
        body=Markup(body),
        live=live,
        here=here,
        labelled=labelled,
    )
