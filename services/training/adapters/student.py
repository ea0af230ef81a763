"""`python -m services.training.adapters.student BASE --keep N --out DIR`: a shallower base.

The student has N of the base's decoder blocks, its embeddings, head and tokenizer as they are. So
it shares the teacher's vocabulary, and logits can be distilled into it. It is a start, not a model:
its answers are bad until it is distilled.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from services.training.pruning import kept_layers
from shared.models import TOKENIZER_FILES


def prune_depth(base: Path, out: Path, *, keep: int) -> tuple[int, ...]:
    """Write the student of `keep` blocks to `out`; the indices of the base's blocks it has.

    Raises ValueError for a count the base cannot give, or an `out` that exists.
    """
    if out.exists():
        raise ValueError(f"{out} exists: name a new folder")
    model: Any = AutoModelForCausalLM.from_pretrained(
        base, dtype="auto", use_safetensors=True, local_files_only=True
    )
    decoder = model.base_model
    kept = kept_layers(len(decoder.layers), keep)
    decoder.layers = torch.nn.ModuleList(decoder.layers[i] for i in kept)
    for index, layer in enumerate(decoder.layers):
        layer.self_attn.layer_idx = index  # its place in the key-value cache
    model.config.num_hidden_layers = keep
    if getattr(model.config, "layer_types", None):
        model.config.layer_types = [model.config.layer_types[i] for i in kept]
    model.save_pretrained(out, safe_serialization=True)
    for name in TOKENIZER_FILES:  # byte by byte: saved anew they would be another tokenizer
        if (base / name).is_file():
            shutil.copy(base / name, out / name)
    return kept


def main(arguments: list[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("base", type=Path)
    parser.add_argument("--keep", type=int, required=True)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args(arguments)
    try:
        kept = prune_depth(given.base, given.out, keep=given.keep)
    except ValueError as error:
        parser.error(str(error))
    print(f"{given.out}: blocks {', '.join(map(str, kept))} of {given.base}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
