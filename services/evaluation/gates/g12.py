"""G12, other words: the success does not hang on the wording it was trained with.

Each held-out request is asked again in another dress that leaves its meaning alone. Of the
candidate's success at least the policy's share must remain. Two small suites say whether the
candidate still answers outside its domain (tunnel vision) and still objects to a false premise
(overconfidence). They are too small to show that nothing was lost; they fail a candidate that has
for sure lost more than the policy allows against the base.
"""

from __future__ import annotations

from collections.abc import Sequence

from contracts.data import Message, Row
from contracts.evaluation import Remediation
from contracts.measure import VerdictName
from services.evaluation.gates.judgement import (
    Judgement,
    changed_examples,
    same_items,
    success,
    two_sided,
)
from shared.asking import Scored
from shared.statistics import compare_paired, mean_with_interval, paired_bootstrap

DRESSES = (
    "Hello! I have a request.\n\n{}\n\nThank you.",
    "### Request\n\n{}",
    "{}\n\nPlease take care to get this right.",
    "A colleague asked me this:\n> {}\n\nWhat should I send back?",
    "request:   {}   ",
    "{}\n\n(sent from my phone)",
)
"""Paraphrases of the frame, changes of format; the request itself keeps its words and values."""

_REMEDIATION: dict[VerdictName, Remediation] = {
    "passed": "none",
    "failed": "vary_prompts",
    "inconclusive": "more_items",
}


def dressed(rows: Sequence[Row]) -> list[Row]:
    """Each row with its last user turn in another dress, the dresses taking turns."""
    return [_dress(row, DRESSES[number % len(DRESSES)]) for number, row in enumerate(rows)]


def _dress(row: Row, dress: str) -> Row:
    turns = list(row.messages)
    last = max((i for i, turn in enumerate(turns) if turn.role == "user"), default=None)
    if last is None:
        return row
    turns[last] = Message(role="user", content=dress.format(turns[last].content))
    return row.model_copy(update={"messages": tuple(turns)})


def judge(
    plain: Sequence[Scored],
    perturbed: Sequence[Scored],
    *,
    minimum_retained: float,
    level: float,
    maximum_loss: float = 1.0,
    unseen: tuple[Sequence[float], Sequence[float]] = ((), ()),
    premises: tuple[Sequence[float], Sequence[float]] = ((), ()),
) -> Judgement:
    """`plain` and `perturbed` are the candidate's; `unseen` and `premises` are (base, candidate).

    Judged by the mean of perturbed − share · plain, whose one-sided bounds at `level` must lie on
    one side of zero, and failed where the whole interval of a suite from elsewhere lies below
    −`maximum_loss`. Raises PermanentError if plain and perturbed are of different items.
    """
    same_items(plain, perturbed)
    clusters = [s.cluster for s in plain]
    kept = [p.value - minimum_retained * s.value for s, p in zip(plain, perturbed, strict=True)]
    bounds = paired_bootstrap(kept, clusters, level=two_sided(level))
    verdict: VerdictName = "inconclusive"
    if any(s.value for s in plain):
        verdict = "passed" if bounds.low >= 0 else "failed" if bounds.high < 0 else "inconclusive"
    compared = compare_paired(
        "success_in_other_words",
        [s.value for s in plain],
        [s.value for s in perturbed],
        clusters,
        level=two_sided(level),
    )
    shown = f"{compared.baseline:.1%} → {compared.candidate:.1%} on {compared.n} items"
    said = {
        "passed": f"Success in other words {shown}: at least {minimum_retained:.0%} of it remains.",
        "failed": f"Success in other words {shown}: less than {minimum_retained:.0%} remains.",
        "inconclusive": f"Success in other words {shown}: too few successes to say whether "
        f"{minimum_retained:.0%} remains.",
    }[verdict]
    extra = [
        compare_paired(name, *pair, level=two_sided(level))
        for name, pair in (("unseen_domains", unseen), ("false_premises", premises))
        if pair[0]
    ]
    if lost := [c for c in extra if c.interval.high < -maximum_loss]:
        verdict = "failed"
        said += " " + " ".join(
            f"On {c.metric.replace('_', ' ')} it went {c.baseline:.0%} → {c.candidate:.0%}, "
            f"{100 * maximum_loss:.0f} points may be lost."
            for c in lost
        )
    return Judgement(
        gate="G12",
        verdict=verdict,
        summary=said,
        measurements=(
            success("success_in_training_words", plain, level),
            mean_with_interval(
                "success_in_other_words",
                [s.value for s in perturbed],
                clusters,
                level=two_sided(level),
            ),
        ),
        comparisons=(compared, *extra),
        changed=changed_examples(plain, perturbed) if verdict != "passed" else (),
        remediation=_REMEDIATION[verdict],
    )
