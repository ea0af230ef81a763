"""Volatile facts: what is true today must be looked up, not trained in (D1, C10).

A model that learns a price, a stock level, a permission or a live state repeats it long after it
changed. A row is volatile when its *target* asserts such a fact and the request does not already
carry it: an answer grounded in its own request teaches behaviour, not the fact. A tool call asserts
nothing, it asks, so tool-call targets never score.

The rules are data (`volatility.json`): a kind, a weight, and a pattern whose group `fact` is what
must be grounded. Several rules of one kind see one fact, so the heaviest of a kind counts: a row's
score is 1 - prod(1 - weight) over the kinds it asserts ungrounded. A reviewed row escapes with
`meta.stable_fact: "<why it will not change>"`. docs/diagnosis.md has precision and recall.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib import resources
from math import prod

from contracts.base import Problem
from contracts.data import Row
from shared.similarity.text import normal_form

_AMOUNT = re.compile(r"[$€£¥]\s?\d|\d\s?(?:dollars|euros|pounds|USD|EUR|GBP)\b", re.IGNORECASE)
_CALL_KEYS = ("arguments", "parameters", "tool_calls", "function")


@dataclass(frozen=True, slots=True)
class Rule:
    """One way a volatile fact is written."""

    kind: str
    weight: float
    pattern: re.Pattern[str]


@dataclass(frozen=True, slots=True)
class Volatility:
    """How volatile a row is, and which kinds of fact make it so."""

    score: float
    kinds: tuple[str, ...] = ()


@cache
def _rules() -> tuple[tuple[Rule, ...], float]:
    text = resources.files("shared.doctrine").joinpath("volatility.json").read_text("utf-8")
    data = json.loads(text)
    rules = tuple(
        Rule(r["kind"], float(r["weight"]), re.compile(r["pattern"], re.IGNORECASE))
        for r in data["rules"]
    )
    return rules, float(data["threshold"])


def threshold() -> float:
    """The score from which a row is refused."""
    return _rules()[1]


def volatility(row: Row) -> Volatility:
    """Score one row in [0, 1]. Rows without a target score 0."""
    target = row.target
    if not target or is_tool_call(target) or "stable_fact" in row.meta:
        return Volatility(0.0)
    request = "\n".join(m.content for m in row.messages)
    grounds: str | None = None  # most targets assert nothing that could be grounded
    heaviest: dict[str, float] = {}
    for rule in _rules()[0]:
        for match in rule.pattern.finditer(target):
            grounds = normal_form(request) if grounds is None else grounds
            if _grounded(match["fact"], grounds):
                continue
            # An amount worked out from amounts in the request is arithmetic, not a price list.
            computed = rule.kind == "price" and _AMOUNT.search(request)
            weight = rule.weight / 2 if computed else rule.weight
            heaviest[rule.kind] = max(weight, heaviest.get(rule.kind, 0.0))
            break
    calm = prod(1 - weight for weight in heaviest.values())
    return Volatility(round(1 - calm, 4), tuple(heaviest))


def _grounded(fact: str, grounds: str) -> bool:
    return f" {normal_form(fact)} " in f" {grounds} "


def is_tool_call(target: str) -> bool:
    """Whether a target is one or several calls as JSON, or as `f(x=1)` text."""
    text = target.strip()
    if re.fullmatch(r"\[?\s*[A-Za-z_][\w.]*\(.*\)\s*\]?", text, re.DOTALL):
        return True
    try:
        value = json.loads(text)
    except ValueError:
        return "<tool_call>" in text
    calls = value if isinstance(value, list) else [value]
    return bool(calls) and all(
        isinstance(call, dict) and (any(key in call for key in _CALL_KEYS) or _is_named_call(call))
        for call in calls
    )


def _is_named_call(call: dict[str, object]) -> bool:
    """`{"get_weather": {"city": "Oslo"}}`."""
    return len(call) == 1 and isinstance(next(iter(call.values())), dict)


def volatile_problems(rows: Iterable[tuple[str, Row]]) -> list[Problem]:
    """A problem for every (where, row) at or above the threshold."""
    problems = []
    for where, row in rows:
        found = volatility(row)
        if found.score >= threshold():
            problems.append(
                Problem(
                    where=where,
                    problem=f"row {row.id!r} trains in a volatile fact "
                    f"({', '.join(found.kinds)}; score {found.score:.2f})",
                    mend="fetch the fact by tool or retrieval and let the target use it; if it "
                    "never changes, say why in `meta.stable_fact`",
                )
            )
    return problems
