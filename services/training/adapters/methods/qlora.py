"""QLoRA: LoRA over a frozen base whose linear layers are stored in 4 bits.

Dettmers et al., 2023 (arXiv:2305.14314): 4-bit NormalFloat, double quantization (the scales are
quantized too) and, where the device has them, paged optimizers (`method.train.optimizer`). Weights
are stored in 4 bits and multiplied in the recipe's precision.

Serving puts the adapter on the full-precision base. So what is measured, fingerprinted and handed
over at the end is the adapter on that base, and the loss on the 4-bit one is reported beside it
(ERRATA 19: outputs change).
"""

from __future__ import annotations

from typing import Any

import torch
from bitsandbytes.nn.modules import Linear4bit
from transformers import BitsAndBytesConfig

from services.training.adapters import world
from services.training.adapters.base import load_base
from services.training.adapters.likelihood import Start, maximise, rank_of
from services.training.adapters.methods.lora import lora_config, on_whole_base
from services.training.adapters.session import Session, Trained
from services.training.adapters.sft import CompletionTrainer
from services.training.adapters.tokens import encode_file


def nf4(precision: str) -> BitsAndBytesConfig:
    """4-bit NormalFloat with double quantization, multiplied in `precision`."""
    return BitsAndBytesConfig(  # type: ignore[no-untyped-call]
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16 if precision == "bfloat16" else torch.float32,
    )


class FourBit:
    """A and B move over a base in 4 bits, and serve over the full one."""

    loss_before = "validation_loss_4bit"

    def start(self, session: Session) -> Start:
        """The base in 4 bits, and A and B to come."""
        world.require_whole("a base in 4 bits")
        recipe = session.plan.recipe
        session.channel.working("loading the base in 4 bits")
        quantized, tokenizer = load_base(session.plan, quantization=nf4(recipe.train.precision))
        for layer in quantized.modules():
            if isinstance(layer, Linear4bit):  # its packed CPU inference wants widths of 32
                layer.support_avx512bf16_for_cpu = False
        return Start(quantized, tokenizer, lora_config(rank_of(recipe)))

    def finish(self, session: Session, trainer: CompletionTrainer) -> tuple[Any, dict[str, float]]:
        """The full base with the trained A and B."""
        return on_whole_base(session, trainer.network), {}


def train(session: Session) -> Trained:
    """Load the base in 4 bits, train A and B over it, and put them on the full base."""
    return maximise(session, FourBit(), encode=encode_file)
