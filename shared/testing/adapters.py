"""A tiny LoRA adapter as training leaves it in the store: real safetensors, no torch."""

from __future__ import annotations

import json
import random
import struct
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from contracts.base import Digest
from contracts.data import DatasetCard, SourceRecord, StageReport
from contracts.job import Hyperparameters, LoraParameters
from contracts.training import AdapterTrained, Recipe
from shared.artifacts import ArtifactStore
from shared.testing.runs import digest, trained_adapter

_MODULES = ("self_attn.q_proj", "self_attn.v_proj")


def safetensors_bytes(tensors: Mapping[str, tuple[int, ...]], *, seed: int = 0) -> bytes:
    """Random float32 tensors, name → shape, in the safetensors format."""
    draw = random.Random(seed)
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    data = b""
    for name, shape in tensors.items():
        count = 1
        for side in shape:
            count *= side
        start = len(data)
        data += struct.pack(f"<{count}f", *(draw.gauss(0, 0.02) for _ in range(count)))
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [start, len(data)]}
    head = json.dumps(header, separators=(",", ":")).encode()
    head += b" " * (-len(head) % 8)
    return struct.pack("<Q", len(head)) + head + data


def lora_shapes(*, r: int = 4, width: int = 16) -> dict[str, tuple[int, ...]]:
    """A and B of two projections in one layer."""
    shapes: dict[str, tuple[int, ...]] = {}
    for module in _MODULES:
        name = f"base_model.model.model.layers.0.{module}"
        shapes[f"{name}.lora_A.weight"] = (r, width)
        shapes[f"{name}.lora_B.weight"] = (width, r)
    return shapes


def lora_config(*, r: int = 4, alpha: int = 8, **changes: object) -> dict[str, object]:
    """`adapter_config.json` as PEFT writes it, in its essential fields."""
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": "SmolLM2-135M-Instruct",
        "r": r,
        "lora_alpha": alpha,
        "lora_dropout": 0.0,
        "target_modules": ["q_proj", "v_proj"],
        "bias": "none",
        "use_dora": False,
        "use_rslora": False,
        "rank_pattern": {},
        "alpha_pattern": {},
        "modules_to_save": None,
        "init_lora_weights": True,
        **changes,
    }


def dataset_card() -> DatasetCard:
    """The card of a small curated dataset."""
    return DatasetCard(
        sources=(
            SourceRecord(
                uri="file:///data/train.jsonl",
                digest=digest("source"),
                role="positive",
                licence="Apache-2.0",
                provenance="Berkeley Function Calling Leaderboard",
                rows=960,
            ),
        ),
        stages=(StageReport(stage="deduplicate", rows_in=960, rows_out=900),),
        splits={"train": 855, "validation": 45},
        files={"train.jsonl": digest("train.jsonl")},
        composition={"positive": 0.8, "boundary": 0.1, "negative": 0.1},
        composition_target={"positive": 0.8, "boundary": 0.1, "negative": 0.1},
        contamination={"heldout": 3},
        tools={"rensa": "0.5.0"},
    )


def store_dataset(store: ArtifactStore) -> Digest:
    """Put `dataset_card` into `store`."""
    return store.put(dataset_card().model_dump_json(by_alias=True).encode())


def store_adapter(
    store: ArtifactStore,
    dataset: Digest,
    *,
    seed: int = 0,
    files: Mapping[str, bytes] | None = None,
) -> AdapterTrained:
    """Put a tiny adapter, trained on `dataset`, into `store`. `files` replace or add to its own."""
    recipe = Recipe(
        method="lora",
        base=digest("base"),
        tokenizer=digest("tokenizer"),
        dataset=dataset,
        lora=LoraParameters(r=4, alpha=8),
        train=Hyperparameters(),
        versions={"peft": "0.21.2", "torch": "2.13.0"},
    )
    content = {
        "adapter_model.safetensors": safetensors_bytes(lora_shapes(), seed=seed),
        "adapter_config.json": json.dumps(lora_config(), indent=2).encode(),
        "fingerprints.json": b"[]",
        "recipe.json": recipe.model_dump_json().encode(),
        **(files or {}),
    }
    with tempfile.TemporaryDirectory() as folder:
        for name, blob in content.items():
            (Path(folder) / name).write_bytes(blob)
        tree = store.put_tree(Path(folder))
    held = store.tree(tree).files
    return trained_adapter(
        adapter=tree, weights=held["adapter_model.safetensors"], recipe=held["recipe.json"]
    )
