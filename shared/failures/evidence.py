"""What one trace shows beyond its words: structural tests that `causes.yaml` names as signals.

Each is a pure predicate over one trace. Wording is matched by the patterns in the data file.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable

import jsonschema
from pydantic import JsonValue

from contracts.failures import Trace
from shared.similarity.text import normal_form, numbers, words

CROWDED = 0.95
"""Share of the context window from which a prompt counts as full."""
THIN_WORDS = 12
"""Instructions shorter than this leave the task to guessing."""
MANY_STEPS = 4
_JOINT = re.compile(r"[,;:]|\b(?:and|then|otherwise)\b", re.IGNORECASE)
_EXEMPLARS = re.compile(
    r"\b(?:examples?|samples?|shots?|bispelen|beispiele?)\b|->|⇒|e\.g\.", re.IGNORECASE
)


def _search_found_nothing(trace: Trace) -> bool:
    return trace.retrieved is not None and not trace.retrieved


def _was_searched(trace: Trace) -> bool:
    return trace.retrieved is not None


def _passages_lack_the_answer(trace: Trace) -> bool:
    if not trace.retrieved or trace.expected is None:
        return False
    found = normal_form(" ".join(passage.text for passage in trace.retrieved))
    return not all(normal_form(leaf) in found for leaf in _leaves(trace.expected))


def _window_is_full(trace: Trace) -> bool:
    if trace.prompt_tokens is None or trace.context_limit is None:
        return False
    return trace.prompt_tokens >= CROWDED * trace.context_limit


def _has_history(trace: Trace) -> bool:
    return bool(trace.history)


def _call_failed(trace: Trace) -> bool:
    return any(call.error for call in trace.calls)


def _called_what_was_not_offered(trace: Trace) -> bool:
    return bool(trace.tools) and any(call.name not in trace.tools for call in trace.calls)


def _number_is_wrong(trace: Trace) -> bool:
    """The request holds numbers to work with, and the answer's are not the expected ones."""
    wanted = set(numbers(str(trace.expected))) if trace.expected is not None else set()
    return bool(wanted and numbers(trace.request) and not wanted & set(numbers(trace.answer)))


def _violates_its_schema(trace: Trace) -> bool:
    if trace.output_schema is None:
        return False
    try:
        value = json.loads(trace.answer)
    except ValueError:
        return True
    return not jsonschema.Draft202012Validator(trace.output_schema).is_valid(value)


def _is_not_the_structure_asked(trace: Trace) -> bool:
    if not isinstance(trace.expected, dict | list):
        return False
    try:
        json.loads(trace.answer)
    except ValueError:
        return _holds_the_expected_values(trace)
    return False


def _holds_the_expected_values(trace: Trace) -> bool:
    answer = normal_form(trace.answer)
    return all(normal_form(leaf) in answer for leaf in _leaves(trace.expected))


def _differs_in_form_only(trace: Trace) -> bool:
    """A text reference with the same words, or words that the answer merely wraps."""
    if not isinstance(trace.expected, str):
        return False
    wanted, given = words(trace.expected), words(trace.answer)
    return wanted == given or (
        (0 < len(wanted) <= len(given) <= len(wanted) + 2) and (set(wanted) <= set(given))
    )


def _another_model_passes(trace: Trace) -> bool:
    return any(alternative.passed for alternative in trace.alternatives)


def _other_models_fail_too(trace: Trace) -> bool:
    return bool(trace.alternatives) and not _another_model_passes(trace)


def _graders_disagree(trace: Trace) -> bool:
    return len({grade.passed for grade in trace.grades}) > 1


def _answers_vary(trace: Trace) -> bool:
    return len({normal_form(answer) for answer in trace.resamples}) > 1


def _asks_for_many_steps(trace: Trace) -> bool:
    return len(_JOINT.findall(trace.request)) + 1 >= MANY_STEPS


def _has_exemplars(trace: Trace) -> bool:
    return bool(_EXEMPLARS.search(trace.system)) and len(words(trace.system)) >= THIN_WORDS / 2


def _instructions_are_thin(trace: Trace) -> bool:
    return bool(trace.system) and len(words(trace.system)) < THIN_WORDS


def _offers_tools(trace: Trace) -> bool:
    return bool(trace.tools)


def _leaves(value: JsonValue) -> list[str]:
    if isinstance(value, dict):
        return [leaf for inner in value.values() for leaf in _leaves(inner)]
    if isinstance(value, list):
        return [leaf for inner in value for leaf in _leaves(inner)]
    return [str(value)]


TESTS: dict[str, Callable[[Trace], bool]] = {
    test.__name__.strip("_"): test
    for test in (
        _search_found_nothing,
        _was_searched,
        _passages_lack_the_answer,
        _window_is_full,
        _has_history,
        _call_failed,
        _called_what_was_not_offered,
        _number_is_wrong,
        _violates_its_schema,
        _is_not_the_structure_asked,
        _differs_in_form_only,
        _another_model_passes,
        _other_models_fail_too,
        _graders_disagree,
        _answers_vary,
        _asks_for_many_steps,
        _has_exemplars,
        _instructions_are_thin,
        _offers_tools,
    )
}
"""Name in `causes.yaml` → predicate."""
