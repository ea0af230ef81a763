"""A crowd for load tests: many small adapters of mixed ranks, several tenants, zipf popularity."""

import json
import random
from datetime import UTC, datetime
from pathlib import Path

import torch
from safetensors.torch import save_file

from contracts.envelope import Recorded
from contracts.registry import AdapterPromoted, CandidateRegistered
from contracts.subjects import RunRef
from services.serving.directory import Directory

RANKS = (8, 16, 32, 64)
TENANTS = ("north", "east", "south", "west", "greedy")


def adapter_id(number):
    return f"tiny-task_{number}-v1"


def tenant_of(number):
    return TENANTS[number % len(TENANTS)]


def tree(number):
    return f"sha256:{number:064x}"


def number_of(digest):
    return int(digest.removeprefix("sha256:"), 16)


def make_crowd(template: Path, root: Path, count: int) -> Path:
    """`count` folders 0, 1, … beside each other, as PEFT saves them, on queries and values."""
    config = json.loads((template / "adapter_config.json").read_text())
    shapes = {"q_proj": (48, 48), "v_proj": (16, 48)}
    drawn = torch.Generator().manual_seed(1)
    for number in range(count):
        rank = RANKS[number % len(RANKS)]
        tensors = {}
        for layer in range(3):
            for module, (outputs, inputs) in shapes.items():
                key = f"base_model.model.model.layers.{layer}.self_attn.{module}"
                tensors[f"{key}.lora_A.weight"] = torch.randn(rank, inputs, generator=drawn) * 0.1
                tensors[f"{key}.lora_B.weight"] = torch.randn(outputs, rank, generator=drawn) * 0.1
        folder = root / str(number)
        folder.mkdir(parents=True)
        save_file(tensors, folder / "adapter_model.safetensors")
        changed = {"r": rank, "lora_alpha": rank, "target_modules": list(shapes)}
        (folder / "adapter_config.json").write_text(json.dumps(config | changed))
    return root


def directory_of(count: int) -> Directory:
    """Every adapter registered and promoted, by its tenant."""
    directory = Directory(base_label="tiny")
    for number in range(count):
        about = {"adapter_id": adapter_id(number), "deployment": f"bot_{number}"}
        for step, event in enumerate(
            (
                CandidateRegistered(adapter=tree(number), card=tree(number), **about),
                AdapterPromoted(bundle=tree(number), **about),
            )
        ):
            directory.apply(
                Recorded(
                    id=f"{number}.{step}",
                    ref=RunRef(tenant_of(number), f"run_{number}"),
                    event=event,
                    cause="",
                    seq=2 * number + step + 1,
                    at=datetime(2026, 1, 1, tzinfo=UTC),
                )
            )
    return directory


def zipf(count: int, draws: random.Random) -> int:
    """A number below `count`, the first ones most often."""
    return min(int(draws.paretovariate(0.6)) - 1, count - 1) % count
