"""The memory preflight: what training will hold, part by part, before any work (D8, ERRATA 18).

Weights, gradients and the optimizer's two moments are exact counts, in float32; QLoRA keeps the
blocks' linear layers in 4 bits with one scale per 64 weights. Activations are those a decoder block
of the Llama family keeps for its backward pass, without gradient checkpointing, plus the logits of
the positions where the loss looks. Under bfloat16 autocast the residual stream stays float32, what
goes through matrix products is halved, and each linear layer has a cast copy.

An adapted layer also makes its base's output and drops it once the adapter's is added. glibc's
aligned allocator does not reuse those blocks for what is kept, so they count: measured, not a law
(`benchmarks/memory.py`; with MALLOC_MMAP_THRESHOLD_=1048576 they vanish). QLoRA's `loading` is of
that kind too: each layer is read in float32 before it is quantized, and the heap keeps its place.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from contracts.base import Problem
from contracts.job import LoraParameters
from shared.errors import InvalidInput
from shared.precision import Precision

BYTES = 4
HALF_BYTES = 2
NF4_BYTES = 0.5 + 1 / 64
"""A 4-bit weight and its share of a doubly quantized (8-bit) scale."""
RUNTIME_BYTES = 800 * 1024**2
"""What the interpreter, torch, the libraries and the tokenizer hold before the first weight."""
TURN_TOKENS = 12
"""What a chat template writes around a message, at most."""
SEQUENCES = {"dpo": 2, "ipo": 2, "ppo": 2}
"""Method → sequences of one row in the backward pass, where not 1: chosen and rejected."""
ADAPTERS = {"ppo": 3}
"""Method → adapters on the one base, where not 1: actor, critic and reward."""
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
    def linear_parameters(self) -> int:
        """Weights of the blocks' linear layers, without embeddings, norms and head."""
        return self.layers * sum(i * o for i, o in self.linears.values())

    @property
    def parameters(self) -> int:
        embeddings = self.vocabulary * self.hidden * (1 if self.tied else 2)
        norms = (2 * self.layers + 1) * self.hidden
        return self.linear_parameters + embeddings + norms

    def adapted(self, lora: LoraParameters) -> dict[str, tuple[int, int]]:
        """The linear layers that `lora` targets."""
        if lora.target_modules == "all-linear":
            return self.linears
        return {n: s for n, s in self.linears.items() if n in lora.target_modules}


def lora_parameters(model: ModelDimensions, lora: LoraParameters) -> int:
    """Elements of A ∈ R^(r×in) and B ∈ R^(out×r) over the target modules."""
    return model.layers * sum(lora.r * (i + o) for i, o in model.adapted(lora).values())


def estimate(
    model: ModelDimensions,
    *,
    method: str,
    lora: LoraParameters | None,
    batch_size: int,
    length: int,
    completion_length: int | None = None,
    precision: Precision = "float32",
    teacher: ModelDimensions | None = None,
    part: tuple[int, int] | None = None,
) -> dict[str, int]:
    """Bytes by part for one micro-batch of `batch_size` rows of `length` tokens.

    A row of a method that compares answers is a sequence for each of them. `completion_length` is
    how many of the tokens the loss looks at (all, if unsaid). A `teacher` is held beside the
    student, with logits of its own and, for one block at a time, what it computes them of. Of a
    batch worked on in parts, `part` are the tokens and the scored tokens of the largest one.
    """
    adapter = lora_parameters(model, lora) * ADAPTERS.get(method, 1) if lora is not None else 0
    trainable = adapter if lora is not None else model.linear_parameters
    sequences = batch_size * SEQUENCES.get(method, 1)
    weights = (model.parameters + adapter) * BYTES
    if method == "qlora":
        weights -= round(model.linear_parameters * (BYTES - NF4_BYTES))
    tokens = sequences * length
    scored = sequences * min(length, completion_length or length)
    if part is not None:
        tokens, scored = part
    loading = round(model.linear_parameters * (BYTES - NF4_BYTES)) if method == "qlora" else 0
    return {
        "weights": weights,
        **({"loading": loading} if loading else {}),
        **({"teacher": _teacher_bytes(teacher, tokens, scored)} if teacher else {}),
        "gradients": trainable * BYTES,
        "optimizer": 2 * trainable * BYTES,
        "activations": tokens * model.layers * _block_bytes(model, lora, precision)
        + LOGIT_COPIES * scored * model.vocabulary * BYTES
        + (model.linear_parameters * HALF_BYTES if precision == "bfloat16" else 0),
        "runtime": RUNTIME_BYTES,
    }


def _teacher_bytes(teacher: ModelDimensions, tokens: int, scored: int) -> int:
    """Frozen weights; logits; the two passing states of a block without a backward pass."""
    passing = 2 * tokens * (teacher.hidden + teacher.intermediate)
    return (teacher.parameters + LOGIT_COPIES * scored * teacher.vocabulary + passing) * BYTES


def _block_bytes(model: ModelDimensions, lora: LoraParameters | None, precision: Precision) -> int:
    """What one decoder block keeps per token for the backward pass."""
    query, key = model.heads * model.head_dim, model.kv_heads * model.head_dim
    residual = 6 * model.hidden
    products = 3 * query + 3 * key + 4 * model.intermediate
    if lora is not None:
        adapted = model.adapted(lora)
        products += sum(lora.r + outputs for _, outputs in adapted.values())
    return residual * BYTES + products * (HALF_BYTES if precision == "bfloat16" else BYTES)


def require_memory(
    parts: Mapping[str, int], *, available: int, batch_size: int, at_once: int | None = None
) -> None:
    """Raises InvalidInput, with a batch size that fits, if `parts` exceed `available` bytes.

    `at_once` is how many of a batch's longest rows the activations are of; None is all.
    """
    needed = sum(parts.values())
    if needed <= available:
        return
    fixed = needed - parts["activations"]
    per_sequence = max(1, parts["activations"] // min(at_once or batch_size, batch_size))
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
