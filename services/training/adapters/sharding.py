"""Weights that no process holds whole: FSDP2 by accelerate, if `ACCELERATE_USE_FSDP` asks for it.

Zhao et al., 2023 (arXiv:2304.11277). accelerate takes the variables that `accelerate launch` sets
from its configuration, but shards on accelerators only. On CPUs, where torch can and the tests run,
it is told that it may. Checkpoints are torch's distributed ones, a file for each process, which any
number of processes can read.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin
from accelerate.utils.constants import FSDP_MODEL_NAME
from peft import PeftModel, get_peft_model_state_dict, set_peft_model_state_dict
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.tensor import DTensor

from services.training.adapters import world


def shard_on_cpus(accelerator: Any) -> None:
    """Have `accelerator` prepare models by FSDP2 although this is a CPU."""
    if not world.sharded() or torch.cuda.is_available():
        return
    plugin = FullyShardedDataParallelPlugin(fsdp_version=2, cpu_ram_efficient_loading=False)
    if accelerator.mixed_precision != "no":
        plugin.set_mixed_precision(accelerator.mixed_precision)
    accelerator.state.distributed_type = DistributedType.FSDP
    accelerator.state.fsdp_plugin = plugin


def gathered(tensor: Any) -> Any:
    """All of a tensor, of which this process may hold a part. All processes must ask."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def load_whole(model: Any, checkpoint: Path) -> None:
    """A sharded checkpoint's weights, of an adapter its own, into a model that is not sharded."""
    adapter = isinstance(model, PeftModel)
    state = {"model": get_peft_model_state_dict(model) if adapter else model.state_dict()}
    load(state, checkpoint_id=checkpoint / f"{FSDP_MODEL_NAME}_0")
    if adapter:
        set_peft_model_state_dict(model, state["model"])
    else:
        model.load_state_dict(state["model"])
