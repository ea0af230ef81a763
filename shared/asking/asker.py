"""The client: bounded concurrency, retries, cached greedy answers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import openai

from contracts.data import Row
from shared.asking.cache import AnswerCache
from shared.asking.request import Answer, AskOptions, call_text, chat_request
from shared.asking.retry import Retry, together
from shared.errors import PeerUnavailable, PermanentError
from shared.telemetry import current_traceparent

OnDone = Callable[[int, int, Row, Answer], None]
"""Called after each answer: done, total, the row, its answer."""


class Asker:
    """Asks one endpoint. An async context manager, or call `close()`.

    Connection errors, 408, 409, 429 (its `Retry-After` is honoured) and 5xx are tried again with
    exponential backoff by the OpenAI client.
    """

    def __init__(
        self,
        base_url: str,
        api_key: str = "unused",
        cache: Path | None = None,
        *,
        concurrency: int = 16,
        timeout_s: float = 300.0,
        retries: int = 5,
    ) -> None:
        self._base_url = base_url
        self._client = openai.AsyncOpenAI(
            base_url=base_url, api_key=api_key, timeout=timeout_s, max_retries=retries
        )
        self._cache = AnswerCache(cache) if cache is not None else None
        self._slots = asyncio.Semaphore(concurrency)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        await self._client.close()

    async def ask(
        self,
        row: Row,
        *,
        model: str,
        options: AskOptions | None = None,
        identity: str | None = None,
        retry: Retry | None = None,
    ) -> Answer:
        """The model's answer to one row.

        `identity` is the digest of what `model` names (base or adapter): with it, greedy answers
        come from the cache. With `retry`, an answer its validator refuses is asked for again.

        Raises:
            PeerUnavailable: the endpoint does not answer, or answers 429 or 5xx to the last try.
            PermanentError: the endpoint refuses the request.
        """
        options = options or AskOptions()
        answer = await self._ask_once(row, model, options, identity)
        while retry is not None and (next_row := retry.again(row, answer)) is not None:
            answer = together(answer, await self._ask_once(next_row, model, options, identity))
        return answer

    async def _ask_once(
        self, row: Row, model: str, options: AskOptions, identity: str | None
    ) -> Answer:
        request = chat_request(row, options)
        key = None
        if self._cache is not None and identity is not None and options.temperature == 0:
            key = self._cache.key(identity, request)
            if (kept := self._cache.get(key)) is not None:
                return kept
        async with self._slots:
            answer = await self._create(model, request, options)
        if key is not None and self._cache is not None:
            self._cache.put(key, answer)
        return answer

    async def ask_all(
        self,
        rows: Sequence[Row],
        *,
        model: str,
        options: AskOptions | None = None,
        identity: str | None = None,
        retry: Retry | None = None,
        on_done: OnDone | None = None,
    ) -> list[Answer]:
        """Answers in the order of `rows`. The first error cancels what has not been answered."""
        done = 0

        async def one(row: Row) -> Answer:
            nonlocal done
            answer = await self.ask(
                row, model=model, options=options, identity=identity, retry=retry
            )
            done += 1
            if on_done is not None:
                on_done(done, len(rows), row, answer)
            return answer

        tasks = [asyncio.ensure_future(one(row)) for row in rows]
        try:
            return list(await asyncio.gather(*tasks))
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _create(self, model: str, request: dict[str, Any], options: AskOptions) -> Answer:
        try:
            raw = await self._client.chat.completions.with_raw_response.create(
                model=model, extra_headers=_headers(options), **request
            )
            completion = raw.parse()
        except openai.APIStatusError as error:
            if error.status_code in (408, 409, 429) or error.status_code >= 500:
                raise self._gone(error) from error
            raise PermanentError(
                f"{self._base_url} refuses the request ({error.status_code}): {error.message}",
                mend="Check the model's name, its tenant, and the row it was asked about.",
            ) from error
        except openai.APIConnectionError as error:
            raise self._gone(error) from error
        choice, usage = completion.choices[0], completion.usage
        calls = [call.model_dump() for call in choice.message.tool_calls or ()]
        return Answer(
            text=call_text(choice.message.content, calls),
            latency_ms=raw.elapsed.total_seconds() * 1000,
            prompt_tokens=usage.prompt_tokens if usage else 0,
            completion_tokens=usage.completion_tokens if usage else 0,
            finish_reason=choice.finish_reason,
        )

    def _gone(self, error: Exception) -> PeerUnavailable:
        return PeerUnavailable(
            f"{self._base_url} does not answer: {error}",
            mend="Check that the endpoint runs and can be reached; the work resumes by itself.",
        )


def _headers(options: AskOptions) -> dict[str, str]:
    """The options' headers, and the trace that asks: serving's span becomes its child."""
    trace = current_traceparent()
    return {**options.extra_headers, **({"traceparent": trace} if trace else {})}
