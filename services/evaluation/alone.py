"""Gates without a run: `python -m services.evaluation.alone`, which `sluice gate` starts.

Base and candidate are names at one OpenAI-compatible endpoint; `OPENAI_API_KEY` opens it. Where the
endpoint is our own engine, `--adapter` and `--checkpoint` name the folders behind the two names,
and G2, G5's suite and G7's canaries can be asked as well. `all` asks every gate and says how long
each took. Exit code: 0 passed, 3 failed, 4 inconclusive.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from contracts.data import Canary, Row, parse_row
from contracts.job import AdaptationJob, Behaviour, GateId, GatePolicy, GeneralSuite
from services.evaluation.chain import Timed, chain, timed, together
from services.evaluation.gates.judgement import Judgement
from services.evaluation.report import junit, markdown
from services.evaluation.subject import Alone, Subject
from shared.asking import Asker
from shared.errors import SluiceError
from shared.settings import Settings

ALL = "ALL"
EXIT = {"passed": 0, "failed": 3, "inconclusive": 4}
_OWN_SUITE: tuple[str, ...] = ("G2", "G5", "G6")
"""Gates that can do without `--suite`."""
GATES: tuple[str, ...] = get_args(GateId)


@dataclass(frozen=True, slots=True, kw_only=True)
class Material:
    """The rows that gates are asked with."""

    suite: Sequence[Row] | None
    train: Sequence[Row] | None
    canaries: Sequence[Canary]

    def of(self, gate: str, *, alone: bool) -> Sequence[Row] | None:
        """Held-out rows, of G7 training rows. In the chain G5 and G6 have their own suites."""
        if gate == "G7" and self.train is not None:
            return self.train
        return None if gate in _OWN_SUITE and not alone else self.suite


def _lines(path: Path | None) -> list[bytes]:
    return [] if path is None else [n for n in path.read_bytes().splitlines() if n.strip()]


def _rows(path: Path | None) -> list[Row] | None:
    return None if path is None else [parse_row(line) for line in _lines(path)]


async def run(options: argparse.Namespace) -> tuple[Timed, ...]:
    """Ask the endpoint and judge."""
    material = Material(
        suite=_rows(options.suite),
        train=_rows(options.train),
        canaries=[Canary.model_validate_json(line) for line in _lines(options.canaries)],
    )
    subject = Subject(
        url=options.url,
        key=os.environ.get("OPENAI_API_KEY", "unused"),
        base=options.base,
        candidate=options.candidate,
        adapter=options.adapter,
        checkpoint=options.checkpoint,
        merged=options.merged,
    )
    job = AdaptationJob.model_validate_json(options.job.read_bytes()) if options.job else None
    general = job.evaluation.general if job else GeneralSuite()
    if options.limit is not None:
        general = general.model_copy(update={"limit": options.limit})
    with tempfile.TemporaryDirectory() as answers:
        async with Asker(subject.url, subject.key, Path(answers)) as asker:
            alone = Alone(
                subject=subject,
                asker=asker,
                behaviour=_behaviour(options, job),
                policy=job.gates if job else GatePolicy(),
                general=general,
                harness_tasks=Settings().harness_tasks,
                garak=options.garak,
            )

            async def judge(gate: GateId) -> Judgement:
                rows = material.of(gate, alone=options.gate != ALL)
                return await alone.judge(gate, rows, material.canaries)

            return (
                await chain(judge) if options.gate == ALL else (await timed(judge, options.gate),)
            )


def _behaviour(options: argparse.Namespace, job: AdaptationJob | None) -> Behaviour:
    """The job's, or a plain one; `--scorer` and `--max-tokens` have the last word."""
    plain = Behaviour(description="a gate alone", scorer="exact_match", target=1.0)
    named = {"scorer": options.scorer, "max_tokens": options.max_tokens}
    given = {name: value for name, value in named.items() if value is not None}
    behaviour = job.behaviour if job else plain
    return Behaviour.model_validate({**behaviour.model_dump(), **given})


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; see the module's docstring."""
    parser = argparse.ArgumentParser(prog="python -m services.evaluation.alone")
    parser.add_argument("gate", choices=(*GATES, ALL))
    parser.add_argument("--candidate", required=True)
    parser.add_argument("--base", required=True)
    parser.add_argument("--url", required=True)
    for name in ("adapter", "checkpoint", "suite", "train", "canaries", "job", "junit", "markdown"):
        parser.add_argument(f"--{name}", type=Path)
    parser.add_argument("--scorer")
    parser.add_argument("--max-tokens", type=int)
    parser.add_argument("--limit", type=int)
    parser.add_argument("--garak")
    parser.add_argument("--merged", action="store_true")
    options = parser.parse_args(arguments)
    if options.merged and options.gate != "G2":
        parser.error("only G2 can be asked of a merged checkpoint against its adapter")
    rows = options.suite or (options.train if options.gate == "G7" else None)
    if options.gate not in _OWN_SUITE and rows is None:
        parser.error(f"{options.gate} needs --suite")
    if options.gate == ALL and options.train is None:
        parser.error("all gates need --train as well, for G7")
    began = time.monotonic()
    try:
        gates = asyncio.run(run(options))
    except (SluiceError, OSError, ValueError) as error:
        mend = getattr(error, "mend", "")
        print(f"error: {error}" + (f"\nmend: {mend}" if mend else ""), file=sys.stderr)
        return 2
    if options.junit:
        options.junit.write_text(junit(gates), encoding="utf-8")
    text = markdown(gates, time.monotonic() - began)
    if options.markdown:
        options.markdown.write_text(text, encoding="utf-8")
    print(text, end="")
    return EXIT[together([gate.judged.verdict for gate in gates])]


if __name__ == "__main__":
    sys.exit(main())
