"""Settings of serving, `SLUICE_SERVING_*`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from services.serving.engine.llama_engine import EngineConfig
from services.serving.engine.open import Backend, Vllm
from services.serving.engine.vllm.flags import VllmFlags, rank_above
from shared.precision import precision
from shared.settings import Settings


class ServingSettings(Settings):
    """What is served, and within which bounds."""

    base: str = "smollm2-135m-instruct"
    """The base checkpoint: a folder, or a name under `<home>/models` (`SLUICE_BASE`)."""
    serving_host: str = "127.0.0.1"
    serving_port: int = 8080
    serving_dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """`auto` is bfloat16 where the processor multiplies it natively, else float32. bfloat16 is
    about twice as fast there and moves log-probabilities by up to 0.4."""
    serving_backend: Backend = "auto"
    """`auto` runs a Llama on our own model, any other causal model through transformers; `vllm`
    starts vLLM beside us."""
    serving_context: int = 4096
    serving_slots: int = 32
    serving_queue: int = 1024
    serving_shadow_share: float = 0.02
    """Seconds of the engine for mirrored requests per second of users' requests beside them: about
    what a shadow adds to users' latency. Where the engine never rests, a shadow stage takes longer
    the less this is."""
    serving_pool_mb: int = 2048
    """MiB of pages for keys, values and adapters: what bounds how many requests run at once."""
    serving_host_mb: int = 1024
    """MiB of adapters beside the pool; those beyond are read from disk when they are asked for."""
    serving_max_adapters: int = 1024
    serving_max_lora_rank: int = 64
    serving_adapter_precision: Literal["model", "int8"] = "model"
    """`int8` halves the memory of bfloat16 adapters. It moved the log-probabilities of the example
    job's adapter by 0.003 at most (bfloat16 itself: 0.26), and has not been seen to be faster. Our
    own engine only."""
    serving_threads: int = 2
    serving_tenants: tuple[str, ...] = ("demo",)
    """Tenants that get a client key when they have none."""

    vllm_python: Path = Path(".venv-vllm/bin/python")
    """The interpreter of the environment that has vLLM (`make vllm`)."""
    vllm_max_loras: int = 8
    """Adapters in one batch of vLLM's."""
    vllm_max_cpu_loras: int = 64
    """Adapters vLLM stages in host memory."""
    vllm_fully_sharded_loras: bool = False
    vllm_gpu_memory_utilization: float = 0.9
    vllm_lora_modules: dict[str, Path] = Field(default_factory=dict)
    """Adapters vLLM holds from its start, name → folder."""
    serving_administrators: tuple[str, ...] = ()
    """Tenants whose client key may load, unload and pin their own adapters."""

    def vllm(self) -> Vllm | None:
        """VLLM's flags; None where another engine runs. Raises Misconfigured if one is wrong."""
        if self.serving_backend != "vllm":
            return None
        return Vllm(
            python=self.vllm_python,
            flags=VllmFlags(
                max_loras=self.vllm_max_loras,
                max_lora_rank=rank_above(self.serving_max_lora_rank),
                max_cpu_loras=max(self.vllm_max_cpu_loras, self.vllm_max_loras),
                lora_modules=tuple(sorted(self.vllm_lora_modules.items())),
                fully_sharded_loras=self.vllm_fully_sharded_loras,
                max_model_len=self.serving_context,
                gpu_memory_utilization=self.vllm_gpu_memory_utilization,
            ),
        )

    def engine(self) -> EngineConfig:
        return EngineConfig(
            dtype=precision() if self.serving_dtype == "auto" else self.serving_dtype,
            context=self.serving_context,
            slots=self.serving_slots,
            queue=self.serving_queue,
            background_share=self.serving_shadow_share,
            pool_bytes=self.serving_pool_mb << 20,
            host_bytes=self.serving_host_mb << 20,
            max_adapters=self.serving_max_adapters,
            max_lora_rank=self.serving_max_lora_rank,
            adapter_precision=self.serving_adapter_precision,
            threads=self.serving_threads,
        )
