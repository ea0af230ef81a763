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
from peft import get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from transformers import BitsAndBytesConfig
from trl.trainer.utils import add_fused_lm_head

from services.training.adapters.base import load_base
from services.training.adapters.methods.lora import lora_config
from services.training.adapters.session import Session, Trained
from services.training.adapters.sft import CompletionTrainer
from services.training.adapters.tokens import encode_file
from services.training.health import RunStopped


def nf4(precision: str) -> BitsAndBytesConfig:
    """4-bit NormalFloat with double quantization, multiplied in `precision`."""
    return BitsAndBytesConfig(  # type: ignore[no-untyped-call]
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16 if precision == "bfloat16" else torch.float32,
    )


def train(session: Session) -> Trained:
    """Load the base in 4 bits, train A and B over it, and put them on the full base."""
    plan, say = session.plan, session.channel.working
    recipe, longest = plan.recipe, plan.recipe.train.max_length
    if recipe.lora is None:
        raise RunStopped(
            "method_unavailable", "the recipe has no lora parameters", "set method.lora"
        )

    say("loading the base in 4 bits")
    quantized, tokenizer = load_base(plan, quantization=nf4(recipe.train.precision))

    for layer in quantized.modules():
        if isinstance(layer, Linear4bit):  # its packed CPU inference wants widths of 32
            layer.support_avx512bf16_for_cpu = False

    say("tokenizing the dataset")
    corpus = encode_file(tokenizer, plan.train, max_length=longest)
    held = encode_file(tokenizer, plan.validation, max_length=longest) if plan.validation else None

    say("adding the adapter")
    peft_config = lora_config(recipe.lora)
    trainer = CompletionTrainer(quantized, tokenizer, corpus, session, peft_config=peft_config)
    resumed_from = trainer.run()

    say("putting the adapter on the full base")
    in_four_bits = trainer.mean_loss(held) if held else None
    full = _on_the_full_base(session, trainer.network, peft_config)
    in_full = trainer.mean_loss(held, of=full) if held else None

    return Trained(
        model=full,
        tokenizer=tokenizer,
        resumed_from=resumed_from,
        train_loss=trainer.recent_loss(),
        validation_loss=in_full,
        tokens_per_s=trainer.tokens_per_s,
        rows=len(corpus.examples),
        rows_too_long=corpus.too_long,
        metrics={} if in_four_bits is None else {"validation_loss_4bit": in_four_bits},
    )


def _on_the_full_base(session: Session, trained: Any, peft_config: Any) -> Any:
    state = {name: a.float() for name, a in get_peft_model_state_dict(trained).items()}
    base, _ = load_base(session.plan)
    add_fused_lm_head(base)
    full: Any = get_peft_model(base, peft_config)
    set_peft_model_state_dict(full, state)
    return full
