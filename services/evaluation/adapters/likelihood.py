"""How likely a model finds a text as the answer to a request, over the completions API."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx

from shared.chat import prompt_ids
from shared.errors import PeerUnavailable, PermanentError

_AT_ONCE = 32


async def log_likelihoods(
    http: httpx.AsyncClient, model: str, tokenizer: Path, request: str, texts: Sequence[str]
) -> list[float]:
    """Nats, summed over each text's tokens, after `request` as the only user turn.

    Raises:
        PeerUnavailable: the endpoint does not answer.
        PermanentError: it refuses the request, or gives no log-probabilities.
    """
    from transformers import AutoTokenizer

    reader: Any = AutoTokenizer.from_pretrained(tokenizer)
    start = prompt_ids(reader, [{"role": "user", "content": request}])
    ends = [reader(text, add_special_tokens=False)["input_ids"] for text in texts]
    sums: list[float] = []
    for first in range(0, len(ends), _AT_ONCE):
        group = ends[first : first + _AT_ONCE]
        body = {
            "model": model,
            "prompt": [[*start, *end] for end in group],
            "max_tokens": 1,
            "echo": True,
            "logprobs": 0,
            "temperature": 0,
        }
        for end, choice in zip(group, await _choices(http, body), strict=True):
            values = choice["logprobs"]["token_logprobs"][len(start) : len(start) + len(end)]
            sums.append(sum(values))
    return sums


async def _choices(http: httpx.AsyncClient, body: dict[str, Any]) -> list[dict[str, Any]]:
    try:
        response = await http.post("completions", json=body)
    except httpx.HTTPError as error:
        raise PeerUnavailable(f"serving does not answer: {error!r}") from error
    if response.status_code == 429 or response.status_code >= 500:
        raise PeerUnavailable(f"serving answers {response.status_code}")
    if response.is_error:
        raise PermanentError(
            f"serving refuses log-probabilities: {response.text[:300]}",
            mend="ask an endpoint that answers /v1/completions with echo and logprobs",
        )
    choices: list[dict[str, Any]] = response.json()["choices"]
    return sorted(choices, key=lambda choice: int(choice["index"]))
