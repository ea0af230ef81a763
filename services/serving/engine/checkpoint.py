"""Llama-family checkpoints as transformers writes them: configuration and safetensors weights."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from shared.errors import Misconfigured


class NotLlama(Misconfigured):
    """A checkpoint of another family, or with an option our own model does not have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LlamaShape:
    """The numbers that define a Llama."""

    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int
    context: int
    rms_eps: float
    rope_theta: float
    tied: bool
    eos: tuple[int, ...]

    @classmethod
    def read(cls, folder: Path) -> LlamaShape:
        """From `config.json`. Raises NotLlama for what this engine cannot run."""
        try:
            config: dict[str, Any] = json.loads((folder / "config.json").read_text())
        except (OSError, ValueError) as error:
            raise Misconfigured(
                f"{folder} has no readable config.json: {error}",
                mend="point at a folder written by transformers' save_pretrained",
            ) from error
        rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
        unsupported = [
            text
            for text, wrong in (
                (f"model_type {config.get('model_type')}", config.get("model_type") != "llama"),
                (
                    f"rope type {rope.get('rope_type')}",
                    rope.get("rope_type", "default") != "default",
                ),
                ("attention_bias", bool(config.get("attention_bias"))),
                ("mlp_bias", bool(config.get("mlp_bias"))),
                (
                    f"hidden_act {config.get('hidden_act')}",
                    config.get("hidden_act", "silu") != "silu",
                ),
            )
            if wrong
        ]
        if unsupported:
            raise NotLlama(
                f"this engine does not run {', '.join(unsupported)}",
                mend="use a Llama-family checkpoint with default RoPE and no biases",
            )
        heads = config["num_attention_heads"]
        return cls(
            layers=config["num_hidden_layers"],
            hidden=config["hidden_size"],
            intermediate=config["intermediate_size"],
            heads=heads,
            kv_heads=config.get("num_key_value_heads") or heads,
            head_dim=config.get("head_dim") or config["hidden_size"] // heads,
            vocab=config["vocab_size"],
            context=config["max_position_embeddings"],
            rms_eps=config["rms_norm_eps"],
            rope_theta=rope.get("rope_theta") or config.get("rope_theta") or 10000.0,
            tied=bool(config.get("tie_word_embeddings")),
            eos=end_tokens(folder, config),
        )


def end_tokens(folder: Path, config: dict[str, Any]) -> tuple[int, ...]:
    """Ids that end an answer: the generation configuration's, else the model's."""
    generation = folder / "generation_config.json"
    eos = json.loads(generation.read_text()).get("eos_token_id") if generation.exists() else None
    eos = config.get("eos_token_id") if eos is None else eos
    return tuple(eos) if isinstance(eos, list) else () if eos is None else (eos,)


def weight_files(folder: Path) -> list[Path]:
    """The checkpoint's safetensors files, in name order. Raises Misconfigured if there are none."""
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise Misconfigured(
            f"{folder} has no safetensors weights",
            mend="save the model with safe_serialization=True; pickles are never loaded",
        )
    return files


def read_weights(folder: Path, dtype: torch.dtype) -> dict[str, Tensor]:
    """Every tensor by name, in `dtype`."""
    tensors: dict[str, Tensor] = {}
    for path in weight_files(folder):
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 - safe_open is no mapping
                tensors[name] = file.get_tensor(name).to(dtype)
    return tensors
