"""Constrained decoding (V7): which tokens keep an answer within its schema, regex or grammar.

llguidance compiles them and says.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import llguidance
import llguidance.hf
import llguidance.numpy
import numpy as np
import torch
from torch import Tensor

from services.serving.engine.port import ConstraintRefused, GenerationRequest


class Constraint:
    """The state of one constrained answer."""

    def __init__(self, matcher: Any, vocab: int) -> None:
        self._matcher = matcher
        self._vocab = vocab
        self._words = llguidance.numpy.allocate_token_bitmask(1, vocab)

    def mask_(self, logits_V: Tensor) -> None:
        """Forbid, in place, every token that would break the schema."""
        llguidance.numpy.fill_next_token_bitmask(self._matcher, self._words, 0)
        bits = np.unpackbits(self._words.view(np.uint8), bitorder="little")[: self._vocab]
        logits_V.masked_fill_(torch.from_numpy(bits) == 0, float("-inf"))

    def advance(self, token: int) -> None:
        self._matcher.consume_token(token)

    @property
    def finished(self) -> bool:
        """Nothing but the end may follow."""
        return bool(self._matcher.is_stopped())


class Constraints:
    """Compiles schemas for one tokenizer; compiled grammars are kept and copied."""

    def __init__(self, tokenizer: Any, vocab: int, eos: Sequence[int]) -> None:
        self._tokenizer = llguidance.hf.from_tokenizer(
            tokenizer, n_vocab=vocab, eos_token=eos[0] if eos else None
        )
        self._vocab = vocab
        self._compiled = lru_cache(maxsize=256)(self._compile)

    def start(self, request: GenerationRequest) -> Constraint | None:
        """A fresh constraint; None where the request asks for none.

        Raises ConstraintRefused if what it asks for cannot be compiled.
        """
        if request.json_schema is not None:
            kind, text = "JSON Schema", json.dumps(request.json_schema)
        elif request.regex is not None:
            kind, text = "regex", request.regex
        elif request.grammar is not None:
            kind, text = "grammar", request.grammar
        else:
            return None
        return Constraint(self._compiled(kind, text).deep_copy(), self._vocab)

    def _compile(self, kind: str, text: str) -> Any:
        try:
            grammar = _GRAMMARS[kind](text)
        except ValueError as error:
            raise _refused(kind, error) from error
        matcher = llguidance.LLMatcher(self._tokenizer, grammar, log_level=0)
        if matcher.is_error():
            raise _refused(kind, matcher.get_error())
        return matcher


def _of_schema(schema: str) -> str:
    compiled: str = llguidance.LLMatcher.grammar_from_json_schema(
        schema,
        defaults={"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "},
    )
    return compiled


_GRAMMARS: dict[str, Callable[[str], str]] = {
    "JSON Schema": _of_schema,
    "regex": llguidance.LLMatcher.grammar_from_regex,
    "grammar": llguidance.LLMatcher.grammar_from_lark,
}


def _refused(kind: str, reason: object) -> ConstraintRefused:
    return ConstraintRefused(
        f"the {kind} cannot constrain decoding: {reason}",
        mend=f"simplify the {kind}, or drop what the message names",
    )
