"""What a request must be to enter an engine, and when it has to leave."""

from __future__ import annotations

from collections.abc import Callable

from contracts.base import Digest
from services.serving.engine.port import (
    AdapterRefused,
    ContextExceeded,
    DeadlineExceeded,
    GenerationRequest,
)
from services.serving.engine.sequence import Sequence
from services.serving.engine.waiting import WaitingLine


def require_fit(request: GenerationRequest, *, context: int, vocab: int) -> None:
    """Raises ContextExceeded if the prompt is too long, or holds what is no token."""
    room = context - (1 if request.max_tokens else 0)
    if not 0 < len(request.prompt) <= room:
        raise ContextExceeded(
            f"the prompt has {len(request.prompt)} tokens, 1 to {room} fit",
            mend="shorten the prompt, or raise SLUICE_SERVING_CONTEXT up to the model's limit",
        )
    if not all(
        0 <= t < vocab
        for t in (
            *request.prompt,
            *request.next_token_ids,
            *(token for token, _ in request.sampling.logit_bias),
        )
    ):
        raise ContextExceeded(f"token ids must be in [0, {vocab})", mend="tokenize with this model")


def require_base(wanted: Digest | None, served: Digest) -> None:
    """Raises AdapterRefused if an adapter was made for another base; None is any."""
    if wanted not in (None, served):
        raise AdapterRefused(
            f"trained on base {wanted}, served base is {served}",
            mend="serve the base it was trained on, or retrain on this one",
        )


def sweep(
    running: list[Sequence],
    line: WaitingLine,
    retire: Callable[[Sequence], None],
    turn_away: Callable[[Sequence], None] | None = None,
) -> None:
    """Let go of what was cancelled or came too late.

    `retire` takes it from those who run, `turn_away` (or the line itself) from those who wait.
    """
    held = set(running)
    for sequence in [*running, *line.snapshot()]:
        if not (sequence.stream.cancelled or sequence.expired):
            continue
        if sequence in held:
            retire(sequence)
        else:
            (turn_away or line.take)(sequence)
        if sequence.stream.cancelled:
            sequence.finish("cancelled")
        else:
            sequence.stream.push(
                DeadlineExceeded(
                    f"not finished within {sequence.request.deadline_s} s",
                    mend="allow more time, or ask for fewer tokens",
                )
            )
