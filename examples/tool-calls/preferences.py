"""Preference rows from the leaderboard's answers: the right call, and a wrong one to prefer it to.

The wrong answers are of the kinds that a small model writes: the call put into words, fenced, or
written as code, an argument left out, a value of another request. The job's own scorer must find
the right answer right and the wrong one wrong, or the row is left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from contracts.data import Row
from shared.scoring import ToolCall, tool_call
from shared.scoring.call import parse_call


def pairs(rows: Sequence[Row]) -> list[Row]:
    """Rows with the right call as `target` and a wrong answer as `rejected` (DPO)."""
    return [
        row.model_copy(update={"id": f"{row.id}-pair", "rejected": wrong})
        for row, wrong in _with_mistakes(rows)
    ]


def judged(rows: Sequence[Row]) -> list[Row]:
    """Single answers, two of three right, each marked `desirable` or not (KTO)."""
    found = []
    for number, (row, wrong) in enumerate(_with_mistakes(rows)):
        good = number % 3 != 2
        answer = {"target": row.target if good else wrong, "desirable": good}
        found.append(row.model_copy(update={"id": f"{row.id}-judged", **answer}))
    return found


def _with_mistakes(rows: Sequence[Row]) -> Iterator[tuple[Row, str]]:
    for number, row in enumerate(rows):
        other = parse_call(rows[(number + 1) % len(rows)].target or "")
        wrong = list(_mistakes(parse_call(row.target or ""), other))
        turned = wrong[number % len(wrong) :] + wrong[: number % len(wrong)]
        first = next((m for m in turned if tool_call(row, m).value < 1), None)
        if first is not None and tool_call(row, row.target or "").value == 1:
            yield row, first


def _mistakes(call: ToolCall, other: ToolCall) -> Iterator[str]:
    """Ways to get `call` wrong; `other` is the call of another request."""
    arguments = call.arguments
    said = ", ".join(f"{name} set to {value}" for name, value in arguments.items())
    yield f"You can call {call.name} with {said or 'no arguments'}."
    yield f"```json\n{call}\n```"
    if arguments:
        yield str(ToolCall(call.name, dict(list(arguments.items())[:-1])))
        name = next(iter(arguments))
        foreign = next(iter(other.arguments.values()), "unknown")
        yield str(ToolCall(call.name, {**arguments, name: foreign}))
    written = ", ".join(f"{name}={value!r}" for name, value in arguments.items())
    yield f"{call.name}({written})"
