"""Which engine runs a checkpoint."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Literal

from services.serving.engine.checkpoint import LlamaShape, NotLlama
from services.serving.engine.llama_engine import EngineConfig, LlamaEngine
from services.serving.engine.transformers_engine import TransformersEngine

_log = logging.getLogger(__name__)

Backend = Literal["auto", "llama", "transformers"]
LocalEngine = LlamaEngine | TransformersEngine


def open_engine(
    folder: Path,
    config: EngineConfig,
    *,
    backend: Backend = "auto",
    label: str = "",
    digest_cache: Path | None = None,
) -> LocalEngine:
    """Load a checkpoint: our own model where it is a Llama, else transformers'.

    Raises:
        Misconfigured: it cannot be loaded, or not by the backend that is insisted on.

    """
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
