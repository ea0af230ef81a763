"""What G2 asks of the engine, whoever starts it: its facts, and the prompts training fingerprinted.

What the engine cannot take by its own facts is not asked for: the verdict names it at once.
"""

from __future__ import annotations

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
    http: httpx.AsyncClient, candidate: str, folder: Path, adapter: g2.AdapterFacts
) -> Judgement:
    """G2 of the adapter in `folder`, which serving answers for under the name `candidate`.

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
    if g2.incompatibilities(adapter, engine):
        return g2.judge(adapter, engine, (), ())
    return g2.judge(
        adapter,
        engine,
        prints,
        [await _served(http, candidate, one) for one in prints],
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


async def _served(http: httpx.AsyncClient, candidate: str, trained: Fingerprint) -> g2.Served:
    """The engine's view of one fingerprinted prompt, with and without the adapter."""
    answers = []
    for model in (candidate, BASE):
        question = FingerprintQuestion(
            model=model,
            messages=trained.messages,
            tools=trained.tools,
            token_ids=trained.top_token_ids,
        )
        body = question.model_dump(mode="json")
        content = await send(http, http.build_request("POST", "internal/fingerprint", json=body))
        answers.append(FingerprintAnswer.model_validate_json(content))
    with_adapter, without = answers
    ids = trained.top_token_ids
    return g2.Served(
        prompt_token_ids=with_adapter.prompt_token_ids,
        candidate=dict(zip(ids, with_adapter.logprobs, strict=True)),
        base=dict(zip(ids, without.logprobs, strict=True)),
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
