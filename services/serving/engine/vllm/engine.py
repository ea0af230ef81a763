"""The engine port over vLLM: adapters through its LoRA routes, tokens through its completions.

vLLM schedules, batches and pages. What a request means stays ours: adapters are checked here before
vLLM sees their folder, and carry their content digest as their name.
"""

from __future__ import annotations

import asyncio
import functools
import json
import logging
import threading
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import torch
from safetensors import safe_open

from contracts.base import Digest
from services.serving.engine.adapters import (
    LoadedAdapter,
    read_adapter,
    read_folder,
)
from services.serving.engine.checkpoint import LlamaShape, NotLlama, end_tokens, weight_files
from services.serving.engine.constraint import Constraints
from services.serving.engine.delivery import EventStream
from services.serving.engine.lifecycle import require_base, require_fit
from services.serving.engine.llama_engine import EngineConfig
from services.serving.engine.port import (
    AdapterInfo,
    AdapterNotLoaded,
    AdapterRefused,
    ContextExceeded,
    DeadlineExceeded,
    GenerationRequest,
    ModelInfo,
    Overloaded,
    PromptScored,
    Tier,
)
from services.serving.engine.shelf import AdapterShelf
from services.serving.engine.vllm import dialect
from services.serving.engine.vllm.flags import VllmFlags
from services.serving.engine.vllm.server import BASE, VllmServer
from services.serving.engine.vllm.standing import StandingServer
from shared.errors import PermanentError, TransientError
from shared.models import base_digest, tokenizer_digest

_log = logging.getLogger(__name__)


class VllmAway(TransientError):
    """vLLM ended, or broke off an answer."""


@dataclass(frozen=True, slots=True)
class _Registered:
    """An adapter vLLM knows by its digest."""

    info: AdapterInfo
    folder: Path


class _Call(EventStream):
    """A request under way; cancelling it closes the connection, on which vLLM lets go of it."""

    task: asyncio.Task[None] | None = None
    began = False
    """A task that never ran would say nothing when it is cancelled."""

    def cancel(self) -> None:
        super().cancel()
        if self.task is not None and self.began:
            self.task.cancel()


