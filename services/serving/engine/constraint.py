"""Constrained decoding: llguidance says which tokens keep the answer within a JSON Schema (V7)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import llguidance
import llguidance.hf
import llguidance.numpy
import numpy as np
import torch
from torch import Tensor

from services.serving.engine.port import ConstraintRefused


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

    def start(self, schema: dict[str, Any]) -> Constraint:
        """A fresh constraint. Raises ConstraintRefused if the schema cannot be compiled."""
        return Constraint(self._compiled(json.dumps(schema)).deep_copy(), self._vocab)

    def _compile(self, schema: str) -> Any:
        grammar = llguidance.LLMatcher.grammar_from_json_schema(
            schema,
            defaults={"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "},
        )
        matcher = llguidance.LLMatcher(self._tokenizer, grammar, log_level=0)
        if matcher.is_error():
            raise ConstraintRefused(
                f"the JSON Schema cannot constrain decoding: {matcher.get_error()}",
                mend="simplify the schema, or drop the keyword the message names",
            )
        return matcher
