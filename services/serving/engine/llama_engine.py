"""The engine for Llama-family checkpoints: one thread steps, callers await events.

Each step runs one forward pass over all decoding sequences and as much waiting prompt as the step's
budget allows, then samples. One pool of pages holds the keys and values of running sequences, the
beginnings they share, and the adapters' weights.
"""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from contracts.base import Digest
from kernels.native import NativeUnavailable, library
from kernels.paging import PoolFull
from services.serving.engine import sampling
from services.serving.engine.adapters import (
    LoadedAdapter,
    content_digest,
    in_eight_bits,
    read_adapter,
)
from services.serving.engine.answering import Answering
from services.serving.engine.batching import step_of
from services.serving.engine.constraint import Constraints
from services.serving.engine.delivery import Deliveries, EventStream
from services.serving.engine.key_values import KeyValues
from services.serving.engine.lifecycle import require_base, require_fit
from services.serving.engine.memory import PAGE, Memory
from services.serving.engine.model import FUSED, Llama
from services.serving.engine.port import (
    AdapterInfo,
    EngineStats,
    GenerationRequest,
    ModelInfo,
    Overloaded,
)
from services.serving.engine.residency import Residency
from services.serving.engine.scheduling import Scheduler
from services.serving.engine.sequence import Sequence
from services.serving.engine.text import TextStream
from services.serving.engine.turns import OWED, Turns
from services.serving.engine.waiting import WaitingLine
from shared.models import base_digest, tokenizer_digest

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineConfig:
    """How a checkpoint is served."""

    dtype: Literal["float32", "bfloat16"] = "float32"
    context: int = 4096
    """Longest sequence; the checkpoint's own limit if that is less."""
    slots: int = 32
    """Sequences that run at once at most; how many do is for the pool to say."""
    step_tokens: int = 512
    """Rows of one step: what bounds the wait of running answers for a new prompt."""
    background_share: float = OWED
    """Seconds of steps for mirrored requests per second of users' beside them."""
    queue: int = 1024
    pool_bytes: int = 1 << 30
    """Pages for keys, values and adapters. Pages that were never used cost no memory."""
    host_bytes: int = 1 << 30
    """Adapters that wait outside the pool, in memory; those beyond are read from disk again."""
    share_prefixes: bool = True
    """Whether prompts with equal beginnings compute them once."""
    max_adapters: int = 1024
    """Adapters that can be named, wherever they are."""
    max_lora_rank: int = 64
    adapter_precision: Literal["model", "int8"] = "model"
    """`int8` halves the bytes of bfloat16 adapters in memory (`kernels.lora.quantized`)."""
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
            details={"kernels": kernels, "adapters": config.adapter_precision},
        )
        self._constraints = Constraints(self._tokenizer, shape.vocab, shape.eos)
        self._line = WaitingLine(config.queue)
        self._deliveries = Deliveries()
        self._memory = Memory(
            shape, dtype, pool_bytes=config.pool_bytes, context=self._model.context
        )
        self._adapters = Residency(
            self._memory,
            self._read_adapter,
            host_bytes=config.host_bytes,
            most=config.max_adapters,
            changed=self._line.wake,
        )
        self._kv = KeyValues(
            self._memory,
            context=self._model.context,
            slots=config.slots,
            sharing=config.share_prefixes,
        )
        self._scheduler = Scheduler(self._line, self._kv, self._adapters, slots=config.slots)
        self._answering = Answering(
            logits=self._model.logits,
            summarize=self._model.summarize,
            eos=shape.eos,
            retire=self._scheduler.retire,
        )
        self._turns = Turns(config.background_share)
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
        require_base(base, self._info.base)
        return self._adapters.load(folder)

    def _read_adapter(self, folder: Path) -> LoadedAdapter:
        compressed = self._config.adapter_precision == "int8"
        adapter = read_adapter(
            folder,
            self._model.shape,
            base=self._info.base,
            max_rank=self._config.max_lora_rank,
            dtype=torch.float32 if compressed else self._model.dtype,
        )
        return in_eight_bits(adapter) if compressed else adapter

    def unload_adapter(self, digest: Digest) -> None:
        self._adapters.drop(digest)

    def pin_adapter(self, digest: Digest, pinned: bool) -> None:
        try:
            self._adapters.pin(digest, pinned)
        except PoolFull as full:
            raise Overloaded(f"{digest} has no room now: {full}", retry_after_s=2.0) from full

    def adapters(self) -> tuple[AdapterInfo, ...]:
        return self._adapters.list()

    def stats(self) -> EngineStats:
        with self._memory.lock:
            use, known = self._memory.pool.use(), self._adapters.list()
            weights, taken = self._adapters.filled
            running, waiting = tuple(self._scheduler.running), len(self._line)
            lengths = [s.computed for s in running if s.slot >= 0]
            room = sum(self._kv.room(s.slot) for s in running if s.slot >= 0)
        page_bytes = self._memory.arena.page_bytes
        token_bytes = self._model.shape.layers * page_bytes // PAGE
        in_use = taken + room * token_bytes
        tiers = [info.tier for info in known]
        return EngineStats(
            running=len(running),
            waiting=waiting,
            page_bytes=page_bytes,
            pages=use.total,
            pages_free=use.free,
            pages_cached=use.idle,
            pages_held=use.held,
            pages_of_adapters=taken // page_bytes,
            waste=1 - (weights + sum(lengths) * token_bytes) / in_use if in_use else 0.0,
            adapters_in_pool=tiers.count("pool"),
            adapters_on_host=tiers.count("host"),
            adapters_on_disk=tiers.count("disk"),
            adapters_pinned=sum(info.pinned for info in known),
            host_bytes=self._adapters.host_bytes,
            evictions=use.evictions,
            preemptions=self._scheduler.preemptions,
            prefix_hits=self._kv.hits,
            prefix_misses=self._kv.misses,
        )

    async def submit(self, request: GenerationRequest) -> EventStream:
        require_fit(request, context=self._model.context, vocab=self._info.vocab_size)
        constraint = self._constraints.start(request)
        adapter = self._adapters.borrow(request.adapter) if request.adapter else None
        sequence = Sequence(
            request=request,
            stream=EventStream(self._deliveries.add),
            adapter=adapter,
            constraint=constraint,
            draws=sampling.generator(request.sampling),
            text=TextStream(self._tokenizer, request.stop),
            limit=min(request.max_tokens, self._model.context - len(request.prompt)),
        )
        leaves: Sequence | None = sequence
        try:
            leaves = self._line.put(sequence)
        finally:
            if leaves is not None and leaves.adapter is not None:
                self._adapters.give_back(leaves.adapter)
        return sequence.stream

    def close(self) -> None:
        """Stop the thread; running requests end as cancelled."""
        self._stopping = True
        self._line.wake()
        self._thread.join(timeout=30)
        self._adapters.close()

    # The engine's thread.

    def _run(self) -> None:
        torch.set_num_threads(self._config.threads)
        scheduler = self._scheduler
        with torch.inference_mode():
            while not self._stopping:
                scheduler.sweep()
                scheduler.admit()
                if scheduler.running:
                    self._step_safely()
                    self._deliveries.send()
                else:
                    self._deliveries.send()
                    self._turns.rest()
                    scheduler.line.rest(1.0)
        scheduler.close()
        self._deliveries.send()

    def _step_safely(self) -> None:
        try:
            self._step()
        except Exception as error:
            _log.exception("an engine step failed; its requests are failed with it")
            for sequence in list(self._scheduler.running):
                self._scheduler.retire(sequence)
                sequence.stream.push(error)

    def _step(self) -> None:
        self._scheduler.reserve()
        turn = self._turns.next(self._scheduler.running, self._config.step_tokens)
        batch, parts = step_of(*turn)
        hidden = self._model.forward(batch, self._kv.pages, self._kv.tables)
        ready: list[tuple[Sequence, int]] = []
        for sequence, row, length in parts:
            if sequence.prefilling:
                self._answering.score_prompt(sequence, hidden[row : row + length])
                sequence.computed += length
                self._scheduler.publish(sequence)
                if sequence.computed < sequence.length:
                    continue
            else:
                sequence.computed += 1
            ready.append((sequence, row + length - 1))
        if ready:
            logits = self._model.logits(hidden[[row for _, row in ready]])
            self._answering.advance([sequence for sequence, _ in ready], logits)


__all__ = ["EngineConfig", "LlamaEngine", "content_digest"]
