"""The forward pass of a Llama over a mixed batch: decode rows and prompt chunks of many sequences.

All rows of a step are packed into one matrix for the linear layers; attention looks at each
sequence's slot of the key-value cache. Shape suffixes: T rows of the step, H hidden, S slots,
K key-value heads, G query heads per key-value head, L cached positions, D head size, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import rms_norm, scaled_dot_product_attention, silu

from kernels.lora import LowRank, SegmentPlan
from kernels.lora.api import Sgmv
from services.serving.engine.checkpoint import LlamaShape, read_weights
from services.serving.engine.linear import PackedLinear

FUSED = {
    "qkv": ("q_proj", "k_proj", "v_proj"),
    "o": ("o_proj",),
    "gate_up": ("gate_proj", "up_proj"),
    "down": ("down_proj",),
}
"""Fused linear → the checkpoint's linears, in order of their output columns."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """Consecutive prompt tokens of one sequence: rows `[row, row + length)` at `position` on."""

    row: int
    length: int
    slot: int
    position: int


@dataclass(frozen=True, slots=True)
class Batch:
    """One step's rows, sorted by adapter."""

    tokens_T: Tensor
    positions_T: Tensor
    slots_T: Tensor
    decode_rows: Tensor
    """Rows that hold a sequence's newest token."""
    chunks: tuple[Chunk, ...]
    plan: SegmentPlan
    adapters: tuple[tuple[dict[str, LowRank], ...] | None, ...]
    """Per segment: layer → fused linear → weights."""


@dataclass(frozen=True, slots=True)
class _Layer:
    norm_in: Tensor
    norm_post: Tensor
    linears: dict[str, PackedLinear]


