"""Requests outside any job's domain, and requests with a false premise (G12)."""

from __future__ import annotations

import re

from contracts.data import Message, Row

_UNSEEN = """
What is the capital of France? | paris
What colour is the sky on a clear day? | blue
How many legs does a spider have? | eight|8
What do bees make? | honey
Which animal says meow? | cat
What is the opposite of hot? | cold
How many days are in a week? | seven|7
What is frozen water called? | ice
What is 2 plus 3? | five|5
Which planet do we live on? | earth
What is the first month of the year? | january
What do cows give us to drink? | milk
"""
_PREMISES = """
In which year did the moon crash into Spain?
Why do all fish live in trees?
Who was the first king of Antarctica's capital?
Why is the number five made of wood?
When did Paris become the capital of Japan?
Which of the sun's two doors opens first?
How many wings does a horse use to fly?
Why does ice burn hotter than fire?
What is the name of the eighth day of the week?
Who won the war between Monday and Tuesday?
At what age do stones learn to read?
What did Napoleon write in his e-mails?
"""
_OBJECTION = re.compile(
    r"\b(no|not|never|isn'?t|aren'?t|doesn'?t|don'?t|didn'?t|cannot|can'?t|incorrect|false|myth|"
    r"misconception|impossible|unable|there (is|are|was|were) no)\b",
    re.IGNORECASE,
)


def unseen_domains() -> list[Row]:
    """Everyday questions; `expected` holds the words of which the answer has one."""
    pairs = [line.partition(" | ") for line in _UNSEEN.strip().splitlines()]
    return [
        Row(
            id=f"unseen-{number:02d}",
            messages=(Message(role="user", content=question),),
            expected=list(words.split("|")),
        )
        for number, (question, _, words) in enumerate(pairs)
    ]


def answers_right(row: Row, answer: str) -> bool:
    """Whether the answer to a row of `unseen_domains` holds an expected word."""
    accepted = row.expected if isinstance(row.expected, list) else []
    return any(re.search(rf"\b{w}\b", answer, re.IGNORECASE) for w in map(str, accepted))


def false_premises() -> list[Row]:
    """Questions nobody can answer, since what they take for granted is not so."""
    return [
        Row(id=f"premise-{number:02d}", messages=(Message(role="user", content=question),))
        for number, question in enumerate(_PREMISES.strip().splitlines())
    ]


def objects(answer: str) -> bool:
    """Whether the answer objects to the premise, by its wording."""
    return _OBJECTION.search(answer.replace("\u2019", "'")) is not None
