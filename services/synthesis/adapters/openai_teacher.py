"""A teacher behind any OpenAI-compatible endpoint, through the official client."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from openai import (
    APIConnectionError,
    APIStatusError,
    AsyncOpenAI,
    AuthenticationError,
    BadRequestError,
    NotFoundError,
    PermissionDeniedError,
    UnprocessableEntityError,
)

from contracts.base import Problem
from contracts.data import Message
from services.synthesis.teachers import Completion
from shared.errors import InvalidInput, Misconfigured, PeerUnavailable


class OpenAITeacher:
    """`TeacherPort` over `AsyncOpenAI`. The client retries brief outages itself."""

    def __init__(
        self,
        model: str,
        *,
        base_url: str,
        api_key: str = "unused",
        timeout_s: float = 120.0,
        retries: int = 3,
    ) -> None:
        self._model = model
        self._client = AsyncOpenAI(
            base_url=base_url, api_key=api_key, timeout=timeout_s, max_retries=retries
        )

    async def complete(
        self,
        messages: Sequence[Message],
        *,
        temperature: float,
        top_p: float,
        max_tokens: int,
        seed: int,
        key: str,
    ) -> Completion:
        """One answer; see `TeacherPort.complete` for what it raises."""
        turns: Any = [message.model_dump() for message in messages]
        try:
            answer = await self._client.chat.completions.create(
                model=self._model,
                messages=turns,
                temperature=temperature,
                top_p=top_p,
                max_tokens=max_tokens,
                seed=seed,
                extra_headers={"Idempotency-Key": key},
            )
        except (AuthenticationError, PermissionDeniedError, NotFoundError) as error:
            raise Misconfigured(
                f"teacher {self._model!r} refuses us: {error.message}",
                mend="check the teacher's url, model name and key",
            ) from error
        except (BadRequestError, UnprocessableEntityError) as error:
            raise InvalidInput(
                [Problem(where=self._model, problem=error.message, mend="shorten the request")]
            ) from error
        except (APIConnectionError, APIStatusError) as error:
            raise PeerUnavailable(f"teacher {self._model!r}: {error.message}") from error
        text = (answer.choices[0].message.content or "") if answer.choices else ""
        tokens = answer.usage.total_tokens if answer.usage else 0
        cut = bool(answer.choices) and answer.choices[0].finish_reason == "length"
        version = answer.system_fingerprint or answer.model or "v1"
        return Completion(text, version, tokens, cut)

    async def aclose(self) -> None:
        await self._client.close()
