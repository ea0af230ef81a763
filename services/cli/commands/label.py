"""`sluice label`: raters label rows, double-blind; an expert adjudicates; kappa decides."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from services.cli.options import Json

if TYPE_CHECKING:
    from contracts.data import LineAgreement
    from shared.labelling import Question, Round

RECALIBRATE = 3


def label(
    file: Annotated[Path, typer.Argument(help="JSON Lines of rows to label.")],
    rater: Annotated[str | None, typer.Option(help="Who labels; a pseudonym will do.")] = None,
    labels: Annotated[str, typer.Option(help="The labels, comma-separated.")] = "keep,reject",
    line: Annotated[
        list[str] | None, typer.Option(help="A line of the rubric; give it once for each line.")
    ] = None,
    adjudicate: Annotated[
        bool, typer.Option("--adjudicate", help="Decide the rows that raters dispute.")
    ] = False,
    round_number: Annotated[
        int, typer.Option("--round", min=1, help="A recalibrated rubric begins the next round.")
    ] = 1,
    minimum_kappa: Annotated[float, typer.Option(help="Agreement below this stops.")] = 0.70,
    write: Annotated[
        Path | None, typer.Option(help="Write all labels, for `curation.annotations` of a job.")
    ] = None,
    json: Json = False,
) -> None:
    """Label rows, or with no --rater show how well raters agree.

    Exit code: 3 where raters agree too little and the rubric wants recalibration.
    """
    from shared.labelling import Round, read_rows

    names = [name.strip() for name in labels.split(",") if name.strip()]
    here = Round.of(file, read_rows(file), line or ["label"], round_number)
    if rater is not None:
        asked = here.disputes(rater) if adjudicate else here.questions(rater)
        for question in asked:
            if not adjudicate and (low := here.halted(minimum_kappa)):
                _stop(low, minimum_kappa)
            answer = ask(question, names)
            if answer is None:
                break
            here.record(rater, question, answer)
    if write is not None:
        content = "".join(a.model_dump_json() + "\n" for a in here.annotations())
        write.write_text(content, encoding="utf-8")
    _report(here, minimum_kappa, json=json)


def ask(question: Question, names: list[str]) -> str | None:
    """A label, or None to stop for now."""
    print(f"\n{question.text}")
    if question.given:
        print(f"  raters said: {', '.join(question.given)}")
    keys = "  ".join(f"{i} {name}" for i, name in enumerate(names, start=1))
    while True:
        said = typer.prompt(f"{question.line}?  {keys}  q stop", err=True).strip()
        if said == "q":
            return None
        if said in names:
            return str(said)
        if said.isdigit() and 1 <= int(said) <= len(names):
            return names[int(said) - 1]


def _stop(low: list[LineAgreement], minimum: float) -> None:
    from services.cli.reporting import note

    for line in low:
        note(
            f"error: {line.line}: kappa is {line.kappa:.2f} over {line.items} rows, below {minimum}"
        )
    note("mend: stop labelling, rewrite the rubric with the disputed rows, begin the next --round")
    raise typer.Exit(RECALIBRATE)


def _report(here: Round, minimum: float, *, json: bool) -> None:
    from services.cli.reporting import emit
    from shared.annotations import below, uncertain
    from shared.statistics.agreement import disputes

    lines, labels = here.agreement()
    worst = {line.line: disputes(labels[line.line].votes)[:10] for line in lines}
    open_disputes = {line.line: labels[line.line].undecided() for line in lines}
    low = below(lines, minimum)
    if json:
        emit(
            {
                "lines": [line.model_dump(mode="json") for line in lines],
                "disputes": worst,
                "undecided": open_disputes,
                "recalibrate": [line.line for line in low],
            }
        )
    elif not lines:
        print("no row has labels of two raters yet")
    else:
        for line in lines:
            span = line.interval
            kappa = "no evidence" if line.kappa is None else f"{line.kappa:.2f}"
            inside = f" [{span.low:.2f}, {span.high:.2f}]" if span else ""
            size = f"{line.items} rows, {line.raters} raters"
            still = f"{len(open_disputes[line.line])} disputes open"
            print(f"{line.line}: {line.kind} kappa {kappa}{inside}, {size}, {still}")
            for item, share in worst[line.line]:
                print(f"  {item}: {share:.0%} of its pairs of labels differ")
        for sentence in uncertain(lines, minimum):
            print(f"warning: {sentence}")
    if low:
        raise typer.Exit(RECALIBRATE)
