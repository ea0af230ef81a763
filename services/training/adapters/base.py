"""Loading the frozen base and its tokenizer, checked against the recipe."""

from __future__ import annotations

from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from services.training.health import RunStopped
from services.training.plan import TrainerPlan
from shared.models import base_digest, tokenizer_digest


def load_base(plan: TrainerPlan, *, quantization: Any = None) -> tuple[Any, Any]:
    """The base model in float32 and its tokenizer, from safetensors alone.

    `quantization` is a transformers quantization config for the blocks' linear layers.

    Raises RunStopped if the folder is gone, is not the recipe's base, or cannot end a turn.
    """
    if not (plan.base / "config.json").is_file():
        raise RunStopped(
            "base_missing", f"no base model at {plan.base}", "put the model folder back"
        )
    found = base_digest(plan.base), tokenizer_digest(plan.base)
    if found != (plan.recipe.base, plan.recipe.tokenizer):
        raise RunStopped(
            "base_missing",
            f"the base at {plan.base} is not the one the recipe names (by digest)",
            "restore the checkpoint, or submit the job again to train on the present one",
        )
    tokenizer = AutoTokenizer.from_pretrained(plan.base, local_files_only=True)
    if tokenizer.eos_token_id is None or not tokenizer.chat_template:
        raise RunStopped(
            "base_missing",
            "the base's tokenizer has no end-of-sequence token or no chat template",
            "use an instruction-tuned base",
        )
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    model = AutoModelForCausalLM.from_pretrained(
        plan.base,
        dtype=torch.float32,
        use_safetensors=True,
        local_files_only=True,
        quantization_config=quantization,
    )
    return model, tokenizer
