"""What teachers are asked: say a request in other words and change nothing it asks for.

A template is a value with a version; its name goes into every row's `Origin` (S7). The seed's
target stays as it is, so a paraphrase is useful only when every value survives (see `filters`).
"""

from __future__ import annotations

from dataclasses import dataclass

from contracts.data import Message, Row


@dataclass(frozen=True, slots=True)
class PromptTemplate:
    """A versioned prompt."""

    name: str
    system: str
    examples: tuple[tuple[str, str], ...]
    manners: tuple[str, ...]
    """Ways to say it, taken in turn by attempt: variety that sampling alone does not give."""

    def messages(self, request: str, attempt: int) -> tuple[Message, ...]:
        manner = self.manners[attempt % len(self.manners)]
        turns = [Message(role="system", content=self.system)]
        for question, answer in self.examples:
            turns.append(Message(role="user", content=f"Rephrase: {question}"))
            turns.append(Message(role="assistant", content=answer))
        turns.append(Message(role="user", content=f"Rephrase{manner}: {request}"))
        return tuple(turns)


@dataclass(frozen=True, slots=True)
class AnswerTemplate:
    """A versioned prompt that asks for an answer to the seed's own turns."""

    name: str
    system: str
    manners: tuple[str, ...]

    def turns(self, row: Row, attempt: int) -> tuple[Message, ...]:
        """The seed's turns, its system message joined with the instructions."""
        own = "\n".join(m.content for m in row.messages if m.role == "system")
        manner = self.manners[attempt % len(self.manners)]
        system = "\n\n".join(text for text in (own, self.system, manner) if text)
        rest = (m for m in row.messages if m.role != "system")
        return (Message(role="system", content=system), *rest)


ANSWER = AnswerTemplate(
    name="answer/v1",
    system="Answer the request. Write only the answer: no introduction and no explanation.",
    manners=(
        "",
        "Solve it in the most direct way.",
        "Solve it with another algorithm than the usual one.",
        "Prefer short functions with clear names.",
        "Take care of empty and extreme inputs first.",
    ),
)

PARAPHRASE = PromptTemplate(
    name="paraphrase/v1",
    system=(
        "You rephrase a user's request. Keep every name, number, date and unit exactly as "
        "written. Do not answer the request. Write only the rephrased request."
    ),
    examples=(
        (
            "Find the distance in km between Oslo and Bergen.",
            "How many km is it from Oslo to Bergen? I need the distance.",
        ),
        (
            "Convert 250 USD to EUR using the rate of 2024-03-01.",
            "I have 250 USD. What is that in EUR with the 2024-03-01 rate?",
        ),
        (
            "Book a table for 4 people at Luigi's at 19:30.",
            "Please reserve a table at Luigi's at 19:30, we are 4 people.",
        ),
    ),
    manners=("", " as a question", " politely", " in a short way", " with more words"),
)


def last_request(row: Row) -> str | None:
    """The last user turn: what gets rephrased. None where a row has none."""
    users = [m.content for m in row.messages if m.role == "user"]
    return users[-1] if users else None


def with_request(row: Row, request: str) -> tuple[Message, ...]:
    """The row's turns with the last user turn replaced."""
    last = max(i for i, m in enumerate(row.messages) if m.role == "user")
    return tuple(
        Message(role="user", content=request) if i == last else m
        for i, m in enumerate(row.messages)
    )
