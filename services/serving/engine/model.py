"""The forward pass of a Llama over a mixed batch: decode rows and prompt chunks of many sequences.

All rows of a step are packed into one matrix for the linear layers; attention looks at each
sequence's pages of the pool. Shape suffixes: T rows of the step, H hidden, P pages, S slots, M
pages of the longest sequence, K key-value heads, G query heads per key-value head, C positions of a
page, L positions, D head size, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from kernels.attention import Rotary, Rows
from kernels.attention import implementation as attention_named
from kernels.attention.reference import gather, rotate
from kernels.fused import implementation as fused_named
from kernels.linear import Linear
from kernels.linear import implementation as linear_named
from kernels.lora import Apply, LowRank, Prepare, SegmentPlan
from kernels.lora import implementation as lora_named
from services.serving.engine.checkpoint import LlamaShape, read_weights

FUSED = {
    "qkv": ("q_proj", "k_proj", "v_proj"),
    "o": ("o_proj",),
    "gate_up": ("gate_proj", "up_proj"),
    "down": ("down_proj",),
}
"""Fused linear → the checkpoint's linears, in order of their output columns."""
ROW_BY_ROW = 1 << 14
"""Rows times positions of a prompt chunk up to which one kernel for every row is faster than the
dozen operations of one product."""


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
    linears: dict[str, Linear]


