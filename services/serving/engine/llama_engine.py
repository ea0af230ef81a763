"""The engine for Llama-family checkpoints: one thread steps, callers await events.

Each step runs one forward pass over all decoding sequences and as much waiting prompt as the step's
budget allows, then samples. Slots hold the keys and values of running sequences; prompt beginnings
are shared through the prefix cache.
"""

from __future__ import annotations

import heapq
import logging
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from contracts.base import Digest
from kernels.native import NativeUnavailable, library
from services.serving.engine import sampling
from services.serving.engine.adapters import AdapterShelf, content_digest, read_adapter
from services.serving.engine.batching import WaitingLine, admissible, step_of
from services.serving.engine.constraint import Constraints
from services.serving.engine.model import FUSED, Llama
from services.serving.engine.port import (
    AdapterInfo,
    AdapterRefused,
    ContextExceeded,
    DeadlineExceeded,
    GenerationRequest,
    ModelInfo,
    PromptScored,
    Token,
    TokenLogprob,
)
from services.serving.engine.prefix_cache import PrefixCache, block_keys
from services.serving.engine.sequence import EventStream, Sequence
from services.serving.engine.text import TextStream
from services.serving.engine.turns import Turns
from shared.models import base_digest, tokenizer_digest

_log = logging.getLogger(__name__)
_LOGIT_ROWS = 128
"""Rows whose logits are held at once while a prompt is scored."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineConfig:
    """How a checkpoint is served."""

    dtype: Literal["float32", "bfloat16"] = "float32"
    context: int = 4096
    """Longest sequence; the checkpoint's own limit if that is less."""
    slots: int = 32
    """Sequences that run at once."""
    step_tokens: int = 512
    """Rows of one step: what bounds the wait of running answers for a new prompt."""
    queue: int = 1024
    prefix_cache_bytes: int = 1 << 30
    max_adapters: int = 64
    max_lora_rank: int = 64
    threads: int = 2
    kernels: Literal["auto", "native", "reference"] = "auto"
    """`auto` is native where it can be compiled, and says so where it cannot."""


def available(wanted: Literal["auto", "native", "reference"]) -> str:
    """The kernels to run with. Raises NativeUnavailable if `native` is insisted on."""
    if wanted != "auto":
        return wanted
    try:
        library()
    except NativeUnavailable as reason:
        _log.warning("serving on the plain torch kernels, several times slower: %s", reason)
        return "reference"
    return "native"


