"""The processes of one training (T6): as torchrun or accelerate start them, by their variables.

Every process holds the whole plan and takes its share of each batch; the first one alone holds the
work folder, reports, seals checkpoints and writes the adapter.
"""

from __future__ import annotations

import os

import torch

from services.training.health import RunStopped


def rank() -> int:
    """Which process this is; 0 is the first, and the only one where there is one."""
    return int(os.environ.get("RANK", "0"))


def size() -> int:
    """How many processes there are."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def sharded() -> bool:
    """Whether each process holds a part of the weights, as `accelerate launch` says for FSDP."""
    return size() > 1 and os.environ.get("ACCELERATE_USE_FSDP", "").lower() == "true"


def require_whole(method: str) -> None:
    """Raises RunStopped where weights are sharded, for a `method` that reads them whole."""
    if sharded():
        raise RunStopped(
            "method_unavailable",
            f"{method} reads weights whole, and FSDP shards them; it can shard those of sft, "
            "instruction tuning and continued pretraining, in full or as lora",
            "start the processes without FSDP: each then holds the whole base",
        )


def share_of(batch_size: int) -> int:
    """Rows of a batch that each process takes. Raises RunStopped if they cannot be equal."""
    if batch_size % size():
        raise RunStopped(
            "method_unavailable",
            f"a batch of {batch_size} rows cannot be shared by {size()} processes",
            f"set method.train.batch_size to a multiple of {size()}",
        )
    return batch_size // size()


def anywhere(here: bool) -> bool:
    """Whether it holds in any process. All must ask at the same step."""
    if size() == 1:
        return here
    flag = torch.tensor(float(here))
    if torch.cuda.is_available():
        flag = flag.cuda()
    torch.distributed.all_reduce(flag)
    return bool(flag.item())
