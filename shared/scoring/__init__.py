"""How one answer is judged.

A scorer is a pure function of a row and an answer. `Score.value` says how good the answer is
(0..1); `Score.valid` says whether it could be used at all (it parses and satisfies its schema),
which is what first-attempt validity (M4) and schema adherence (M5) count.
"""

from shared.scoring.call import CallError, ToolCall, call_schema, parse_call
from shared.scoring.registry import BUILT_IN, resolve
from shared.scoring.score import Score, Scorer, scorer
from shared.scoring.tool_call import tool_call
from shared.scoring.validator import Validator, validator_for

__all__ = [
    "BUILT_IN",
    "CallError",
    "Score",
    "Scorer",
    "ToolCall",
    "Validator",
    "call_schema",
    "parse_call",
    "resolve",
    "scorer",
    "tool_call",
    "validator_for",
]
