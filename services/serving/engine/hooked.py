"""LoRA on any transformers model: each adapted linear layer adds its low-rank part in a hook.

Y = X·W₀ᵀ + s·(X·Aᵀ)·Bᵀ with s = α/r, or α/√r for rank-stabilized LoRA, as PEFT computes it. The
model itself is never changed, so an adapter lives as long as a request holds it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from contracts.base import Digest
from services.serving.engine.adapters import (
    most_bytes,
    read_folder,
)
from services.serving.engine.port import AdapterInfo, AdapterRefused

_KEY = re.compile(r"base_model\.model\.(.+)\.lora_(A|B)\.weight")


@dataclass(frozen=True, slots=True)
class HookedAdapter:
    """An adapter as the hooks apply it."""

    info: AdapterInfo
    weights: dict[str, tuple[Tensor, Tensor]]
    """Module path → (A (r, in), B (out, r))."""
    scale: float


def adaptable(model: Any) -> dict[str, tuple[int, int]]:
    """Module path → (outputs, inputs) of every linear layer but the one that gives logits."""
    from transformers.pytorch_utils import Conv1D

    head = model.get_output_embeddings()
    found: dict[str, tuple[int, int]] = {}
    for path, module in model.named_modules():
        if module is head:
            continue
        if isinstance(module, nn.Linear):
            found[path] = (module.out_features, module.in_features)
        elif isinstance(module, Conv1D):
            found[path] = (module.weight.shape[1], module.weight.shape[0])
    return found


class Hooks:
    """Adds the low-rank parts of the adapter in use to a model's linear layers."""

    def __init__(self, model: Any) -> None:
        self.shapes = adaptable(model)
        self._active: HookedAdapter | None = None
        for path in self.shapes:
            model.get_submodule(path).register_forward_hook(self._hook(path))

    @contextmanager
    def using(self, adapter: HookedAdapter | None) -> Iterator[None]:
        """The model answers with `adapter` within the block; None is the base."""
        self._active = adapter
        try:
            yield
        finally:
            self._active = None

    def _hook(self, path: str) -> Callable[[Any, tuple[Tensor, ...], Tensor], Tensor]:
        def add(_: Any, given: tuple[Tensor, ...], output: Tensor) -> Tensor:
            adapter = self._active
            if adapter is None or path not in adapter.weights:
                return output
            a, b = adapter.weights[path]
            return output + linear(linear(given[0], a), b) * adapter.scale

        return add

    def read(
        self, folder: Path, *, base: Digest, max_rank: int, dtype: torch.dtype
    ) -> HookedAdapter:
        """Read and check an adapter folder.

        Raises:
            AdapterRefused: a pickle, a missing file, an option or weight that would not be applied,
                a wrong shape, another base, or a rank above `max_rank`.

        """
        limit = most_bytes(self.shapes.values(), max_rank)
        held = read_folder(
            folder, base, max_rank=max_rank, limit=limit, applied=("fan_in_fan_out",)
        )
        config, rank = held.config, int(held.config["r"])
        halves: dict[str, dict[str, Tensor]] = {}
        for key, tensor in held.tensors.items():
            match = _KEY.fullmatch(key)
            if not match or match[1] not in self.shapes:
                raise AdapterRefused(
                    f"unknown weight {key!r}", mend="target only the base's linear layers with LoRA"
                )
            if not tensor.is_floating_point() or not torch.isfinite(tensor).all():
                raise AdapterRefused(f"{key} holds values that are not finite", mend="retrain")
            halves.setdefault(match[1], {})[match[2]] = tensor.to(dtype)
        if not halves:
            raise AdapterRefused("the adapter holds no weights", mend="retrain")
        for path, pair in halves.items():
            outputs, inputs = self.shapes[path]
            shapes = {half: tuple(t.shape) for half, t in pair.items()}
            if shapes != {"A": (rank, inputs), "B": (outputs, rank)}:
                raise AdapterRefused(
                    f"{path}: shapes {shapes}, the base needs A {(rank, inputs)} and "
                    f"B {(outputs, rank)}",
                    mend="serve the base it was made for, or save the adapter anew",
                )
        weights = {path: (pair["A"], pair["B"]) for path, pair in halves.items()}
        root = math.sqrt(rank) if config.get("use_rslora") else rank
        return HookedAdapter(
            AdapterInfo(
                digest=held.digest,
                rank=rank,
                bytes=sum((a.numel() + b.numel()) * dtype.itemsize for a, b in weights.values()),
                target_modules=tuple(sorted({path.rpartition(".")[2] for path in weights})),
            ),
            weights,
            float(config["lora_alpha"]) / root,
        )