class Llama:
    """Weights and the forward pass. Holds no sequence: the cache is passed in."""

    def __init__(self, folder: Path, *, dtype: torch.dtype, context: int, sgmv: Sgmv) -> None:
        self.shape = LlamaShape.read(folder)
        self.dtype = dtype
        self.context = min(context, self.shape.context)
        self._sgmv = sgmv
        weights = read_weights(folder, dtype)
        self._embedding = weights["model.embed_tokens.weight"]
        self._norm = weights["model.norm.weight"]
        head = self._embedding if self.shape.tied else weights["lm_head.weight"]
        self._head = PackedLinear(head)
        self._layers = [self._layer(weights, index) for index in range(self.shape.layers)]
        self._cos, self._sin = self._rotary()

    def _layer(self, weights: dict[str, Tensor], index: int) -> _Layer:
        prefix = f"model.layers.{index}."

        def fused(name: str) -> PackedLinear:
            part = "self_attn" if name in ("qkv", "o") else "mlp"
            parts = [weights.pop(f"{prefix}{part}.{linear}.weight") for linear in FUSED[name]]
            return PackedLinear(torch.cat(parts))

        return _Layer(
            weights[f"{prefix}input_layernorm.weight"],
            weights[f"{prefix}post_attention_layernorm.weight"],
            {name: fused(name) for name in FUSED},
        )

    def _rotary(self) -> tuple[Tensor, Tensor]:
        dim = self.shape.head_dim
        inverse = 1.0 / self.shape.rope_theta ** (torch.arange(0, dim, 2).float() / dim)
        angles = torch.outer(torch.arange(self.context).float(), inverse)
        both = torch.cat((angles, angles), -1)
        sin = both.sin()
        sin[:, : dim // 2].neg_()  # rotate-half's sign, folded into the table
        return both.cos().to(self.dtype), sin.to(self.dtype)

    def new_cache(self, slots: int) -> Tensor:
        """Zeros of (layer, 2, S, K, L, D). Untouched pages cost no memory."""
        s = self.shape
        return torch.zeros(
            s.layers, 2, slots, s.kv_heads, self.context, s.head_dim, dtype=self.dtype
        )

    def logits(self, hidden: Tensor) -> Tensor:
        """(n, H) hidden rows → (n, V) float32 logits."""
        return self._head(
            rms_norm(hidden, (self.shape.hidden,), self._norm, self.shape.rms_eps)
        ).float()

    def forward(self, batch: Batch, cache: Tensor) -> Tensor:
        """Hidden states (T, H) before the last norm; keys and values are written to `cache`."""
        s = self.shape
        cos = self._cos[batch.positions_T].unsqueeze(1)
        sin = self._sin[batch.positions_T].unsqueeze(1)
        attention = _Attention(self, batch, cache)
        x = self._embedding[batch.tokens_T]
        for index, layer in enumerate(self._layers):
            h = rms_norm(x, (s.hidden,), layer.norm_in, s.rms_eps)
            qkv = self._linear(layer, "qkv", h, batch, index).view(
                -1, s.heads + 2 * s.kv_heads, s.head_dim
            )
            rotated = qkv[:, : s.heads + s.kv_heads]
            rotated = rotated * cos + rotated.roll(s.head_dim // 2, -1) * sin
            q, k = rotated[:, : s.heads], rotated[:, s.heads :]
            mixed = attention(index, q, k, qkv[:, s.heads + s.kv_heads :])
            x = x + self._linear(layer, "o", mixed, batch, index)
            h = rms_norm(x, (s.hidden,), layer.norm_post, s.rms_eps)
            gate, up = self._linear(layer, "gate_up", h, batch, index).chunk(2, -1)
            x = x + self._linear(layer, "down", silu(gate).mul_(up), batch, index)
        return x

    def _linear(self, layer: _Layer, name: str, x: Tensor, batch: Batch, index: int) -> Tensor:
        y = layer.linears[name](x)
        if any(batch.adapters):
            weights: Sequence[LowRank | None] = [
                a[index].get(name) if a else None for a in batch.adapters
            ]
            self._sgmv(y, x, batch.plan, weights)
        return y


class _Attention:
    """Attention of one step. Masks and indices are made once and used by every layer."""

    def __init__(self, model: Llama, batch: Batch, cache: Tensor) -> None:
        self._shape = model.shape
        self._batch = batch
        self._cache = cache
        self._chunk_masks = [self._chunk_mask(chunk, model.dtype) for chunk in batch.chunks]
        rows = batch.decode_rows
        if len(rows):
            self._decode_slots = batch.slots_T[rows]
            self._used = int(self._decode_slots.max()) + 1
            lengths = torch.ones(self._used, dtype=torch.long)
            lengths[self._decode_slots] = batch.positions_T[rows] + 1
            self._longest = int(lengths.max())
            hidden = torch.arange(self._longest) >= lengths[:, None]
            mask = torch.zeros(self._used, self._longest, dtype=model.dtype)
            mask.masked_fill_(hidden, float("-inf"))
            group = self._shape.heads // self._shape.kv_heads
            self._mask = mask[:, None, None].expand(-1, 1, group, -1)

    def _chunk_mask(self, chunk: Chunk, dtype: torch.dtype) -> Tensor | None:
        if chunk.position == 0:
            return None
        keys = torch.arange(chunk.position + chunk.length)
        queries = torch.arange(chunk.length) + chunk.position
        mask = torch.zeros(chunk.length, len(keys), dtype=dtype)
        return mask.masked_fill_(keys > queries[:, None], float("-inf"))

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attend: q (T, K·G, D), k and v (T, K, D) → (T, K·G·D)."""
        s, batch = self._shape, self._batch
        keys, values = self._cache[layer]
        rows, group = batch.decode_rows, s.heads // s.kv_heads
        out = torch.empty(q.shape[0], s.heads, s.head_dim, dtype=q.dtype)
        for chunk, mask in zip(batch.chunks, self._chunk_masks, strict=True):
            span = slice(chunk.row, chunk.row + chunk.length)
            end = chunk.position + chunk.length
            keys[chunk.slot, :, chunk.position : end] = k[span].transpose(0, 1)
            values[chunk.slot, :, chunk.position : end] = v[span].transpose(0, 1)
            mixed = scaled_dot_product_attention(
                q[span].transpose(0, 1)[None],
                keys[chunk.slot, :, :end].repeat_interleave(group, 0)[None],
                values[chunk.slot, :, :end].repeat_interleave(group, 0)[None],
                attn_mask=mask,
                is_causal=mask is None,
            )
            out[span] = mixed[0].transpose(0, 1)
        if len(rows):
            slots, used = self._decode_slots, self._used
            keys[slots, :, batch.positions_T[rows]] = k[rows]
            values[slots, :, batch.positions_T[rows]] = v[rows]
            q_S = q.new_zeros(used, s.kv_heads, group, s.head_dim)
            q_S[slots] = q[rows].view(-1, s.kv_heads, group, s.head_dim)
            mixed = scaled_dot_product_attention(
                q_S,
                keys[:used, :, : self._longest],
                values[:used, :, : self._longest],
                attn_mask=self._mask,
            )
            out[rows] = mixed[slots].reshape(-1, s.heads, s.head_dim)
        return out.view(-1, s.heads * s.head_dim)
