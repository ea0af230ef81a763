"""`python -m tests.training.sharded PLAN OUT`: a few steps of every weight, in one process or many.

Started by torchrun, the blocks and the root are sharded by torch's FSDP2 (`fully_shard`) over gloo.
The model, its frozen parts, its completion head and its batches are those of the trainer.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from trl.trainer.utils import add_fused_lm_head

from services.training.adapters.completion_head import add_completion_head
from services.training.adapters.full_weights import EveryWeight
from services.training.adapters.session import Session
from services.training.adapters.tokens import IGNORED, Example, encode_file
from services.training.bucketing import bucketed_order
from services.training.plan import TrainerPlan


class _Silence:
    def working(self, message: str, step: int = 0) -> None:
        """Says nothing."""


def main(plan_file: Path, out: Path) -> None:
    """Write the loss of every step to `out`, from the first process."""
    torch.set_num_threads(1)
    processes, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    plan = TrainerPlan.model_validate_json(plan_file.read_bytes())
    silent: Any = _Silence()
    session = Session(work=out.parent, plan=plan, channel=silent, is_cancelled=lambda: False)
    start = EveryWeight().start(session)
    model = start.model
    add_fused_lm_head(model)
    add_completion_head(model)
    if processes > 1:
        dist.init_process_group("gloo")
        mesh = init_device_mesh("cpu", (processes,))
        for block in model.model.layers:
            fully_shard(block, mesh=mesh)
        fully_shard(model, mesh=mesh)
        held = sum(p.to_local().numel() for p in model.parameters())
        assert held < 0.6 * sum(p.numel() for p in model.parameters())
    optimizer = torch.optim.AdamW(
        [p for p in model.parameters() if p.requires_grad], lr=plan.recipe.train.learning_rate
    )
    corpus = encode_file(start.tokenizer, plan.train, max_length=1024)
    size = plan.recipe.train.batch_size
    order = bucketed_order(corpus.lengths, size, seed=0, epoch=0)
    losses = []
    for step in range(plan.steps):
        batch = [corpus.examples[i] for i in order[step * size : (step + 1) * size]]
        scored = sum(label != IGNORED for example in batch for label in example.labels)
        outputs = model(**_padded(batch[rank::processes]), fused_lm_head=True)
        part = -outputs.log_probs.sum() / scored
        (part * processes).backward()  # gradients are averaged over the processes
        optimizer.step()
        optimizer.zero_grad()
        whole = part.detach().clone()
        if processes > 1:
            dist.all_reduce(whole)
        losses.append(float(whole))
    if rank == 0:
        out.write_text(json.dumps(losses))
    if processes > 1:
        dist.destroy_process_group()


def _padded(examples: list[Example]) -> dict[str, torch.Tensor]:
    width = max(len(e.input_ids) for e in examples)

    def filled(rows: list[list[int]], value: int) -> torch.Tensor:
        return torch.tensor([row + [value] * (width - len(row)) for row in rows])

    return {
        "input_ids": filled([e.input_ids for e in examples], 0),
        "labels": filled([e.labels for e in examples], IGNORED),
        "attention_mask": filled([[1] * len(e.input_ids) for e in examples], 0),
    }


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
