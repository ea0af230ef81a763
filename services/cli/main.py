"""The command line, `sluice`.

Each command is a file under `commands/` and imports what it needs when it runs, so that
`sluice --help` is quick. Results go to stdout (`--json` for machines), errors to stderr as
`error: …` and `mend: …`. Exit codes: 2 invalid input, 69 the broker or serving cannot be reached,
1 any other error; `watch` ends with the run's outcome (see `services.cli.outcome`).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from services.cli.commands import (
    adapters,
    alerts,
    card,
    compare,
    credentials,
    data,
    dead,
    diagnose,
    doctor,
    economics,
    failures,
    gate,
    history,
    keys,
    label,
    merge,
    package,
    provision,
    revocations,
    runs,
    scaling,
    schema,
    show,
    steer,
    submit,
    up,
    verify,
    watch,
)
from services.cli.reporting import ReportingGroup

app = typer.Typer(
    cls=ReportingGroup,
    name="sluice",
    help="Gates on the stream of model adaptation.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,  # rich would double the time of --help
    pretty_exceptions_show_locals=False,
)


@app.callback()
def everywhere(
    home: Annotated[
        Path | None,
        typer.Option(help="Where keys, models and artifacts are. [SLUICE_HOME, default .sluice]"),
    ] = None,
    nats_url: Annotated[
        str | None, typer.Option(help="The broker. [SLUICE_NATS_URL, default: the one of `up`]")
    ] = None,
) -> None:
    """Gates on the stream of model adaptation."""
    if home is not None:
        os.environ["SLUICE_HOME"] = str(home)
    if nats_url is not None:
        os.environ["SLUICE_NATS_URL"] = nats_url


app.command()(up.up)
app.command()(submit.submit)
app.command()(diagnose.diagnose)
app.command()(watch.watch)
app.command()(runs.runs)
app.command()(show.show)
app.command()(compare.compare)
app.command()(history.history)
app.command()(gate.gate)
app.command()(steer.cancel)
app.command()(steer.retry)
app.command()(steer.approve)
app.command()(steer.hold)
app.command()(steer.rollback)
app.command()(steer.withdraw)
app.command()(steer.observe)
app.command()(revocations.revocations)
app.command()(card.card)
app.command()(verify.verify)
app.command()(package.package)
app.command()(keys.countersign)
app.add_typer(keys.app, name="keys")
app.command()(alerts.alerts)
app.command()(alerts.remedies)
app.add_typer(adapters.app, name="adapters")
app.add_typer(dead.app, name="dead")
app.add_typer(data.app, name="data")
app.command()(failures.failures)
app.command()(economics.economics)
app.command()(label.label)
app.command()(scaling.scaling)
app.command()(merge.merge)
app.command()(schema.schema)
app.command()(doctor.doctor)
app.command()(provision.provision)
app.command()(credentials.credentials)

if __name__ == "__main__":
    app()
