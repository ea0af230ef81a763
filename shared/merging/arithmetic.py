"""Task vectors and how they add up. Every tensor is the change of one weight, float32.

One adapter's is (alpha/r) B A. Several are merged by TIES (Yadav et al., 2023, arXiv:2306.01708):
trim each to its largest entries, elect the sign with the greater total at every entry, and average
the entries of that sign. PEFT has those three steps for one tensor; it merges LoRAs by applying
them to A and B apart, whose product is no TIES of the changes, so they are applied to B A here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from shared.bundles.layout import WEIGHTS
from shared.merging.policy import MergeSource

_PREFIX = "base_model.model."


def task_vectors(source: MergeSource) -> dict[str, Tensor]:
    """Name of a weight of the base → (alpha/r) B A, of the weight's shape (out, in)."""
    tensors = load_file(source.folder / WEIGHTS)
    names = [name.removesuffix("lora_A.weight") for name in tensors if name.endswith("A.weight")]
    return {
        name.removeprefix(_PREFIX) + "weight": source.scale
        * (tensors[name + "lora_B.weight"].float() @ tensors[name + "lora_A.weight"].float())
        for name in names
    }


def ties(vectors: Sequence[Tensor], *, density: float) -> Tensor:
    """The TIES merge of changes of one weight, keeping the `density` largest entries of each."""
    merge: Any = _peft().ties
    with torch.no_grad():
        merged: Tensor = merge(
            list(vectors), weights=torch.ones(len(vectors)), density=min(density, 1 - 1e-9)
        )
    return merged


def sign_conflict(vectors: Sequence[Tensor]) -> float:
    """Of the entries that two or more vectors change, the share where their signs differ."""
    signs = torch.stack([vector.sign() for vector in vectors])
    both = (signs != 0).sum(0) >= 2
    opposed = (signs == 1).any(0) & (signs == -1).any(0)
    return float(opposed.sum() / both.sum().clamp(min=1))


def _peft() -> Any:
    from peft.utils import merge_utils

    return merge_utils
