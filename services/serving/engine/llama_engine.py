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

from contracts.base import Digest
from kernels.native import NativeUnavailable, library
from services.serving.engine import sampling
from services.serving.engine.adapters import LoadedAdapter, content_digest, read_adapter
from services.serving.engine.answering import Answering
from services.serving.engine.batching import WaitingLine, admissible, step_of
from services.serving.engine.constraint import Constraints
from services.serving.engine.lifecycle import require_fit, sweep
from services.serving.engine.model import FUSED, Llama
from services.serving.engine.port import (
    AdapterInfo,
    AdapterRefused,
    GenerationRequest,
    ModelInfo,
)
from services.serving.engine.prefix_cache import PrefixCache, block_keys
from services.serving.engine.sequence import EventStream, Sequence
from services.serving.engine.shelf import AdapterShelf
from services.serving.engine.text import TextStream
from shared.models import base_digest, tokenizer_digest

_log = logging.getLogger(__name__)


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
        self._shelf: AdapterShelf[LoadedAdapter] = AdapterShelf(config.max_adapters)
        self._line = WaitingLine(config.queue)
        self.prefixes = PrefixCache(config.prefix_cache_bytes)
        self._cache = self._model.new_cache(config.slots)
        self._free = list(range(config.slots))
        self._running: list[Sequence] = []
        self._answering = Answering(
            logits=self._model.logits,
            summarize=self._model.summarize,
            eos=shape.eos,
            retire=self._retire,
        )
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

    def pin_adapter(self, digest: Digest, pinned: bool) -> None:
        self._shelf.pin(digest, pinned)

    def adapters(self) -> tuple[AdapterInfo, ...]:
        return self._shelf.list()

    async def submit(self, request: GenerationRequest) -> EventStream:
        require_fit(request, context=self._model.context, vocab=self._info.vocab_size)
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
                sweep(self._running, self._line, self._retire)
                self._admit()
                if self._running:
                    self._step_safely()
                else:
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
        batch, parts = step_of(self._running, self._config.step_tokens)
        hidden = self._model.forward(batch, self._cache)
        ready: list[tuple[Sequence, int]] = []
        for sequence, row, length in parts:
            if sequence.prefilling:
                self._answering.score_prompt(sequence, hidden[row : row + length])
                sequence.computed += length
                self.prefixes.keep(sequence.keys, sequence.computed, self._cache, sequence.slot)
                if sequence.prefilling:
                    continue
            else:
                sequence.computed += 1
            ready.append((sequence, row + length - 1))
        if ready:
            logits = self._model.logits(hidden[[row for _, row in ready]])
            self._answering.advance([sequence for sequence, _ in ready], logits)


__all__ = ["EngineConfig", "LlamaEngine", "content_digest"]