class Llama:
    """Weights and the forward pass. Holds no sequence: their pages are passed in."""

    def __init__(self, folder: Path, *, dtype: torch.dtype, context: int, kernels: str) -> None:
        self.shape = LlamaShape.read(folder)
        self.dtype = dtype
        self.context = min(context, self.shape.context)
        self._fused = fused_named(kernels)
        self.summarize = self._fused.summarize
        self._lora = _LastBound(lora_named(kernels))
        self.attend = attention_named(kernels)
        self.row_by_row = ROW_BY_ROW if kernels == "native" else 0
        weights = read_weights(folder, dtype)
        self._embedding = weights["model.embed_tokens.weight"]
        self._norm = weights["model.norm.weight"]
        head = self._embedding if self.shape.tied else weights["lm_head.weight"]
        self._packed = linear_named(kernels)
        self._head = self._packed(head)
        self._layers = [self._layer(weights, index) for index in range(self.shape.layers)]
        self.rotary = self._rotary_tables()

    def _layer(self, weights: dict[str, Tensor], index: int) -> _Layer:
        prefix = f"model.layers.{index}."

        def fused(name: str) -> Linear:
            part = "self_attn" if name in ("qkv", "o") else "mlp"
            parts = [weights.pop(f"{prefix}{part}.{linear}.weight") for linear in FUSED[name]]
            return self._packed(torch.cat(parts))

        return _Layer(
            weights[f"{prefix}input_layernorm.weight"],
            weights[f"{prefix}post_attention_layernorm.weight"],
            {name: fused(name) for name in FUSED},
        )

    def _rotary_tables(self) -> Rotary:
        dim = self.shape.head_dim
        inverse = 1.0 / self.shape.rope_theta ** (torch.arange(0, dim, 2).float() / dim)
        angles = torch.outer(torch.arange(self.context).float(), inverse)
        both = torch.cat((angles, angles), -1)
        sin = both.sin()
        sin[:, : dim // 2].neg_()  # rotate-half's sign, folded into the table
        return Rotary(both.cos().to(self.dtype), sin.to(self.dtype))

    def logits(self, hidden: Tensor) -> Tensor:
        """(n, H) hidden rows → (n, V) logits, in the model's dtype."""
        normed = self._fused.add_rms_norm(hidden, None, self._norm, self.shape.rms_eps)
        return self._head(normed)

    def forward(self, batch: Batch, pages: Tensor, tables: Tensor) -> Tensor:
        """Hidden states (T, H) before the last norm; keys and values are written to their pages.

        `pages` is (P, 2, K, C, D); `tables` (layer, S, M) says which of them hold each slot's
        positions, those of this step among them.
        """
        s = self.shape
        attention = _Attention(self, batch, pages, tables)
        lora = self._lora.bound(batch)
        norm = self._fused.add_rms_norm
        x, delta = self._embedding[batch.tokens_T], None
        for index, layer in enumerate(self._layers):
            h = norm(x, delta, layer.norm_in, s.rms_eps)
            qkv = self._linear(layer, "qkv", h, lora, index)
            mixed = attention(index, qkv.view(-1, s.heads + 2 * s.kv_heads, s.head_dim))
            h = norm(x, self._linear(layer, "o", mixed, lora, index), layer.norm_post, s.rms_eps)
            h = self._fused.silu_mul(self._linear(layer, "gate_up", h, lora, index))
            delta = self._linear(layer, "down", h, lora, index)
        return x if delta is None else x.add_(delta)

    def _linear(
        self, layer: _Layer, name: str, x: Tensor, lora: BoundLora | None, index: int
    ) -> Tensor:
        y = layer.linears[name](x)
        if lora is not None:
            lora(index, name)(y, x)
        return y


class BoundLora:
    """The adapters of one batch, bound to its plan: per layer and fused linear, at first use."""

    def __init__(self, batch: Batch, prepare: Prepare) -> None:
        self._plan, self._adapters = batch.plan, batch.adapters
        self._prepare = prepare
        self._bound: dict[tuple[int, str], Apply] = {}

    def serves(self, batch: Batch) -> bool:
        """Whether `batch` has the same rows of the same adapters."""
        return self._plan == batch.plan and all(
            mine is theirs for mine, theirs in zip(self._adapters, batch.adapters, strict=True)
        )

    def __call__(self, layer: int, name: str) -> Apply:
        bound = self._bound.get((layer, name))
        if bound is None:
            weights = [a[layer].get(name) if a else None for a in self._adapters]
            bound = self._bound[layer, name] = self._prepare(self._plan, weights)
        return bound


class _LastBound:
    """Steps that decode the same sequences share one binding."""

    def __init__(self, prepare: Prepare) -> None:
        self._prepare = prepare
        self._last: BoundLora | None = None

    def bound(self, batch: Batch) -> BoundLora | None:
        if not any(batch.adapters):
            return None
        if self._last is None or not self._last.serves(batch):
            self._last = BoundLora(batch, self._prepare)
        return self._last


class _Attention:
    """Attention of one step. Masks and indices are made once and used by every layer."""

    def __init__(self, model: Llama, batch: Batch, pages: Tensor, tables: Tensor) -> None:
        self._shape = model.shape
        self._batch = batch
        self._pages, self._tables = pages, tables
        self._rotary = model.rotary
        short = [c for c in batch.chunks if c.length * (c.position + c.length) <= model.row_by_row]
        self._long = [
            (chunk, self._chunk_mask(chunk, model.dtype))
            for chunk in batch.chunks
            if chunk not in short
        ]
        alone = [torch.arange(chunk.row, chunk.row + chunk.length) for chunk in short]
        chosen = torch.cat([batch.decode_rows, *alone])
        rows = Rows(chosen, batch.positions_T, batch.slots_T)
        self._row_by_row = model.attend(model.rotary, rows) if len(chosen) else None

    def _chunk_mask(self, chunk: Chunk, dtype: torch.dtype) -> Tensor | None:
        if chunk.position == 0:
            return None
        keys = torch.arange(chunk.position + chunk.length)
        queries = torch.arange(chunk.length) + chunk.position
        mask = torch.zeros(chunk.length, len(keys), dtype=dtype)
        return mask.masked_fill_(keys > queries[:, None], float("-inf"))

    def __call__(self, layer: int, qkv: Tensor) -> Tensor:
        """Attend: qkv (T, K·G + 2·K, D) before rotation → (T, K·G·D)."""
        s = self._shape
        table = self._tables[layer]
        out = torch.empty(qkv.shape[0], s.heads, s.head_dim, dtype=qkv.dtype)
        for chunk, mask in self._long:
            self._prompt(chunk, mask, qkv, table[chunk.slot], out)
        if self._row_by_row is not None:
            self._row_by_row(qkv, self._pages, table, out)
        return out.view(-1, s.heads * s.head_dim)

    def _prompt(
        self, chunk: Chunk, mask: Tensor | None, qkv: Tensor, table_M: Tensor, out: Tensor
    ) -> None:
        s, end, per_page = self._shape, chunk.position + chunk.length, self._pages.shape[3]
        span = slice(chunk.row, chunk.row + chunk.length)
        positions = self._batch.positions_T[span]
        q_k = rotate(qkv[span, : s.heads + s.kv_heads], self._rotary, positions)
        keys, values = q_k[:, s.heads :], qkv[span, s.heads + s.kv_heads :]
        page, offset = table_M[positions // per_page].long(), positions % per_page
        self._pages[page, 0, :, offset] = keys
        self._pages[page, 1, :, offset] = values
        if chunk.position == 0:
            keys_1KLD, values_1KLD = keys.transpose(0, 1)[None], values.transpose(0, 1)[None]
        else:
            used_1M = table_M[None, : -(-end // per_page)].long()
            keys_1KLD, values_1KLD = gather(self._pages, used_1M, end)
        group = s.heads // s.kv_heads
        mixed = scaled_dot_product_attention(
            q_k[:, : s.heads].transpose(0, 1)[None],
            keys_1KLD.repeat_interleave(group, 1),
            values_1KLD.repeat_interleave(group, 1),
            attn_mask=mask,
            is_causal=mask is None,
        )
        out[span] = mixed[0].transpose(0, 1)
