"""From logits to events: prompts are scored, tokens drawn, answers ended.

Every engine that steps by itself answers through this, so they all draw, stop and report alike.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Literal

import torch
from torch import Tensor

from services.serving.engine import sampling
from services.serving.engine.port import PromptScored, Token, TokenLogprob
from services.serving.engine.sequence import Sequence

_LOGIT_ROWS = 128
"""Rows whose logits are held at once while a prompt is scored."""

Summary = tuple[list[int], list[float], list[float]]
"""Of (n, V) logits, per row: the best token, its logit, and the log of the sum of exponentials."""


class Answering:
    """Called by the engine's thread alone."""

    def __init__(
        self,
        *,
        logits: Callable[[Tensor], Tensor],
        summarize: Callable[[Tensor], Summary],
        eos: Collection[int],
        retire: Callable[[Sequence], None],
    ) -> None:
        """`logits` of (n, H) hidden rows; `retire` takes a finished sequence off the engine."""
        self._logits, self._summarize = logits, summarize
        self._eos, self._retire = eos, retire

    def score_prompt(self, sequence: Sequence, hidden: Tensor) -> None:
        wanted = sequence.request.prompt_logprobs
        if wanted is None or sequence.generated:  # scored before its pages were given up
            return
        following = sequence.request.prompt[sequence.computed + 1 :][: len(hidden)]
        for start in range(0, len(following), _LOGIT_ROWS):
            targets = following[start : start + _LOGIT_ROWS]
            logits = self._logits(hidden[start : start + len(targets)])
            logprobs = logits.float().log_softmax(-1)
            chosen = logprobs.gather(1, torch.tensor(targets)[:, None])[:, 0].tolist()
            values, ids = logprobs.topk(max(wanted, 1))
            for at, (target, value) in enumerate(zip(targets, chosen, strict=True)):
                top = tuple(zip(ids[at].tolist(), values[at].tolist(), strict=True))[:wanted]
                sequence.prompt_logprobs.append(TokenLogprob(target, value, top))

    def advance(self, sequences: list[Sequence], logits: Tensor) -> None:
        best, value, mass = self._summarize(logits)
        for row, sequence in enumerate(sequences):
            request = sequence.request
            wants = request.logprobs is not None
            first = not sequence.generated
            logprobs = (
                logits[row].float().log_softmax(-1)
                if wants or (first and request.next_token_ids)
                else None
            )
            if first and (request.prompt_logprobs is not None or request.next_token_ids):
                following = (
                    logprobs[list(request.next_token_ids)].tolist()
                    if logprobs is not None and request.next_token_ids
                    else []
                )
                sequence.stream.push(
                    PromptScored(
                        tuple(sequence.prompt_logprobs)
                        if request.prompt_logprobs is not None
                        else (),
                        tuple(following),
                    )
                )
            if sequence.limit <= 0:
                self._retire(sequence)
                sequence.finish("length")
                continue
            token, score = best[row], value[row]
            shifts = request.sampling.shifts
            if shifts or sequence.constraint is not None or sequence.draws is not None:
                scores = logits[row].float()
                allowed = scores.clone() if shifts else scores
                if shifts:
                    sampling.shift_(allowed, request.sampling, sequence.generated)
                if sequence.constraint is not None:
                    sequence.constraint.mask_(allowed)
                token = sampling.draw(allowed, request.sampling, sequence.draws)
                score = float(scores[token])
            sequence.logprob += score - mass[row]
            self._accept(sequence, token, logprobs)

    def _accept(self, sequence: Sequence, token: int, logprobs: Tensor | None) -> None:
        request = sequence.request
        if token in self._eos and not request.ignore_eos:
            if logprobs is not None and request.logprobs is not None:
                last = sampling.report(logprobs, token, request.logprobs)
                sequence.stream.push(Token(token, "", last))
            return self._end(sequence, "stop")
        sequence.generated.append(token)
        text = sequence.text.feed(token)
        wanted = request.logprobs
        report = (
            sampling.report(logprobs, token, wanted)
            if logprobs is not None and wanted is not None
            else None
        )
        sequence.stream.push(Token(token, text, report))
        if sequence.constraint is not None:
            sequence.constraint.advance(token)
        if sequence.text.stopped or (sequence.constraint and sequence.constraint.finished):
            self._end(sequence, "stop")
        elif len(sequence.generated) >= sequence.limit:
            self._end(sequence, "length")
        return None

    def _end(self, sequence: Sequence, reason: Literal["stop", "length"]) -> None:
        self._retire(sequence)
        rest = sequence.text.close()
        sequence.finish("stop" if sequence.text.stopped else reason, text=rest)
