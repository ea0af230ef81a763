"""`sluice data`: curate without a run, and say what became of a row."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from services.cli.commands.adjudicate import adjudicate
from services.cli.options import DEFAULT_TENANT, Json, Tenant

if TYPE_CHECKING:
    from collections.abc import Iterator

    from services.cli.lineage import ReadLines

app = typer.Typer(help="Datasets: curate without a run, explain a row.", no_args_is_help=True)
app.command()(adjudicate)
HALTED = 3


@app.command()
def curate(
    file: Annotated[Path, typer.Argument(help="The job, YAML or JSON; only its data is read.")],
    out: Annotated[Path, typer.Option(help="The folder for the dataset.")] = Path("dataset"),
    tenant: Annotated[
        str | None, typer.Option(envvar="SLUICE_TENANT", help="Must be the job's own.")
    ] = None,
    json: Json = False,
) -> None:
    """Curate a job's data into a folder: no broker, no model, nothing synthesized.

    Exit code: 3 where the data must not be trained on as it is.
    """
    import json as codec
    import subprocess
    import sys

    from services.cli.jobfile import read_own_job
    from services.cli.pinning import pin
    from services.cli.session import settings_here
    from shared.artifacts import ArtifactStore
    from shared.errors import PermanentError

    job, source = read_own_job(file, tenant)
    pinned, _ = pin(job, source, ArtifactStore(settings_here().artifacts_url))
    done = subprocess.run(
        [sys.executable, "-m", "services.curation.alone", str(out)],
        input=pinned.model_dump_json(by_alias=True).encode(),
        stdout=subprocess.PIPE,
        check=False,
    )
    if done.returncode not in (0, HALTED):
        raise PermanentError("curation ended without an outcome", mend="see its error above")
    found = codec.loads(done.stdout)
    if json:
        print(done.stdout.decode().strip())
    else:
        _tell(found)
    if done.returncode:
        raise typer.Exit(done.returncode)


def _tell(found: dict[str, Any]) -> None:
    from services.cli.reporting import note

    if found["outcome"] != "curated":
        for problem in found["problems"]:
            note(f"error: {problem['where']}: {problem['problem']}")
            note(f"mend: {problem['mend']}")
        return
    rows = ", ".join(f"{count} {name}" for name, count in found["rows"].items())
    print(f"dataset {found['dataset']} in {found['folder']}: {rows}")
    for stage in found["stages"]:
        why = stage["dropped"] | stage["changed"]
        listed = ", ".join(f"{reason} {count}" for reason, count in why.items())
        print(f"  {stage['stage']:<20} {stage['rows_in']:>8} → {stage['rows_out']:<8} {listed}")
    for warning in found["warnings"]:
        print(f"warning: {warning}")


@app.command()
def explain(
    row: Annotated[str, typer.Argument(help="A row's id, or file:line of its source.")],
    data: Annotated[Path, typer.Option(help="A folder of `sluice data curate`.")] = Path("dataset"),
    run: Annotated[str | None, typer.Option(help="A run instead: `run` or `tenant/run`.")] = None,
    tenant: Tenant = DEFAULT_TENANT,
    json: Json = False,
) -> None:
    """Where a row came from, what was changed in it, and why it is or is not in the dataset."""
    from services.cli.lineage import explain as explained
    from services.cli.reporting import emit

    story = explained(row, _of_folder(data) if run is None else _of_run(run, tenant))
    if json:
        emit(story.entry | {"redactions": list(story.redactions)})
    else:
        print("\n".join(story.lines()))


def _of_folder(folder: Path) -> ReadLines:
    from contracts.base import Problem
    from shared.errors import InvalidInput

    if not (folder / "lineage.jsonl").is_file():
        mend = "name a folder of `sluice data curate`, or a run with --run"
        raise InvalidInput([Problem(where=str(folder), problem="is no dataset", mend=mend)])
    return lambda name: _lines(folder / name)


def _of_run(name: str, tenant: str) -> ReadLines:
    import tempfile

    from contracts.data import DatasetCard
    from services.cli.reading import load_run
    from services.cli.session import Session, perform, run_ref
    from shared.artifacts import ArtifactStore
    from shared.errors import PermanentError

    ref = run_ref(name, tenant)

    async def work(opened: Session) -> tuple[ArtifactStore, DatasetCard]:
        run = await load_run(opened, ref)
        if run.dataset is None:
            raise PermanentError(f"run {ref} has no dataset", mend="see `sluice show`")
        store = ArtifactStore(opened.settings.artifacts_url)
        return store, DatasetCard.model_validate_json(store.get(run.dataset.card))

    store, card = perform(work)

    def lines(name: str) -> Iterator[bytes]:
        with tempfile.TemporaryDirectory() as folder:
            yield from _lines(store.fetch(card.files[name], Path(folder) / name))

    return lines


def _lines(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        yield from file


@app.command()
def feedback(
    interactions: Annotated[
        Path, typer.Argument(help="JSON Lines of `sluice schema interaction`, your own log.")
    ],
    out: Annotated[Path, typer.Option(help="The file of rows.")] = Path("feedback.jsonl"),
    given: Annotated[
        Path | None,
        typer.Option("--feedback", help="JSON Lines of feedback; by default what the broker has."),
    ] = None,
    tenant: Tenant = DEFAULT_TENANT,
    json: Json = False,
) -> None:
    """Thumbs, corrections and overrides as redacted rows for preference tuning, with consent."""
    import json as codec
    import subprocess
    import sys
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        source = given
        if source is None:
            source = Path(folder) / "feedback"
            source.write_bytes(_heard(tenant))
        done = subprocess.run(
            [sys.executable, "-m", "services.curation.feedback", tenant, str(interactions),
             str(source), str(out)],
            stdout=subprocess.PIPE,
            check=False,
        )  # fmt: skip
    if done.returncode:
        raise typer.Exit(done.returncode)
    found = codec.loads(done.stdout)
    if json:
        print(done.stdout.decode().strip())
        return
    listed = ", ".join(f"{count} {kind}" for kind, count in found["rows"].items())
    print(f"{out}: {listed or 'no rows'}")
    for what in ("left_out", "redacted"):
        for reason, count in found[what].items():
            print(f"  {what.replace('_', ' ')}: {reason} {count}")


def _heard(tenant: str) -> bytes:
    """The tenant's feedback that the broker still has, as JSON Lines."""
    from contracts.subjects import PREFIX
    from services.cli.reading import messages
    from services.cli.session import Session, perform

    async def work(opened: Session) -> bytes:
        subject = f"{PREFIX}.telemetry.{tenant}.*.feedback"
        found = [m.data async for m in messages(opened.js, "TELEMETRY", subject)]
        return b"".join(line + b"\n" for line in found)

    heard: bytes = perform(work)
    return heard
