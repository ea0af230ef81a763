"""The root causes of a failure log, in words and for machines."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from contracts.base import Problem
from contracts.failures import FailureReport
from shared.errors import InvalidInput
from shared.failures import analyse, may_train_on, read_traces

SHOWN = 3


def read_failures(file: Path) -> tuple[FailureReport, Sequence[Problem]]:
    """The report on a log (`-` is standard input), and why it may not be trained on.

    Raises:
        InvalidInput: the file cannot be read, or holds a malformed trace.
    """
    try:
        content = sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()
    except OSError as error:
        raise InvalidInput(
            [Problem(where=str(file), problem=str(error.strerror), mend="name a readable file")]
        ) from error
    report = analyse(read_traces(content, file.name))
    return report, tuple(may_train_on(report, file.name))


def findings_as_json(report: FailureReport, refused: Sequence[Problem]) -> dict[str, Any]:
    """The published report, and whether it may be trained on."""
    return report.model_dump(mode="json", by_alias=True) | {
        "may_train": not refused,
        "problems": [problem.model_dump() for problem in refused],
    }


def findings(report: FailureReport, refused: Sequence[Problem]) -> list[str]:
    """Lines: the ranked causes with their evidence, and what the log may be used for."""
    lines = [f"{report.traces} traces"]
    for finding in report.findings:
        share, interval = finding.share, finding.share.interval
        assert interval is not None
        lines += [
            f"\n{finding.title}: {share.value:.1%} [{interval.low:.1%}, {interval.high:.1%}], "
            f"{round(share.value * share.n)} traces",
            f"  do: {finding.intervention}",
            f"  guardrail: {finding.guardrail}",
            *(f"  evidence: {name} ({n})" for name, n in list(finding.signals.items())[:SHOWN]),
            *(
                f"  like: {cluster.example[:70]!r}: {', '.join(cluster.traces[:5])}"
                for cluster in finding.clusters[:SHOWN]
            ),
        ]
    if report.undetermined:
        lines.append(f"\nundetermined: {', '.join(report.undetermined[:10])}")
    if refused:
        lines.append(f"\nnot to be trained on: {refused[0].problem}")
    else:
        lines.append("\nadaptation leads: rows curated from these traces may be trained on")
    return lines
