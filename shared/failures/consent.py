"""May rows that were made from failures be trained on (H7)?

A failure log shows what went wrong, not that weights are at fault. Training on it is allowed only
where its diagnosis says adaptation; otherwise the cheaper mend comes first.
"""

from __future__ import annotations

from contracts.base import Problem
from contracts.failures import FailureReport


def may_train_on(report: FailureReport, where: str = "failures") -> tuple[Problem, ...]:
    """What speaks against it; empty where adaptation is the leading cause, alone at the top."""
    if not report.findings:
        return (
            Problem(
                where=where,
                problem=f"none of {report.traces} traces shows a cause",
                mend="log corrections, errors and retrieved context, then diagnose again",
            ),
        )
    first = report.findings[0]
    leading = [f for f in report.findings if f.share.value == first.share.value]
    if [finding.cause for finding in leading] == ["adaptation"]:
        return ()
    other = next(finding for finding in leading if finding.cause != "adaptation")
    of = sum(len(cluster.traces) for cluster in other.clusters)
    traces = ", ".join(other.clusters[0].traces[:5])
    return (
        Problem(
            where=where,
            problem=f"the failure log's leading cause is the {other.title} "
            f"({of} of {report.traces} traces, such as {traces}), not adaptation",
            mend=other.intervention,
        ),
    )
