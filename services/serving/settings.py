"""Settings of serving, from `SLUICE_SERVING_*` beside the shared `SLUICE_*`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic_settings import BaseSettings, SettingsConfigDict

from services.serving.engine.llama_engine import EngineConfig
from shared.settings import Settings


class ServingSettings(BaseSettings):
    """What is served, and within which bounds."""

    model_config = SettingsConfigDict(env_prefix="SLUICE_SERVING_", extra="ignore", frozen=True)

    base: Path
    """The base checkpoint's folder."""
    label: str = ""
    """How callers may name the base beside `base`; by default the folder's name."""
    host: str = "127.0.0.1"
    port: int = 8080
    dtype: Literal["float32", "bfloat16"] = "float32"
    """float32 answers as the trainer does; bfloat16 is faster where the CPU has AVX512-BF16."""
    context: int = 4096
    slots: int = 32
    queue: int = 1024
    prefix_cache_mb: int = 1024
    max_adapters: int = 64
    max_lora_rank: int = 64
    threads: int = 2
    tenants: tuple[str, ...] = ("local",)
    """Tenants that get keys when none exist."""
    shared: Settings = Settings()

    @property
    def keys_path(self) -> Path:
        return self.shared.home / "keys" / "api.json"

    def engine(self) -> EngineConfig:
        return EngineConfig(
            dtype=self.dtype,
            context=self.context,
            slots=self.slots,
            queue=self.queue,
            prefix_cache_bytes=self.prefix_cache_mb << 20,
            max_adapters=self.max_adapters,
            max_lora_rank=self.max_lora_rank,
            threads=self.threads,
        )
