"""The items of `sluice_basics`: short texts with one right continuation, from a fixed seed.

The suite watches for forgetting, so its skills are ones that even a small base has: a model at
chance on a skill cannot lose it, and its coin flips would drown a real loss. Seventeen skills, a
hundred items each:

- reasoning: deduction, categories, common sense
- arithmetic: arithmetic, counting on
- code: code
- instruction following: instructions
- multilingual: foreign words
- retrieval from the text: retrieval
- language and knowledge: number and person agreement, calendar and spelling order, opposites,
  collocations, plurals, capitals

The items never change within a version; a change of template or seed is a new version in
`sluice_basics.yaml`.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

SEED = 20261
PER_SKILL = 100


class Item(NamedTuple):  # not a dataclass: the harness loads this file outside `sys.modules`
    """One text with its possible continuations."""

    skill: str
    question: str
    choices: tuple[str, ...]
    answer: int
    """Index of the right choice."""


def _words(text: str) -> list[str]:
    return text.split()


def _pairs(text: str) -> list[tuple[str, str]]:
    return [(left, right) for left, _, right in (pair.partition("/") for pair in text.split())]


_NOUNS = _words("dog car teacher river book child doctor house student window farmer garden")
_ADJECTIVES = _words("old small happy new quiet tall young good little strong")
_PLACES = _words("near behind inside beside outside")
_KINDS = {
    "animals": _words("dogs cats horses tigers lions cows pigs sheep goats bears rabbits wolves"),
    "fruits": _words("apples bananas grapes lemons mangoes peaches cherries plums pears oranges"),
    "colours": _words("red blue green yellow purple pink brown white black grey"),
    "countries": _words("France Japan Brazil Egypt Canada Kenya India Spain Norway Peru"),
    "vehicles": _words("cars trucks buses trains boats bicycles motorcycles planes ships vans"),
}
_OPPOSITES = _pairs(
    "hot/cold big/small fast/slow happy/sad light/dark early/late open/closed rich/poor "
    "strong/weak young/old wet/dry full/empty high/low hard/soft near/far loud/quiet "
    "clean/dirty up/down left/right day/night win/lose buy/sell push/pull begin/end "
    "love/hate true/false thick/thin deep/shallow good/bad black/white"
)
_CAPITALS = _pairs(
    "France/Paris England/London Germany/Berlin Italy/Rome Spain/Madrid Japan/Tokyo "
    "China/Beijing Russia/Moscow Egypt/Cairo Greece/Athens Austria/Vienna Portugal/Lisbon "
    "Ireland/Dublin Poland/Warsaw Norway/Oslo Sweden/Stockholm Canada/Ottawa Cuba/Havana "
    "Turkey/Ankara Thailand/Bangkok Kenya/Nairobi Iraq/Baghdad Hungary/Budapest Peru/Lima"
)
_COLLOCATIONS = _pairs(
    "bread_and/butter salt_and/pepper knife_and/fork black_and/white mother_and/father "
    "brother_and/sister day_and/night king_and/queen rock_and/roll fish_and/chips "
    "ladies_and/gentlemen hide_and/seek trial_and/error supply_and/demand law_and/order "
    "peace_and/quiet men_and/women boys_and/girls cause_and/effect pros_and/cons"
)
_FOREIGN = _pairs(
    "Spanish_hello/hola Spanish_house/casa Spanish_friend/amigo Spanish_water/agua "
    "Spanish_thank_you/gracias Spanish_good/bueno French_hello/bonjour French_thank_you/merci "
    "French_house/maison French_water/eau French_goodbye/au_revoir French_cat/chat "
    "German_hello/hallo German_thank_you/danke German_house/Haus German_good/gut "
    "German_water/Wasser Italian_hello/ciao Italian_thank_you/grazie Italian_good/buono"
)
_PLURALS = _pairs(
    "cat/cats box/boxes child/children man/men woman/women foot/feet city/cities mouse/mice "
    "tooth/teeth leaf/leaves baby/babies dish/dishes knife/knives hero/heroes person/people "
    "book/books story/stories watch/watches wolf/wolves party/parties"
)
_SENSE = _pairs(
    "We_drink/water We_read/books We_sleep_in_a/bed Fish_live_in/water Birds_fly_in_the/sky "
    "Bees_make/honey Cows_give/milk We_see_with_our/eyes We_hear_with_our/ears "
    "The_sun_rises_in_the/east A_week_has_seven/days A_year_has_twelve/months "
    "Ice_is_made_of_frozen/water We_cut_paper_with/scissors A_pilot_flies_a/plane "
    "A_doctor_works_in_a/hospital A_teacher_works_in_a/school We_tell_time_with_a/clock "
    "Plants_need_sunlight_and/water The_colour_of_grass_is/green The_colour_of_snow_is/white"
)
_QUALITIES = _pairs(
    "cat/soft horse/strong bird/small bear/dangerous sheep/gentle fox/clever snail/slow lion/brave "
    "mouse/quiet owl/wise"
)
_OPERATIONS = _pairs("add/+ subtract/- multiply/*")
_VARIABLES = _words("a b c x y z n m p q value total count item")
_WHERE = _pairs(
    "key/box book/kitchen ball/garden letter/drawer cat/cellar hat/car coin/pocket lamp/hall "
    "apple/basket ring/safe"
)
_DAYS = _words("Monday Tuesday Wednesday Thursday Friday Saturday Sunday")
_MONTHS = _words(
    "January February March April May June July August September October November December"
)
_NAMES = _words("Anna Tom Carla David Emma Peter Grace Henry Lucy Jack Maria Sam")
_NUMBERS = _words("one two three four five six seven eight nine ten eleven twelve")
_LETTERS = [chr(code) for code in range(ord("A"), ord("Z") + 1)]


def _item(rng: random.Random, skill: str, question: str, right: str, wrong: Sequence[str]) -> Item:
    choices = [right, *wrong]
    rng.shuffle(choices)
    return Item(skill, question, tuple(choices), choices.index(right))


def _among(rng: random.Random, pool: Sequence[str], right: str, count: int = 2) -> list[str]:
    return rng.sample([word for word in dict.fromkeys(pool) if word != right], count)


def _number_agreement(rng: random.Random) -> Item:
    noun, other = rng.sample(_NOUNS, 2)
    plural = rng.random() < 0.5
    subject = f"{noun if noun != 'child' else 'kid'}s" if plural else noun
    question = f"The {rng.choice(_ADJECTIVES)} {subject} {rng.choice(_PLACES)} the {other}"
    right, wrong = ("are", "is") if plural else ("is", "are")
    return _item(rng, "number agreement", question, right, [wrong])


def _person_agreement(rng: random.Random) -> Item:
    first, second = rng.sample(_NAMES, 2)
    subject, right, wrong = rng.choice(
        (
            (f"I think that {first} and I", "are", "is"),
            ("I", "am", "are"),
            ("They", "are", "am"),
            (f"{first} and {second}", "are", "is"),
            (f"My friend {first}", "is", "are"),
        )
    )
    place = rng.choice(("Today", "Now", "Every morning", "In fact,", "At school", "At home"))
    return _item(rng, "person agreement", f"{place} {subject}", right, [wrong])


def _counting(rng: random.Random) -> Item:
    start, step = rng.randint(1, 60), rng.choice((1, 2, 5, 10))
    shown = ", ".join(str(start * step + step * i) for i in range(5)) + ","
    following = start * step + 5 * step
    return _item(rng, "counting", shown, str(following), [str(following + 7 * step + 1)])


def _calendar(rng: random.Random) -> Item:
    names = rng.choice((_DAYS, _MONTHS, _NUMBERS))
    start = rng.randrange(len(names) - 3)
    shown = names[start : start + 3]
    opening = rng.choice(("", "In order: ", "Say it: ", "List: ", "Next: "))
    question = f"{opening}{', '.join(shown)},"
    right = names[start + 3]
    return _item(rng, "calendar", question, right, [rng.choice(shown)])


def _alphabet(rng: random.Random) -> Item:
    start = rng.randrange(len(_LETTERS) - 5)
    shown = _LETTERS[start : start + rng.choice((3, 4, 5))]
    right = _LETTERS[start + len(shown)]
    opening = rng.choice(("", "Letters: ", "The alphabet: ", "Alphabet: "))
    return _item(rng, "alphabet", f"{opening}{', '.join(shown)},", right, [_LETTERS[start]])


def _opposite(rng: random.Random) -> Item:
    word, right = rng.sample(rng.choice(_OPPOSITES), 2)
    pool = [w for pair in _OPPOSITES for w in pair if word not in pair]
    question = rng.choice((f"The opposite of {word} is", f"Not {word} but", f"{word} or"))
    return _item(rng, "opposites", question, right, _among(rng, pool, right, 1))


def _category(rng: random.Random) -> Item:
    kind = rng.choice(sorted(_KINDS))
    shown = rng.sample(_KINDS[kind], 4)
    right, other = shown.pop(), rng.choice([k for k in sorted(_KINDS) if k != kind])
    question = f"Some {kind}: {', '.join(shown)},"
    return _item(rng, "categories", question, right, [rng.choice(_KINDS[other])])


def _collocation(rng: random.Random) -> Item:
    opening, right = rng.choice(_COLLOCATIONS)
    lead = rng.choice(
        ("", "We talked about ", "It was about ", "They say ", "Think of ", "This is about ")
    )
    wrong = _among(rng, [w for _, w in _COLLOCATIONS], right, 1)
    return _item(rng, "collocations", lead + opening.replace("_", " "), right, wrong)


def _plural(rng: random.Random) -> Item:
    singular, right = rng.choice(_PLURALS)
    pattern = rng.choice(
        (
            "One {}, two",
            "A {}, many",
            "There is one {} and there are two",
            "First one {}, then three",
            "Not one {} but several",
            "Here is a {}. Here are four",
        )
    )
    wrong = _among(rng, [w for _, w in _PLURALS], right, 1)
    return _item(rng, "plurals", pattern.format(singular), right, wrong)


def _capital(rng: random.Random) -> Item:
    country, right = rng.choice(_CAPITALS)
    pattern = rng.choice(
        (
            "The capital of {} is",
            "The capital city of {} is called",
            "In {} the capital is",
            "The government of {} sits in",
            "Fly to the capital of {}:",
        )
    )
    wrong = _among(rng, [w for _, w in _CAPITALS], right, 1)
    return _item(rng, "capitals", pattern.format(country), right, wrong)


def _foreign(rng: random.Random) -> Item:
    asked, right = rng.choice(_FOREIGN)
    language, _, word = asked.partition("_")
    pattern = rng.choice(
        (
            'The {} word for "{}" is',
            'In {}, "{}" is',
            'How to say in {} "{}":',
            'A {} speaker does not say "{}" but',
            'In {} people do not say "{}" but',
            '{} lesson: "{}" means',
        )
    )
    question = pattern.format(language, word.replace("_", " "))
    others = [w.replace("_", " ") for a, w in _FOREIGN if not a.startswith(language)]
    return _item(
        rng, "foreign words", question, right.replace("_", " "), _among(rng, others, right, 1)
    )


def _common_sense(rng: random.Random) -> Item:
    opening, right = rng.choice(_SENSE)
    lead = rng.choice(
        ("", "We know this: ", "Everyone knows: ", "Remember: ", "A fact: ", "It is true: ")
    )
    wrong = _among(rng, [w for _, w in _SENSE], right, 1)
    return _item(rng, "common sense", lead + opening.replace("_", " "), right, wrong)


def _deduction(rng: random.Random) -> Item:
    (first, quality), (second, other) = rng.sample(_QUALITIES, 2)
    name = rng.choice(_NAMES)
    question = f"{first}s are {quality}. {second}s are {other}. {name} is a {first}. {name} is"
    return _item(rng, "deduction", question, quality, [other])


def _arithmetic(rng: random.Random) -> Item:
    a, b = rng.randrange(1, 10), rng.randrange(1, 10)
    if rng.random() < 0.5:
        return _item(rng, "arithmetic", f"{a} + {b} =", str(a + b), [str(a + b + 3)])
    return _item(rng, "arithmetic", f"{a + b} - {b} =", str(a), [str(a + 3)])


def _code(rng: random.Random) -> Item:
    x, y = rng.sample(_VARIABLES, 2)
    name, operator = rng.choice(_OPERATIONS)
    wrong = rng.choice([o for _, o in _OPERATIONS if o != operator])
    question, right, other = rng.choice(
        (
            (f"def {name}({x}, {y}): return {x}", f"{operator} {y}", f"{wrong} {y}"),
            (f"for {x} in", "range(10):", "while(10):"),
            (f"{x} = [1, 2, 3]\nprint(len(", f"{x}))", f"{y}))"),
            (f'{x} = {{"{y}": 1}}\nprint({x}["', f'{y}"])', f'{x}"])'),
        )
    )
    return _item(rng, "code", question, right, [other])


def _instruction(rng: random.Random) -> Item:
    word, other = rng.sample(_NOUNS, 2)
    question, right, wrong = rng.choice(
        (
            (f'Repeat this word: "{word}". The word is', word, other),
            (f"Write {word} in capital letters:", word.upper(), word),
            (f"Say {word}, not {other}. I say", word, other),
            (f"Answer with {word} only. Question: {other}? Answer:", word, other),
        )
    )
    return _item(rng, "instructions", question, right, [wrong])


def _retrieval(rng: random.Random) -> Item:
    (first, place), (second, other) = rng.sample(_WHERE, 2)
    facts = [f"The {first} is in the {place}.", f"The {second} is in the {other}."]
    rng.shuffle(facts)
    return _item(rng, "retrieval", f"{' '.join(facts)} The {first} is in the", place, [other])


_SKILLS: tuple[Callable[[random.Random], Item], ...] = (
    _number_agreement,
    _person_agreement,
    _counting,
    _calendar,
    _alphabet,
    _opposite,
    _category,
    _collocation,
    _plural,
    _capital,
    _foreign,
    _common_sense,
    _deduction,
    _arithmetic,
    _code,
    _instruction,
    _retrieval,
)


def items() -> list[Item]:
    """Every item, none twice, skills taking turns so that a prefix covers them all."""
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