class VllmEngine:
    """See `services.serving.engine.port.Engine`."""

    def __init__(
        self,
        folder: Path,
        config: EngineConfig,
        flags: VllmFlags,
        *,
        python: Path,
        label: str = "",
        digest_cache: Path | None = None,
    ) -> None:
        """Start vLLM on a checkpoint and wait until it answers.

        Raises:
            Misconfigured: there is no such environment, or vLLM does not start.

        """
        from transformers import AutoTokenizer

        self._config, self._flags = config, flags
        start = functools.partial(
            VllmServer, python, folder, flags, dtype=config.dtype, slots=config.slots
        )
        self._server = StandingServer(start, restore=self._load_again)
        self._tokenizer = AutoTokenizer.from_pretrained(folder)
        described = json.loads((folder / "config.json").read_text())
        self._eos = end_tokens(folder, described)
        vocab = described["vocab_size"]
        self._constraints = Constraints(self._tokenizer, vocab, self._eos)
        self._shape = _llama_shape(folder)
        self._base_bytes = sum(file.stat().st_size for file in weight_files(folder))
        self._shelf: AdapterShelf[_Registered] = AdapterShelf(config.max_adapters)
        self._changing = threading.Lock()
        self._open: Counter[str] = Counter()
        """Model → requests under way."""
        self._leaving: set[Digest] = set()
        """Unloaded here, still needed there."""
        self._info = ModelInfo(
            label=label or folder.resolve().name,
            base=base_digest(folder, cache=digest_cache),
            tokenizer=tokenizer_digest(folder, cache=digest_cache),
            max_lora_rank=config.max_lora_rank,
            target_modules=_linear_names(folder),
            dtype=config.dtype,
            vocab_size=vocab,
            context=flags.max_model_len,
            details={"engine": "vllm", "flags": " ".join(flags.argv())},
        )
        self._server.open()

    @property
    def ready(self) -> bool:
        return self._server.ready

    @property
    def info(self) -> ModelInfo:
        return self._info

    @property
    def tokenizer(self) -> Any:
        return self._tokenizer

    def close(self) -> None:
        """End vLLM; running requests fail."""
        self._server.close()

    # Adapters.

    def load_adapter(self, folder: Path, *, base: Digest | None = None) -> AdapterInfo:
        require_base(base, self._info.base)
        with self._changing:
            info = self._checked(folder)
            before = {known.digest for known in self._shelf.list()}
            if not self._server.ready:
                raise VllmAway("vLLM is being started again", mend="ask again in a minute")
            if info.digest not in before | self._leaving:
                self._post("load", lora_name=info.digest, lora_path=str(folder.resolve()))
            self._leaving.discard(info.digest)
            self._shelf.put(_Registered(info, folder))
            self._leaving |= before - {known.digest for known in self._shelf.list()}
            self._let_go()
            return info

    def _load_again(self) -> None:
        """Give a fresh vLLM the adapters the last one had; who cannot be read is forgotten."""
        with self._changing:
            self._leaving.clear()
            for info in self._shelf.list():
                folder = self._shelf.get(info.digest).folder
                try:
                    self._post("load", lora_name=info.digest, lora_path=str(folder.resolve()))
                except AdapterRefused as refused:
                    _log.warning("adapter %s is left behind: %s", info.digest, refused)
                    self._shelf.drop(info.digest)

    def unload_adapter(self, digest: Digest) -> None:
        with self._changing:
            if any(known.digest == digest for known in self._shelf.list()):
                self._shelf.drop(digest)
                self._leaving.add(digest)
                self._let_go()

    def _let_go(self) -> None:
        """Unload at vLLM what left and no request is under way for."""
        for digest in [d for d in self._leaving if not self._open[d]]:
            self._leaving.discard(digest)
            self._post("unload", lora_name=digest)

    def _let_go_later(self) -> None:
        with self._changing:
            self._let_go()

    def pin_adapter(self, digest: Digest, pinned: bool) -> None:
        self._shelf.pin(digest, pinned)

    def stats(self) -> None:
        """VLLM keeps its own, at its own `/metrics`."""

    def adapters(self) -> tuple[AdapterInfo, ...]:
        """Tiers are those of vLLM's own rule, least recently used first out of each."""
        held = self._shelf.list()
        return tuple(
            replace(info, tier=self._tier(len(held) - place)) for place, info in enumerate(held)
        )

    def _tier(self, recency: int) -> Tier:
        """`recency` 1 is the adapter asked for last."""
        if recency <= self._flags.max_loras:
            return "pool"
        return "host" if recency <= self._flags.max_cpu_loras else "disk"

    def _checked(self, folder: Path) -> AdapterInfo:
        rank, dtype = self._config.max_lora_rank, getattr(torch, self._config.dtype)
        if self._shape is not None:
            read: LoadedAdapter = read_adapter(
                folder, self._shape, base=self._info.base, max_rank=rank, dtype=dtype
            )
            return read.info
        held = read_folder(  # no adapter is as large as its base
            folder,
            self._info.base,
            max_rank=rank,
            limit=self._base_bytes,
            applied=("fan_in_fan_out",),
        )
        return AdapterInfo(
            digest=held.digest,
            rank=int(held.config["r"]),
            bytes=sum(t.numel() for t in held.tensors.values()) * dtype.itemsize,
            target_modules=tuple(sorted({key.split(".")[-3] for key in held.tensors})),
        )

    def _post(self, what: str, **fields: str) -> None:
        try:
            with self._server.client() as http:
                answer = http.post(f"/v1/{what}_lora_adapter", json=fields)
        except httpx.HTTPError as error:
            raise VllmAway(f"vLLM does not {what}: {error!r}", mend="ask again") from error
        if not answer.is_success:
            raise AdapterRefused(
                f"vLLM does not {what} it: {_said(answer.text)}", mend="mend the adapter"
            )

    # Requests.

    async def submit(self, request: GenerationRequest) -> EventStream:
        require_fit(request, context=self._info.context, vocab=self._info.vocab_size)
        self._constraints.start(request)
        if request.adapter is not None:
            self._shelf.get(request.adapter)
        if not self._server.ready:
            raise VllmAway("vLLM is being started again", mend="ask again in a minute")
        if self._open.total() >= self._config.queue + self._config.slots:
            raise Overloaded("too many requests are at vLLM already", retry_after_s=2.0)
        call = _Call()
        self._open[request.adapter or BASE] += 1
        call.task = asyncio.create_task(self._run(request, call))
        return call

    async def _run(self, request: GenerationRequest, call: _Call) -> None:
        limit = min(request.max_tokens, self._info.context - len(request.prompt))
        answer = dialect.Answer(request, self._tokenizer, eos=self._eos, limit=limit)
        call.began = True
        try:
            if call.cancelled:
                raise asyncio.CancelledError
            async with asyncio.timeout(request.deadline_s), self._server.async_client() as http:
                if request.prompt_logprobs is not None or request.next_token_ids or limit <= 0:
                    await self._whole(http, request, call, answer, limit)
                else:
                    await self._streamed(http, request, call, answer, limit)
            call.push(answer.finish())
        except asyncio.CancelledError:
            call.push(answer.finish(cancelled=True))
        except TimeoutError:
            call.push(
                DeadlineExceeded(
                    f"not finished within {request.deadline_s} s",
                    mend="allow more time, or ask for fewer tokens",
                )
            )
        except httpx.HTTPError as error:
            call.push(VllmAway(f"vLLM broke off: {error!r}", mend="ask again"))
        except Exception as error:
            call.push(error)
        finally:
            self._open[request.adapter or BASE] -= 1
            if request.adapter in self._leaving:
                await asyncio.to_thread(self._let_go_later)

    async def _whole(
        self,
        http: httpx.AsyncClient,
        request: GenerationRequest,
        call: _Call,
        answer: dialect.Answer,
        limit: int,
    ) -> None:
        model = request.adapter or BASE
        asked = dialect.body(request, model=model, limit=limit, eos=self._eos)
        found = await _answered(http, asked)
        choice = found["choices"][0]
        following: tuple[float, ...] = ()
        if request.next_token_ids:
            scored = await _answered(http, dialect.scoring_body(request, model=model))
            following = dialect.next_token_scores(scored, request.next_token_ids)
        if request.prompt_logprobs is not None or request.next_token_ids:
            call.push(PromptScored(dialect.prompt_scores(choice, request).tokens, following))
        answer.noted(found.get("usage"))
        for event in answer.feed(choice):
            call.push(event)

    async def _streamed(
        self,
        http: httpx.AsyncClient,
        request: GenerationRequest,
        call: _Call,
        answer: dialect.Answer,
        limit: int,
    ) -> None:
        asked = dialect.body(request, model=request.adapter or BASE, limit=limit, eos=self._eos) | {
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        async with http.stream("POST", "/v1/completions", json=asked) as response:
            if not response.is_success:
                raise _refusal(response.status_code, (await response.aread()).decode())
            async for chunk in _chunks(response):
                answer.noted(chunk.get("usage"))
                for choice in chunk["choices"]:
                    for event in answer.feed(choice):
                        call.push(event)
                if answer.stopped:
                    return


async def _answered(http: httpx.AsyncClient, asked: dict[str, Any]) -> dict[str, Any]:
    response = await http.post("/v1/completions", json=asked)
    if not response.is_success:
        raise _refusal(response.status_code, response.text)
    found: dict[str, Any] = response.json()
    return found


async def _chunks(response: httpx.Response) -> AsyncIterator[dict[str, Any]]:
    async for line in response.aiter_lines():
        if not line.startswith("data: ") or line == "data: [DONE]":
            continue
        chunk = json.loads(line.removeprefix("data: "))
        if "error" in chunk:
            raise _refusal(500, json.dumps(chunk))
        yield chunk


def _said(text: str) -> str:
    try:
        message: str = json.loads(text)["error"]["message"]
    except (ValueError, KeyError, TypeError):
        return text[:200]
    return message


def _refusal(status: int, text: str) -> Exception:
    said = _said(text)
    if status == 404:
        return AdapterNotLoaded(f"vLLM: {said}", mend="load it first")
    if "context length" in said:
        return ContextExceeded(f"vLLM: {said}", mend="shorten the prompt")
    if status < 500:
        return PermanentError(f"vLLM refuses: {said}", mend="mend the request")
    return VllmAway(f"vLLM: {said}", mend="ask again")


def _llama_shape(folder: Path) -> LlamaShape | None:
    try:
        return LlamaShape.read(folder)
    except NotLlama:
        return None


def _linear_names(folder: Path) -> tuple[str, ...]:
    """Names of the matrices in the checkpoint's layers: what an adapter may touch."""
    names: dict[str, None] = {}
    for path in weight_files(folder):
        with safe_open(path, framework="pt") as file:
            for key in file.keys():  # noqa: SIM118 - safe_open is no mapping
                parts = key.split(".")
                inside = any(part.isdecimal() for part in parts) and parts[-1] == "weight"
                if inside and len(file.get_slice(key).get_shape()) == 2:
                    names[parts[-2]] = None
    return tuple(names)
