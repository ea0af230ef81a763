"""The memory preflight: what training will hold, part by part, before any work (D8, ERRATA 18).

Weights, gradients and the optimizer's two moments are exact counts. Activations are those a decoder
block of the Llama family keeps for its backward pass, without gradient checkpointing, plus the
logits of the positions where the loss looks. Everything is float32.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from contracts.base import Problem
from contracts.job import LoraParameters
from shared.errors import InvalidInput

BYTES = 4
RUNTIME_BYTES = 600 * 1024**2
"""What the interpreter, torch and the tokenizer hold before the first tensor."""
CHARACTERS_PER_TOKEN = 2.5
"""Pessimistic for text and JSON under a byte-pair vocabulary (3 to 4 is usual)."""
LOGIT_COPIES = 4
"""Logits, their log-softmax, its gradient and one temporary."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelDimensions:
    """The sizes of a decoder-only model, from its `config.json`."""

    vocabulary: int
    hidden: int
    intermediate: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    tied: bool

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> ModelDimensions:
        """Raises InvalidInput where the config does not describe a model we can size."""
        try:
            heads = int(config["num_attention_heads"])
            hidden = int(config["hidden_size"])
            return cls(
                vocabulary=int(config["vocab_size"]),
                hidden=hidden,
                intermediate=int(config["intermediate_size"]),
                layers=int(config["num_hidden_layers"]),
                heads=heads,
                kv_heads=int(config.get("num_key_value_heads") or heads),
                head_dim=int(config.get("head_dim") or hidden // heads),
                tied=bool(config.get("tie_word_embeddings", False)),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise InvalidInput(
                [
                    Problem(
                        where="base.model",
                        problem=f"config.json does not give the model's size: {error!r}",
                        mend="use a decoder-only base with the Llama family's config fields",
                    )
                ]
            ) from error

    @property
    def linears(self) -> dict[str, tuple[int, int]]:
        """Linear layer of a block → (inputs, outputs)."""
        query, key = self.heads * self.head_dim, self.kv_heads * self.head_dim
        return {
            "q_proj": (self.hidden, query),
            "k_proj": (self.hidden, key),
            "v_proj": (self.hidden, key),
            "o_proj": (query, self.hidden),
            "gate_proj": (self.hidden, self.intermediate),
            "up_proj": (self.hidden, self.intermediate),
            "down_proj": (self.intermediate, self.hidden),
        }

    @property
    def parameters(self) -> int:
        block = sum(i * o for i, o in self.linears.values()) + 2 * self.hidden
        embeddings = self.vocabulary * self.hidden * (1 if self.tied else 2)
        return self.layers * block + embeddings + self.hidden


def lora_parameters(model: ModelDimensions, lora: LoraParameters) -> int:
    """Elements of A ∈ R^(r×in) and B ∈ R^(out×r) over the target modules."""
    targets = (
        model.linears
        if lora.target_modules == "all-linear"
        else {n: s for n, s in model.linears.items() if n in lora.target_modules}
    )
    return model.layers * sum(lora.r * (i + o) for i, o in targets.values())


def estimate(
    model: ModelDimensions,
    *,
    method: str,
    lora: LoraParameters | None,
    batch_size: int,
    length: int,
    completion_length: int | None = None,
) -> dict[str, int]:
    """Bytes by part for one micro-batch of `batch_size` sequences of `length` tokens.

    `completion_length` is how many of them the loss looks at (all, if unsaid).
    """
    adapter = lora_parameters(model, lora) if lora is not None else 0
    trainable = adapter if method in ("lora", "qlora") else model.parameters
    tokens = batch_size * length
    scored = batch_size * min(length, completion_length or length)
    query, key = model.heads * model.head_dim, model.kv_heads * model.head_dim
    rank = lora.r if lora is not None else 0
    per_token = (
        6 * model.hidden + 3 * query + 3 * key + 4 * model.intermediate + len(model.linears) * rank
    )
    return {
        "weights": (model.parameters + adapter) * BYTES,
        "gradients": trainable * BYTES,
        "optimizer": 2 * trainable * BYTES,
        "activations": (
            tokens * model.layers * per_token + LOGIT_COPIES * scored * model.vocabulary
        )
        * BYTES,
        "runtime": RUNTIME_BYTES,
    }


def tokens_at_most(characters: int) -> int:
    """A pessimistic token count of a text, for a preflight that has no tokenizer."""
    return max(1, round(characters / CHARACTERS_PER_TOKEN))


def require_memory(parts: Mapping[str, int], *, available: int, batch_size: int) -> None:
    """Raises InvalidInput, with a batch size that fits, if `parts` exceed `available` bytes."""
    needed = sum(parts.values())
    if needed <= available:
        return
    fixed = needed - parts["activations"]
    per_sequence = max(1, parts["activations"] // batch_size)
    fitting = (available - fixed) // per_sequence
    if fitting >= 1:
        mend = (
            f"set method.train.batch_size to {fitting} "
            f"and gradient_accumulation to {-(-batch_size // fitting)}"
        )
    else:
        mend = "lower method.train.max_length, take a smaller base, or use a larger machine"
    listed = ", ".join(f"{name} {_gib(size)}" for name, size in parts.items())
    raise InvalidInput(
        [
            Problem(
                where="method.train",
                problem=f"training needs {_gib(needed)} ({listed}); {_gib(available)} is free",
                mend=mend,
            )
        ]
    )


def _gib(size: int) -> str:
    return f"{size / 1024**3:.2f} GiB"
