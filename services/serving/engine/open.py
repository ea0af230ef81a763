"""Which engine runs a checkpoint."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from services.serving.engine.checkpoint import LlamaShape, NotLlama
from services.serving.engine.llama_engine import EngineConfig, LlamaEngine
from services.serving.engine.transformers_engine import TransformersEngine
from services.serving.engine.vllm.engine import VllmEngine
from services.serving.engine.vllm.flags import VllmFlags

_log = logging.getLogger(__name__)

Backend = Literal["auto", "llama", "transformers", "vllm"]
OpenEngine = LlamaEngine | TransformersEngine | VllmEngine


@dataclass(frozen=True, slots=True, kw_only=True)
class Vllm:
    """Where vLLM is, and its flags."""

    python: Path
    flags: VllmFlags


def open_engine(
    folder: Path,
    config: EngineConfig,
    *,
    backend: Backend = "auto",
    vllm: Vllm | None = None,
    label: str = "",
    digest_cache: Path | None = None,
) -> OpenEngine:
    """Load a checkpoint: our own model where it is a Llama, else transformers', or vLLM if asked.

    Raises:
        Misconfigured: it cannot be loaded, or not by the backend that is insisted on.

    """
    if backend == "vllm":
        chosen = vllm or Vllm(python=Path(".venv-vllm/bin/python"), flags=VllmFlags())
        return VllmEngine(
            folder,
            config,
            chosen.flags,
            python=chosen.python,
            label=label,
            digest_cache=digest_cache,
        )
    if backend == "transformers" or (backend == "auto" and not _is_llama(folder)):
        return TransformersEngine(folder, config, label=label, digest_cache=digest_cache)
    return LlamaEngine(folder, config, label=label, digest_cache=digest_cache)


def _is_llama(folder: Path) -> bool:
    try:
        LlamaShape.read(folder)
    except NotLlama as reason:
        _log.warning("%s; served through transformers, several times slower", reason)
        return False
    return True
