"""The items of `sluice_basics`: short questions with known answers, by template, from a fixed seed.

Eight skills, ninety items each: number size, sums, sequences, categories, opposites, simple
inference, number words in four languages, following an instruction. The items never change within a
version; a change of template or seed is a new version in `sluice_basics.yaml`.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

SEED = 20261
PER_SKILL = 90


class Item(NamedTuple):  # not a dataclass: the harness loads this file outside `sys.modules`
    """One multiple-choice question."""

    skill: str
    question: str
    choices: tuple[str, ...]
    answer: int
    """Index of the right choice."""


def _words(text: str) -> list[str]:
    return text.split()


_KINDS = {
    "animal": _words("dog horse rabbit tiger eagle salmon goat whale lion wolf"),
    "fruit": _words("apple banana grape lemon mango peach cherry plum pear kiwi"),
    "colour": _words("red blue green yellow purple pink brown white black grey"),
    "tool": _words("hammer saw drill wrench shovel axe pliers screwdriver rake chisel"),
    "country": _words("France Japan Brazil Egypt Canada Kenya India Spain Norway Peru"),
}
_OPPOSITES = [
    pair.split("/")
    for pair in _words(
        "hot/cold big/small fast/slow happy/sad light/dark early/late open/closed rich/poor "
        "strong/weak young/old wet/dry full/empty high/low hard/soft near/far loud/quiet "
        "clean/dirty up/down left/right day/night win/lose buy/sell push/pull begin/end "
        "love/hate true/false thick/thin deep/shallow sharp/blunt cheap/expensive"
    )
]
_NUMBER_WORDS = {
    "Spanish": _words("uno dos tres cuatro cinco seis siete ocho nueve diez"),
    "French": _words("un deux trois quatre cinq six sept huit neuf dix"),
    "German": _words("eins zwei drei vier fünf sechs sieben acht neun zehn"),
    "Italian": _words("uno due tre quattro cinque sei sette otto nove dieci"),
}
_DIGITS = _words("one two three four five six seven eight nine ten")
_NAMES = _words("Ann Bob Carla David Emma Frank Grace Henry Ivy Jack")
_COMPARATIVES = _words("taller older faster stronger richer heavier")


def _item(rng: random.Random, skill: str, question: str, right: str, wrong: Sequence[str]) -> Item:
    choices = [right, *wrong]
    rng.shuffle(choices)
    return Item(skill, question, tuple(choices), choices.index(right))


def _size(rng: random.Random) -> Item:
    a, b = rng.sample(range(2, 1000), 2)
    larger = rng.random() < 0.5
    right, wrong = (max(a, b), min(a, b)) if larger else (min(a, b), max(a, b))
    word = "larger" if larger else "smaller"
    return _item(rng, "number size", f"Of {a} and {b}, the {word} is", str(right), [str(wrong)])


def _sum(rng: random.Random) -> Item:
    a, b = rng.randint(2, 40), rng.randint(2, 40)
    plus = rng.random() < 0.5 or a <= b
    result, sign = (a + b, "+") if plus else (a - b, "-")
    wrong = [str(result + rng.choice((-10, -3, 2, 10))), str(result + rng.choice((-2, -1, 1, 3)))]
    return _item(rng, "sums", f"{a} {sign} {b} =", str(result), wrong)


def _sequence(rng: random.Random) -> Item:
    start, step = rng.randint(1, 40), rng.choice((1, 2, 3, 5, 10))
    shown = ", ".join(str(start + step * i) for i in range(4)) + ","
    following = start + 4 * step
    wrong = [str(following + step), str(following - 1 if step > 1 else following + 3)]
    return _item(rng, "sequences", shown, str(following), wrong)


def _category(rng: random.Random) -> Item:
    right, *wrong = rng.sample(sorted(_KINDS), 3)
    word = rng.choice(_KINDS[right])
    question = rng.choice(
        (
            f"Question: What kind of thing is {word}?\nAnswer: a kind of",
            f"{word}: this word belongs to the category",
        )
    )
    return _item(rng, "categories", question, right, wrong)


def _opposite(rng: random.Random) -> Item:
    pair = rng.choice(_OPPOSITES)
    word, right = rng.sample(pair, 2)
    wrong = [w for p in rng.sample([p for p in _OPPOSITES if p != pair], 2) for w in p[:1]]
    question = rng.choice((f"The opposite of {word} is", f"It is not {word}, it is"))
    return _item(rng, "opposites", question, right, wrong)


def _inference(rng: random.Random) -> Item:
    a, b, c = rng.sample(_NAMES, 3)
    more = rng.choice(_COMPARATIVES)
    most = more.replace("heavier", "heaviest").removesuffix("r")
    most = most if most.endswith("st") else most + "st"
    question = f"{a} is {more} than {b}. {b} is {more} than {c}. The {most} is"
    return _item(rng, "inference", question, a, [b, c])


def _number_word(rng: random.Random) -> Item:
    language = rng.choice(sorted(_NUMBER_WORDS))
    right, *wrong = rng.sample(range(10), 3)
    words, shown = _NUMBER_WORDS[language], rng.choice((_DIGITS[right], str(right + 1)))
    if rng.random() < 0.5:
        words, shown = _DIGITS, words[right]
        question = f'The {language} word "{shown}" means in English'
    else:
        question = f'The {language} word for "{shown}" is'
    return _item(rng, "number words", question, words[right], [words[w] for w in wrong])


def _instruction(rng: random.Random) -> Item:
    words = rng.sample([w for kind in sorted(_KINDS) for w in _KINDS[kind]], 3)
    place = rng.randrange(3)
    ordinal = ("first", "second", "last")[place]
    question = f"Words: {', '.join(words)}. Repeat only the {ordinal} word:"
    wrong = [w for w in words if w != words[place]]
    return _item(rng, "instructions", question, words[place], wrong)


_SKILLS: tuple[Callable[[random.Random], Item], ...] = (
    _size,
    _sum,
    _sequence,
    _category,
    _opposite,
    _inference,
    _number_word,
    _instruction,
)


def items() -> list[Item]:
    """Every item, no question twice, skills taking turns so that a prefix covers them all."""
    seen: set[str] = set()
    by_skill: list[list[Item]] = []
    for number, make in enumerate(_SKILLS):
        rng = random.Random(SEED + number)
        made: list[Item] = []
        while len(made) < PER_SKILL:
            item = make(rng)
            if item.question not in seen and len(set(item.choices)) == len(item.choices):
                seen.add(item.question)
                made.append(item)
        by_skill.append(made)
    return [item for turn in zip(*by_skill, strict=True) for item in turn]


def dataset(**_: Any) -> dict[str, Any]:
    """What lm-evaluation-harness loads: the `test` split."""
    from datasets import Dataset

    rows = [
        {"skill": i.skill, "question": i.question, "choices": list(i.choices), "answer": i.answer}
        for i in items()
    ]
    return {"test": Dataset.from_list(rows)}
