"""The definition of correct: attention row by row in plain torch, all rows at once."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from kernels.attention.api import Attend, Rotary, Rows


def prepare(rotary: Rotary, rows: Rows) -> Attend:
    """See `kernels.attention.api.Attend`, whose docstring is the specification."""
    decode, positions = rows.decode_N, rows.positions_T[rows.decode_N]
    slots, longest = rows.slots_T[decode], int(positions.max()) + 1
    unseen_NL = torch.arange(longest) > positions[:, None]
    mask_NL = torch.zeros(unseen_NL.shape, dtype=rotary.cos_LD.dtype)
    mask_NL.masked_fill_(unseen_NL, float("-inf"))

    def attend(qkv: Tensor, pages: Tensor, table: Tensor, out: Tensor) -> None:
        _, _, kv, per_page, dim = pages.shape
        heads = qkv.shape[1] - 2 * kv
        q_k = rotate(qkv[decode, : heads + kv], rotary, positions)
        newest, offset = table[slots, positions // per_page].long(), positions % per_page
        pages[newest, 0, :, offset] = q_k[:, heads:]
        pages[newest, 1, :, offset] = qkv[decode, heads + kv :]
        # a page past a row's end may hold anything, NaN too: it is another's, or nobody's yet
        used_NM = table[slots, : -(-longest // per_page)].long()
        keys_NKLD, values_NKLD = gather(pages, used_NM, longest)
        keys_NKLD.masked_fill_(unseen_NL[:, None, :, None], 0)
        values_NKLD.masked_fill_(unseen_NL[:, None, :, None], 0)
        mixed = scaled_dot_product_attention(
            q_k[:, :heads].reshape(-1, kv, heads // kv, dim),
            keys_NKLD,
            values_NKLD,
            attn_mask=mask_NL[:, None, None].expand(-1, 1, heads // kv, -1),
        )
        out[decode] = mixed.reshape(-1, heads, dim)

    return attend


def gather(pages: Tensor, used_NM: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """Keys and values (N, K, length, D) of sequences whose pages are `used_NM`, copied together."""
    _, _, kv, _, dim = pages.shape
    both = pages[used_NM.clamp(min=0)].permute(2, 0, 3, 1, 4, 5)
    keys, values = both.reshape(2, len(used_NM), kv, -1, dim)[:, :, :, :length]
    return keys, values


def rotate(x_NHD: Tensor, rotary: Rotary, positions_N: Tensor) -> Tensor:
    """Rotary embedding of heads at their positions."""
    cos = rotary.cos_LD[positions_N].unsqueeze(1)
    sin = rotary.sin_LD[positions_N].unsqueeze(1)
    return x_NHD * cos + x_NHD.roll(x_NHD.shape[-1] // 2, -1) * sin
