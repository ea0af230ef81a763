"""Our requests in vLLM's completions dialect, and its answers as our events.

Prompts and answers travel as token ids; stop sequences and characters are settled here, as in every
other engine.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from services.serving.engine.port import (
    Finished,
    GenerationEvent,
    GenerationRequest,
    PromptScored,
    Token,
    TokenLogprob,
)
from services.serving.engine.text import TextStream

_ID = "token_id:"


def body(
    request: GenerationRequest, *, model: str, limit: int, eos: Sequence[int]
) -> dict[str, Any]:
    """POST /v1/completions. `limit` is the number of tokens that fit."""
    drawn = request.sampling
    constraint = {
        kind: value
        for kind, value in (
            ("json", request.json_schema),
            ("regex", request.regex),
            ("grammar", request.grammar),
        )
        if value is not None
    }
    return {
        "model": model,
        "prompt": list(request.prompt),
        "max_tokens": max(limit, 1),
        "temperature": drawn.temperature,
        "top_p": drawn.top_p,
        "top_k": drawn.top_k,
        "seed": drawn.seed,
        "presence_penalty": drawn.presence_penalty,
        "frequency_penalty": drawn.frequency_penalty,
        "logit_bias": {str(token): bias for token, bias in drawn.logit_bias} or None,
        "logprobs": request.logprobs or 0,
        "prompt_logprobs": request.prompt_logprobs,
        "structured_outputs": constraint or None,
        "ignore_eos": request.ignore_eos,
        "stop_token_ids": [] if request.ignore_eos else list(eos),
        "priority": request.priority,
        "cache_salt": request.tenant or None,  # tenants share no beginnings of prompts
        "return_token_ids": True,
        "return_tokens_as_token_ids": True,
    }


def scoring_body(request: GenerationRequest, *, model: str) -> dict[str, Any]:
    """The question for `next_token_ids`."""
    return {
        "model": model,
        "prompt": list(request.prompt),
        "max_tokens": 1,
        "temperature": 0,
        "logprobs": 1,
        "logprob_token_ids": list(request.next_token_ids),
        "priority": request.priority,
        "cache_salt": request.tenant or None,
        "return_tokens_as_token_ids": True,
    }


def next_token_scores(answer: Mapping[str, Any], ids: Sequence[int]) -> tuple[float, ...]:
    """Of the answer to `scoring_body`: the log-probabilities of `ids`, in their order."""
    found = _by_id(answer["choices"][0]["logprobs"]["top_logprobs"][0])
    return tuple(found[token] for token in ids)


def prompt_scores(choice: Mapping[str, Any], request: GenerationRequest) -> PromptScored:
    """The prompt's own log-probabilities, of a whole answer's choice."""
    wanted = request.prompt_logprobs
    if wanted is None:
        return PromptScored((), ())
    items: list[TokenLogprob | None] = []
    for token, alternatives in zip(request.prompt, choice["prompt_logprobs"], strict=True):
        if alternatives is None:
            items.append(None)
            continue
        scores = {int(i): float(found["logprob"]) for i, found in alternatives.items()}
        items.append(_report(token, scores[token], scores, wanted))
    return PromptScored(tuple(items), ())


class Answer:
    """One answer as it arrives: feed it choices, get events; `done` after `Finished`."""

    def __init__(
        self, request: GenerationRequest, tokenizer: Any, *, eos: Collection[int], limit: int
    ) -> None:
        self._request = request
        self._text = TextStream(tokenizer, request.stop)
        self._eos = eos
        self._limit = limit
        self._generated = 0
        self._logprob = 0.0
        self._reason: str | None = None
        self.cached = 0
        self.stopped = False
        """Nothing more is wanted of vLLM."""

    def feed(self, choice: Mapping[str, Any]) -> Iterator[GenerationEvent]:
        """The tokens of one chunk, or of a whole answer."""
        self._reason = choice.get("finish_reason") or self._reason
        ids = choice.get("token_ids") or ()
        if self._limit <= 0 or not ids:
            return
        logprobs = choice["logprobs"]
        for token, score, top in zip(
            ids, logprobs["token_logprobs"], logprobs["top_logprobs"], strict=True
        ):
            if self.stopped:
                return
            self._logprob += score
            wanted = self._request.logprobs
            report = None if wanted is None else _report(token, score, _by_id(top), wanted)
            if token in self._eos and not self._request.ignore_eos:
                self.stopped = True
                if report is not None:
                    yield Token(token, "", report)
                return
            self._generated += 1
            yield Token(token, self._text.feed(token), report)
            self.stopped = self._text.stopped

    def noted(self, usage: Mapping[str, Any] | None) -> None:
        """Take in the token counts, where they come."""
        details = (usage or {}).get("prompt_tokens_details") or {}
        self.cached = details.get("cached_tokens") or 0

    def finish(self, *, cancelled: bool = False) -> Finished:
        """The last event."""
        rest = self._text.close()
        stopped = self.stopped or self._text.stopped or self._reason == "stop"
        return Finished(
            "cancelled" if cancelled else "stop" if stopped and self._limit > 0 else "length",
            rest,
            len(self._request.prompt),
            self._generated,
            self.cached,
            min(self._logprob, 0.0),
        )


def _by_id(scores: Mapping[str, float]) -> dict[int, float]:
    return {int(name.removeprefix(_ID)): float(value) for name, value in scores.items()}


def _report(token: int, score: float, scores: Mapping[int, float], top: int) -> TokenLogprob:
    best = sorted(scores.items(), key=lambda item: -item[1])[:top]
    return TokenLogprob(token, float(score), tuple(best))
