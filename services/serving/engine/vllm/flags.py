"""vLLM's adapter-serving flags, one to one (V4).

vLLM allocates adapter buffers of `max_lora_rank` beforehand and moves adapters between three places
by its own rules: `max_loras` in a batch, `max_cpu_loras` staged in host memory, the rest on disk.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from shared.errors import Misconfigured

RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""What `--max-lora-rank` may be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VllmFlags:
    """Each field is the flag of its name."""

    enable_lora: bool = True
    max_loras: int = 8
    """Adapters in one batch, resident on the device."""
    max_lora_rank: int = 64
    max_cpu_loras: int = 64
    """Adapters staged in host memory."""
    lora_modules: tuple[tuple[str, Path], ...] = ()
    """(name, folder) of adapters that are there from the start."""
    fully_sharded_loras: bool = False
    max_model_len: int = 4096
    gpu_memory_utilization: float = 0.9
    """Share of the device's memory for weights, KV cache and adapters; on a CPU, of the host's."""

    def __post_init__(self) -> None:
        """Raises Misconfigured for what vLLM would refuse."""
        for name, wrong, mend in (
            ("max_loras", self.max_loras < 1, "at least 1"),
            ("max_lora_rank", self.max_lora_rank not in RANKS, f"one of {RANKS}"),
            ("max_cpu_loras", self.max_cpu_loras < self.max_loras, "at least max_loras"),
            ("max_model_len", self.max_model_len < 1, "at least 1"),
            (
                "gpu_memory_utilization",
                not 0 < self.gpu_memory_utilization <= 1,
                "above 0, at most 1",
            ),
        ):
            if wrong:
                raise Misconfigured(
                    f"vLLM's {name} cannot be {getattr(self, name)}", mend=f"make it {mend}"
                )

    def argv(self) -> list[str]:
        """As `vllm serve` takes them."""
        words = ["--max-model-len", str(self.max_model_len)]
        words += ["--gpu-memory-utilization", str(self.gpu_memory_utilization)]
        if not self.enable_lora:
            return words
        words += ["--enable-lora", "--max-loras", str(self.max_loras)]
        words += ["--max-lora-rank", str(self.max_lora_rank)]
        words += ["--max-cpu-loras", str(self.max_cpu_loras)]
        if self.lora_modules:
            words += ["--lora-modules", *(f"{name}={path}" for name, path in self.lora_modules)]
        if self.fully_sharded_loras:
            words += ["--fully-sharded-loras"]
        return words


def rank_above(rank: int) -> int:
    """The smallest rank vLLM allocates for that holds `rank`. Raises Misconfigured above all."""
    for allowed in RANKS:
        if allowed >= rank:
            return allowed
    raise Misconfigured(
        f"vLLM takes no rank of {rank}", mend=f"set SLUICE_SERVING_MAX_LORA_RANK <= {RANKS[-1]}"
    )
