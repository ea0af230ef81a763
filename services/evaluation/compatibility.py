"""What G2 asks of the engine, whoever starts it: its facts, and the prompts training fingerprinted.

What the engine cannot take by its own facts is not asked for: the verdict names it at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import httpx
from pydantic import TypeAdapter

from contracts.serving import EngineDescription, FingerprintAnswer, FingerprintQuestion
from contracts.training import Fingerprint
from services.evaluation.gates import g2
from services.evaluation.gates.judgement import Judgement
from shared.errors import PeerUnavailable, PermanentError

FILE = "fingerprints.json"
BASE = "base"
_FINGERPRINTS = TypeAdapter(tuple[Fingerprint, ...])


async def compatibility_of(
    http: httpx.AsyncClient,
    candidate: str,
    folder: Path,
    adapter: g2.AdapterFacts,
    *,
    merged: bool = False,
) -> Judgement:
    """G2 of the adapter in `folder`, which serving answers for under the name `candidate`.

    If it is `merged`, serving's base is the checkpoint that holds it, and is asked in its place.

    Raises:
        PeerUnavailable: serving does not answer.
        PermanentError: it refuses, or the folder has no fingerprints.
    """
    prints = _fingerprints(folder)
    described = EngineDescription.model_validate_json(
        await send(http, http.build_request("GET", "internal/engine"))
    )
    engine = g2.EngineFacts(
        base=described.base,
        tokenizer=described.tokenizer,
        maximum_rank=described.max_lora_rank,
        target_modules=described.target_modules,
    )
    if merged:  # a checkpoint of its own, so no digest tells where it is from: the prompts do
        adapter = replace(adapter, base=engine.base, tokenizer=engine.tokenizer)
    if g2.incompatibilities(adapter, engine):
        return g2.judge(adapter, engine, (), ())
    return g2.judge(
        adapter,
        engine,
        prints,
        [await _served(http, (BASE,) if merged else (candidate, BASE), one) for one in prints],
        tolerance=g2.TOLERANCE_NATS[described.dtype],
    )


def _fingerprints(folder: Path) -> tuple[Fingerprint, ...]:
    try:
        return _FINGERPRINTS.validate_json((folder / FILE).read_bytes())
    except (OSError, ValueError) as error:
        raise PermanentError(
            f"{folder} has no readable {FILE}: {error}",
            mend="give an adapter that `sluice` trained; others recorded no prompts to re-check",
        ) from error


async def _served(
    http: httpx.AsyncClient, models: Sequence[str], trained: Fingerprint
) -> g2.Served:
    """The engine's view of one fingerprinted prompt: what stands for the candidate, the base."""
    answers = []
    for model in models:
        question = FingerprintQuestion(
            model=model,
            messages=trained.messages,
            tools=trained.tools,
            token_ids=trained.top_token_ids,
        )
        body = question.model_dump(mode="json")
        content = await send(http, http.build_request("POST", "internal/fingerprint", json=body))
        answers.append(FingerprintAnswer.model_validate_json(content))
    found = [dict(zip(trained.top_token_ids, a.logprobs, strict=True)) for a in answers]
    return g2.Served(
        prompt_token_ids=answers[0].prompt_token_ids,
        candidate=found[0],
        base=found[1] if len(found) > 1 else None,
    )


async def send(http: httpx.AsyncClient, request: httpx.Request) -> bytes:
    """The body of the answer. Raises PeerUnavailable or PermanentError."""
    try:
        response = await http.send(request)
    except httpx.HTTPError as error:
        raise PeerUnavailable(f"serving does not answer: {error!r}") from error
    if response.status_code == 429 or response.status_code >= 500:
        raise PeerUnavailable(f"serving answers {response.status_code}")
    if response.is_error:
        raise PermanentError(
            f"serving refuses {request.url.path}: {response.text[:500]}",
            mend="see that serving runs the same version as evaluation",
        )
    return response.content
