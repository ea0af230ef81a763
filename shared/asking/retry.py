"""Asking again with the validator's complaint, at most so many times."""

from __future__ import annotations

from dataclasses import dataclass, replace

from contracts.data import Message, Row
from shared.asking.request import Answer
from shared.scoring import Validator

_AGAIN = "That answer cannot be used: {complaint}. Give the corrected answer and nothing else."


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """A validator, and how often a model may try again."""

    validator: Validator
    times: int
    """Requests after the first."""

    def again(self, row: Row, answer: Answer) -> Row | None:
        """The row to ask next: its own turns, the last answer and what is wrong with it.

        None if the answer is usable or the tries are spent.
        """
        if answer.requests > self.times:
            return None
        complaint = self.validator(row, answer.text)
        if not complaint:
            return None
        turns = (
            Message(role="assistant", content=answer.text),
            Message(role="user", content=_AGAIN.format(complaint=complaint.rstrip("."))),
        )
        return row.model_copy(update={"messages": (*row.messages, *turns)})


def together(first: Answer, then: Answer) -> Answer:
    """What the user gets (`then`) at the price of both."""
    return replace(
        then,
        latency_ms=first.latency_ms + then.latency_ms,
        prompt_tokens=first.prompt_tokens + then.prompt_tokens,
        completion_tokens=first.completion_tokens + then.completion_tokens,
        requests=first.requests + then.requests,
        cached=first.cached and then.cached,
    )