class LlamaEngine:
    """See `services.serving.engine.port.Engine`."""

    def __init__(
        self,
        folder: Path,
        config: EngineConfig = EngineConfig(),
        *,
        label: str = "",
        digest_cache: Path | None = None,
    ) -> None:
        from transformers import AutoTokenizer

        self._config = config
        torch.set_num_threads(config.threads)
        dtype = getattr(torch, config.dtype)
        kernels = available(config.kernels)
        self._model = Llama(folder, dtype=dtype, context=config.context, kernels=kernels)
        self._tokenizer = AutoTokenizer.from_pretrained(folder)
        shape = self._model.shape
        self._info = ModelInfo(
            label=label or folder.resolve().name,
            base=base_digest(folder, cache=digest_cache),
            tokenizer=tokenizer_digest(folder, cache=digest_cache),
            max_lora_rank=config.max_lora_rank,
            target_modules=tuple(name for fused in FUSED.values() for name in fused),
            dtype=config.dtype,
            vocab_size=shape.vocab,
            context=self._model.context,
            details={"kernels": kernels},
        )
        self._constraints = Constraints(self._tokenizer, shape.vocab, shape.eos)
        self._shelf = AdapterShelf(config.max_adapters)
        self._line = WaitingLine(config.queue)
        self.prefixes = PrefixCache(config.prefix_cache_bytes)
        self._cache = self._model.new_cache(config.slots)
        self._free = list(range(config.slots))
        self._running: list[Sequence] = []
        self._turns = Turns()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    @property
    def ready(self) -> bool:
        return self._thread.is_alive() and not self._stopping

    @property
    def info(self) -> ModelInfo:
        return self._info

    @property
    def tokenizer(self) -> Any:
        return self._tokenizer

    def load_adapter(self, folder: Path, *, base: Digest | None = None) -> AdapterInfo:
        if base not in (None, self._info.base):
            raise AdapterRefused(
                f"trained on base {base}, served base is {self._info.base}",
                mend="serve the base it was trained on, or retrain on this one",
            )
        adapter = read_adapter(
            folder,
            self._model.shape,
            base=self._info.base,
            max_rank=self._config.max_lora_rank,
            dtype=self._model.dtype,
        )
        self._shelf.put(adapter)
        return adapter.info

    def unload_adapter(self, digest: Digest) -> None:
        self._shelf.drop(digest)

    def adapters(self) -> tuple[AdapterInfo, ...]:
        return self._shelf.list()

    async def submit(self, request: GenerationRequest) -> EventStream:
        self._check(request)
        adapter = self._shelf.get(request.adapter) if request.adapter else None
        constraint = self._constraints.start(request)
        reusable = request.prompt[:-1] if request.prompt_logprobs is None else ()
        sequence = Sequence(
            request=request,
            stream=EventStream(),
            adapter=adapter,
            constraint=constraint,
            draws=sampling.generator(request.sampling),
            text=TextStream(self._tokenizer, request.stop),
            limit=min(request.max_tokens, self._model.context - len(request.prompt)),
            keys=block_keys(request.adapter, reusable),
        )
        self._line.put(sequence)
        return sequence.stream

    def _check(self, request: GenerationRequest) -> None:
        room = self._model.context - (1 if request.max_tokens else 0)
        if not 0 < len(request.prompt) <= room:
            raise ContextExceeded(
                f"the prompt has {len(request.prompt)} tokens, 1 to {room} fit",
                mend="shorten the prompt, or raise SLUICE_SERVING_CONTEXT up to the model's limit",
            )
        if not all(
            0 <= t < self._info.vocab_size
            for t in (
                *request.prompt,
                *request.next_token_ids,
                *(token for token, _ in request.sampling.logit_bias),
            )
        ):
            raise ContextExceeded(
                f"token ids must be in [0, {self._info.vocab_size})",
                mend="tokenize with this model",
            )

    def close(self) -> None:
        """Stop the thread; running requests end as cancelled."""
        self._stopping = True
        with self._line.changed:
            self._line.changed.notify()
        self._thread.join(timeout=30)

    # The engine's thread.

    def _run(self) -> None:
        torch.set_num_threads(self._config.threads)
        with torch.inference_mode():
            while not self._stopping:
                self._sweep()
                self._admit()
                if self._running:
                    self._step_safely()
                else:
                    self._turns.rest()
                    with self._line.changed:
                        if not len(self._line) and not self._stopping:
                            self._line.changed.wait(timeout=1.0)
        for sequence in [*self._running, *self._line.snapshot()]:
            sequence.finish("cancelled")

    def _step_safely(self) -> None:
        try:
            self._step()
        except Exception as error:
            _log.exception("an engine step failed; its requests are failed with it")
            for sequence in list(self._running):
                self._retire(sequence)
                sequence.stream.push(error)

    def _sweep(self) -> None:
        """Let go of what was cancelled or came too late."""
        running = set(self._running)
        for sequence in [*self._running, *self._line.snapshot()]:
            if not (sequence.stream.cancelled or sequence.expired):
                continue
            if sequence in running:
                self._retire(sequence)
            else:
                self._line.take(sequence)
            if sequence.stream.cancelled:
                sequence.finish("cancelled")
            else:
                sequence.stream.push(
                    DeadlineExceeded(
                        f"not finished within {sequence.request.deadline_s} s",
                        mend="allow more time, or ask for fewer tokens",
                    )
                )

    def _admit(self) -> None:
        if not self._free or not len(self._line):
            return
        waiting = self._line.snapshot()
        for sequence in admissible(waiting, self._running, len(self._free), self.prefixes):
            self._line.take(sequence)
            sequence.slot = heapq.heappop(self._free)
            sequence.cached = self.prefixes.restore(sequence.keys, self._cache, sequence.slot)
            sequence.computed = sequence.cached
            self._running.append(sequence)

    def _retire(self, sequence: Sequence) -> None:
        self._running.remove(sequence)
        heapq.heappush(self._free, sequence.slot)

    def _step(self) -> None:
        batch, parts = step_of(*self._turns.next(self._running, self._config.step_tokens))
        hidden = self._model.forward(batch, self._cache)
        ready: list[tuple[Sequence, int]] = []
        for sequence, row, length in parts:
            if sequence.prefilling:
                self._score_prompt(sequence, hidden[row : row + length])
                sequence.computed += length
                self.prefixes.keep(sequence.keys, sequence.computed, self._cache, sequence.slot)
                if sequence.prefilling:
                    continue
            else:
                sequence.computed += 1
            ready.append((sequence, row + length - 1))
        if ready:
            logits = self._model.logits(hidden[[row for _, row in ready]])
            self._advance([sequence for sequence, _ in ready], logits)

    def _score_prompt(self, sequence: Sequence, hidden: Tensor) -> None:
        wanted = sequence.request.prompt_logprobs
        if wanted is None:
            return
        following = sequence.request.prompt[sequence.computed + 1 :][: len(hidden)]
        for start in range(0, len(following), _LOGIT_ROWS):
            targets = following[start : start + _LOGIT_ROWS]
            logits = self._model.logits(hidden[start : start + len(targets)])
            logprobs = logits.float().log_softmax(-1)
            chosen = logprobs.gather(1, torch.tensor(targets)[:, None])[:, 0].tolist()
            values, ids = logprobs.topk(max(wanted, 1))
            for at, (target, value) in enumerate(zip(targets, chosen, strict=True)):
                top = tuple(zip(ids[at].tolist(), values[at].tolist(), strict=True))[:wanted]
                sequence.prompt_logprobs.append(TokenLogprob(target, value, top))

    def _advance(self, sequences: list[Sequence], logits: Tensor) -> None:
        best, value, mass = self._model.summarize(logits)
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
        if token in self._model.shape.eos and not request.ignore_eos:
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


__all__ = ["EngineConfig", "LlamaEngine", "content_digest"]
