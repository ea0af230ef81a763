"""The engine for any other causal model: transformers computes, one sequence at a time.

Slower than the engine for Llamas by the batch it does not form, but the same in every other way:
continuous scheduling, chunked prompts, streams, constraints, adapters by content digest. A model
whose forward pass returns no key-value cache is computed anew from its first token.
"""

from __future__ import annotations

import json
import logging
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from contracts.base import Digest
from services.serving.engine import sampling
from services.serving.engine.adapters import content_digest
from services.serving.engine.answering import Answering, Summary
from services.serving.engine.checkpoint import end_tokens, weight_files
from services.serving.engine.constraint import Constraints
from services.serving.engine.delivery import Deliveries, EventStream
from services.serving.engine.hooked import HookedAdapter, Hooks
from services.serving.engine.lifecycle import require_base, require_fit, sweep
from services.serving.engine.llama_engine import EngineConfig
from services.serving.engine.port import AdapterInfo, GenerationRequest, ModelInfo
from services.serving.engine.sequence import Sequence
from services.serving.engine.shelf import AdapterShelf
from services.serving.engine.text import TextStream
from services.serving.engine.waiting import WaitingLine
from shared.errors import Misconfigured
from shared.models import base_digest, tokenizer_digest

_log = logging.getLogger(__name__)


def _summary(logits: Tensor) -> Summary:
    value, best = logits.float().max(-1)
    return best.tolist(), value.tolist(), logits.float().logsumexp(-1).tolist()


@dataclass(slots=True, kw_only=True, eq=False)
class _Turn(Sequence):
    hooked: HookedAdapter | None
    past: Any = None
    """transformers' cache of the tokens computed so far."""


class TransformersEngine:
    """See `services.serving.engine.port.Engine`."""

    def __init__(
        self,
        folder: Path,
        config: EngineConfig,
        *,
        label: str = "",
        digest_cache: Path | None = None,
    ) -> None:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        weight_files(folder)
        torch.set_num_threads(config.threads)
        self._config = config
        self._dtype: torch.dtype = getattr(torch, config.dtype)
        try:
            self._model: Any = AutoModelForCausalLM.from_pretrained(
                folder, dtype=self._dtype, local_files_only=True
            )
        except (ValueError, KeyError, OSError) as error:
            raise Misconfigured(
                f"transformers cannot load {folder} as a causal model: {error}",
                mend="serve a decoder-only checkpoint of a family transformers knows",
            ) from error
        self._model.train(False)
        text_config = self._model.config.get_text_config()
        self._context = min(
            config.context, getattr(text_config, "max_position_embeddings", config.context)
        )
        self._tokenizer = AutoTokenizer.from_pretrained(folder)
        self._hooks = Hooks(self._model)
        self._info = ModelInfo(
            label=label or folder.resolve().name,
            base=base_digest(folder, cache=digest_cache),
            tokenizer=tokenizer_digest(folder, cache=digest_cache),
            max_lora_rank=config.max_lora_rank,
            target_modules=tuple(
                dict.fromkeys(path.rpartition(".")[2] for path in self._hooks.shapes)
            ),
            dtype=config.dtype,
            vocab_size=text_config.vocab_size,
            context=self._context,
            details={"engine": "transformers", "model_type": self._model.config.model_type},
        )
        eos = end_tokens(folder, json.loads((folder / "config.json").read_text()))
        self._constraints = Constraints(self._tokenizer, text_config.vocab_size, eos)
        self._shelf: AdapterShelf[HookedAdapter] = AdapterShelf(config.max_adapters)
        self._line = WaitingLine(config.queue)
        self._deliveries = Deliveries()
        self._running: list[Sequence] = []
        self._answering = Answering(
            logits=lambda rows: rows, summarize=_summary, eos=eos, retire=self._retire
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
        require_base(base, self._info.base)
        for info in self._shelf.list():
            if info.digest == content_digest(folder):
                return info
        adapter = self._hooks.read(
            folder, base=self._info.base, max_rank=self._config.max_lora_rank, dtype=self._dtype
        )
        self._shelf.put(adapter)
        return adapter.info

    def unload_adapter(self, digest: Digest) -> None:
        self._shelf.drop(digest)

    def pin_adapter(self, digest: Digest, pinned: bool) -> None:
        self._shelf.pin(digest, pinned)

    def stats(self) -> None:
        """It keeps no pool of pages."""

    def adapters(self) -> tuple[AdapterInfo, ...]:
        return self._shelf.list()

    async def submit(self, request: GenerationRequest) -> EventStream:
        require_fit(request, context=self._context, vocab=self._info.vocab_size)
        adapter = self._shelf.get(request.adapter) if request.adapter else None
        sequence = _Turn(
            request=request,
            stream=EventStream(self._deliveries.add),
            adapter=None,
            constraint=self._constraints.start(request),
            draws=sampling.generator(request.sampling),
            text=TextStream(self._tokenizer, request.stop),
            limit=min(request.max_tokens, self._context - len(request.prompt)),
            hooked=adapter,
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
                    self._step()
                self._deliveries.send()
                if not self._running:
                    with self._line.changed:
                        if not len(self._line) and not self._stopping:
                            self._line.changed.wait(timeout=1.0)
        for sequence in [*self._running, *self._line.snapshot()]:
            sequence.finish("cancelled")
        self._deliveries.send()

    def _admit(self) -> None:
        free = self._config.slots - len(self._running)
        for sequence in self._line.snapshot()[:free]:
            self._line.admit(sequence)
            self._running.append(sequence)

    def _retire(self, sequence: Sequence) -> None:
        self._running.remove(sequence)

    def _step(self) -> None:
        """One token, or a chunk of its prompt, for every running sequence."""
        budget = self._config.step_tokens
        for sequence in list(self._running):
            length = 1
            if sequence.prefilling:
                length = min(len(sequence.request.prompt) - sequence.computed, budget)
                budget -= length
            if not length:
                continue
            try:
                self._advance(sequence, length)
            except Exception as error:
                _log.exception("a step failed; its request is failed with it")
                if sequence in self._running:
                    self._retire(sequence)
                sequence.stream.push(error)

    def _advance(self, sequence: Sequence, length: int) -> None:
        assert isinstance(sequence, _Turn)  # submit makes no other
        prefilling = sequence.prefilling
        logits_T_V = self._forward(sequence, length)
        if prefilling:
            self._answering.score_prompt(sequence, logits_T_V)
        sequence.computed += length
        if sequence.computed == sequence.length:
            self._answering.advance([sequence], logits_T_V[-1:])

    def _forward(self, sequence: _Turn, length: int) -> Tensor:
        """Logits (length, V) of the next `length` tokens of a sequence."""
        tokens = (*sequence.request.prompt, *sequence.generated)[: sequence.computed + length]
        new = tokens if sequence.past is None else tokens[sequence.computed :]
        with self._hooks.using(sequence.hooked):
            out = self._model(
                input_ids=torch.tensor([new]), past_key_values=sequence.past, use_cache=True
            )
        sequence.past = getattr(out, "past_key_values", None)
        logits: Tensor = out.logits[0, -length:]
        return logits
