"""`sluice data adjudicate`: a person decides the rows on which two judges diverge."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from services.cli.options import DEFAULT_TENANT, Json, Tenant


def adjudicate(
    records: Annotated[
        Path | None, typer.Argument(help="Records of a generation, if not of a --run.")
    ] = None,
    run: Annotated[str | None, typer.Option(help="A run: `run` or `tenant/run`.")] = None,
    by: Annotated[
        str | None, typer.Option(help="Who decides; without it, only what is decided is shown.")
    ] = None,
    out: Annotated[Path, typer.Option(help="The file of accepted rows.")] = Path(
        "adjudicated.jsonl"
    ),
    gold: Annotated[
        Path | None, typer.Option(help="Also write all decisions, for `synthesis.panel.gold`.")
    ] = None,
    minimum_score: Annotated[float, typer.Option(help="As in the job's panel.")] = 4.0,
    tenant: Tenant = DEFAULT_TENANT,
    json: Json = False,
) -> None:
    """Decide rows that judges diverge on: blind, resumable, with both votes."""
    from services.cli.adjudicating import DECISIONS, Adjudication, diverged
    from services.cli.commands.label import ask
    from services.cli.reporting import emit

    content = _of_run(run, tenant) if run is not None else _of_file(records)
    here = Adjudication(out, tuple(diverged(content.splitlines())))
    if by is not None:
        for one in list(here.open()):
            said = ask(one.question(), list(DECISIONS))
            if said is None:
                break
            here.record(one.row, "accept" if said == "accept" else "reject", by)
    accepted = here.write()
    if gold is not None:
        here.write_gold(gold)
    found = {
        "rows": len(here.rows),
        "accepted": accepted,
        "rejected": len(here.decisions()) - accepted,
        "open": len(list(here.open())),
        "sided_with": {
            judge: {"rows": right, "of": total}
            for judge, (right, total) in here.sided_with(minimum_score).items()
        },
        "out": str(out),
    }
    if json:
        emit(found)
        return
    print(f"{out}: {accepted} of {found['rows']} rows accepted, {found['rejected']} rejected, "
          f"{found['open']} open")  # fmt: skip
    for judge, (right, total) in here.sided_with(minimum_score).items():
        print(f"  {judge}: {right} of {total} rows were decided as it voted")


def _of_file(records: Path | None) -> bytes:
    from contracts.base import Problem
    from shared.errors import InvalidInput

    try:
        if records is not None:
            return records.read_bytes()
        problem = "neither records nor a run is named"
    except OSError as error:
        problem = f"{records}: {error.strerror}"
    mend = "name the records of a generation, or a run with --run"
    raise InvalidInput([Problem(where="RECORDS", problem=problem, mend=mend)])


def _of_run(name: str, tenant: str) -> bytes:
    from services.cli.reading import load_run
    from services.cli.session import Session, perform, run_ref
    from shared.artifacts import ArtifactStore
    from shared.errors import PermanentError

    ref = run_ref(name, tenant)

    async def work(opened: Session) -> bytes:
        run = await load_run(opened, ref)
        if run.synthesized is None or run.synthesized.records is None:
            raise PermanentError(f"run {ref} has no records of judges", mend="see `sluice show`")
        return ArtifactStore(opened.settings.artifacts_url).get(run.synthesized.records)

    content: bytes = perform(work)
    return content
