"""The definition of correct: attention of decoding rows in plain torch, all slots at once."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from kernels.attention.api import Attend, Rotary, Rows


def prepare(rotary: Rotary, rows: Rows) -> Attend:
    """See `kernels.attention.api.Attend`, whose docstring is the specification."""
    decode, positions = rows.decode_N, rows.positions_T[rows.decode_N]
    slots = rows.slots_T[decode]
    used = int(slots.max()) + 1
    lengths = torch.ones(used, dtype=torch.long)
    lengths[slots] = positions + 1
    longest = int(lengths.max())
    mask_SL = torch.zeros(used, longest, dtype=rotary.cos_LD.dtype)
    mask_SL.masked_fill_(torch.arange(longest) >= lengths[:, None], float("-inf"))

    def attend(qkv: Tensor, keys: Tensor, values: Tensor, out: Tensor) -> None:
        kv, dim = keys.shape[1], keys.shape[3]
        heads = qkv.shape[1] - 2 * kv
        q_k = rotate(qkv[decode, : heads + kv], rotary, positions)
        keys[slots, :, positions] = q_k[:, heads:]
        values[slots, :, positions] = qkv[decode, heads + kv :]
        q_SKGD = q_k.new_zeros(used, kv, heads // kv, dim)
        q_SKGD[slots] = q_k[:, :heads].reshape(-1, kv, heads // kv, dim)
        mixed = scaled_dot_product_attention(
            q_SKGD,
            keys[:used, :, :longest],
            values[:used, :, :longest],
            attn_mask=mask_SL[:, None, None].expand(-1, 1, heads // kv, -1),
        )
        out[decode] = mixed[slots].reshape(-1, heads, dim)

    return attend


def rotate(x_NHD: Tensor, rotary: Rotary, positions_N: Tensor) -> Tensor:
    """Rotary embedding of heads at their positions."""
    cos = rotary.cos_LD[positions_N].unsqueeze(1)
    sin = rotary.sin_LD[positions_N].unsqueeze(1)
    return x_NHD * cos + x_NHD.roll(x_NHD.shape[-1] // 2, -1) * sin
