"""From the name in a job to the scorer."""

from __future__ import annotations

import importlib
from collections.abc import Callable

from contracts.base import Problem
from contracts.job import Behaviour
from shared.errors import InvalidInput
from shared.scoring.program import python_tests, sql_query
from shared.scoring.reasoned import of_final_answer
from shared.scoring.score import Scorer, is_declared
from shared.scoring.text import exact_match, json_schema, regex
from shared.scoring.tool_call import tool_call


def _rubric(behaviour: Behaviour) -> Scorer:
    if behaviour.rubric is None:  # the contract does not let this pass
        raise _unknown(behaviour, "a rubric in behaviour.rubric")
    from shared.scoring.rubric import RubricJudge  # loads an HTTP client: only for who asks

    return RubricJudge(behaviour.rubric)


BUILT_IN: dict[str, Callable[[Behaviour], Scorer]] = {
    "tool_call": lambda _: tool_call,
    "json_schema": lambda behaviour: json_schema(behaviour.output_schema),
    "exact_match": lambda _: exact_match,
    "regex": lambda _: regex,
    "python_tests": lambda _: python_tests,
    "sql_query": lambda _: sql_query,
    "rubric": _rubric,
}
"""Name → how a behaviour's scorer is built."""


def resolve(behaviour: Behaviour) -> Scorer:
    """The scorer a job names: a built-in, or `module:function` declared with `@scorer`.

    With `answer_marker` it judges what follows the marker.

    Raises:
        InvalidInput: there is no such scorer.
    """
    named = _named(behaviour)
    return of_final_answer(named, behaviour.answer_marker) if behaviour.answer_marker else named


def _named(behaviour: Behaviour) -> Scorer:
    if ":" not in behaviour.scorer:
        if behaviour.scorer not in BUILT_IN:
            raise _unknown(behaviour, f"one of {', '.join(BUILT_IN)}, or module:function")
        return BUILT_IN[behaviour.scorer](behaviour)
    module, _, name = behaviour.scorer.partition(":")
    try:
        function = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise _unknown(behaviour, f"a function that can be imported ({error})") from error
    if not is_declared(function):
        raise _unknown(behaviour, "a function declared with @shared.scoring.scorer")
    scorer: Scorer = function
    return scorer


def _unknown(behaviour: Behaviour, wanted: str) -> InvalidInput:
    return InvalidInput(
        [
            Problem(
                where="behaviour.scorer",
                problem=f"no scorer {behaviour.scorer!r}",
                mend=f"Name {wanted}.",
            )
        ]
    )
