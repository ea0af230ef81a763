"""`python -m services.training.adapters.precision_probe BASE --tokens N [--full]`: which is faster.

One decoder block of the base, with random weights, takes a few steps forward and back over the
tokens of one part of a batch: in float32, and under bfloat16 autocast as the trainer has it. The
shortest of each counts, for a busy neighbour can only lengthen them. A processor's flags do not
tell: one may have the instructions and spend the gain on casts and on everything between them.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModel

STEPS = 3


def measured(base: Path, *, tokens: int, full: bool) -> dict[str, float]:
    """Precision → seconds of one step of one block; `full` counts the weights' gradients too."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    config = AutoConfig.from_pretrained(base, local_files_only=True)
    config.num_hidden_layers, config.vocab_size, config.pad_token_id = 1, 8, None
    if getattr(config, "layer_types", None):
        config.layer_types = config.layer_types[:1]
    torch.manual_seed(0)
    made: Any = AutoModel.from_config(config, dtype=torch.float32)  # type: ignore[no-untyped-call]
    model = made.to(device)
    model.requires_grad_(full)
    length = min(tokens, config.max_position_embeddings, 256)
    rows = max(1, tokens // length)
    states_BTH = torch.randn(rows, length, config.hidden_size, device=device, requires_grad=True)

    def step(half: bool) -> float:
        began_s = time.perf_counter()
        with torch.autocast(device, torch.bfloat16, enabled=half):
            out = model(inputs_embeds=states_BTH, use_cache=False).last_hidden_state
        out.float().sum().backward()
        if device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - began_s

    for half in (False, True):
        step(half)
    taken: dict[bool, list[float]] = {False: [], True: []}
    for _ in range(STEPS):
        for half, seconds in taken.items():
            seconds.append(step(half))
    return {"float32": min(taken[False]), "bfloat16": min(taken[True])}


def main(arguments: list[str] | None = None) -> int:
    """Print the seconds as one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("base", type=Path)
    parser.add_argument("--tokens", type=int, required=True)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--full", action="store_true")
    given = parser.parse_args(arguments)
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # libraries print
    torch.set_num_threads(given.threads)
    print(json.dumps(measured(given.base, tokens=given.tokens, full=given.full)), file=out)
    out.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
