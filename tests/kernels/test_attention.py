import pytest
import torch

from kernels.attention import Rotary, Rows, implementation

TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 3e-2}
NAMES = ["reference", "native"]


def rotary_tables(length, dim, dtype):
    angles = torch.outer(torch.arange(length).float(), 10000.0 ** -(torch.arange(0, dim, 2) / dim))
    both = torch.cat((angles, angles), -1)
    sin = both.sin()
    sin[:, : dim // 2].neg_()
    return Rotary(both.cos().to(dtype), sin.to(dtype))


def by_hand(qkv, rotary, row, position, keys, values, heads, kv):
    """One row in double precision: (heads, dim)."""
    dim = qkv.shape[-1]
    cos, sin = rotary.cos_LD[position].double(), rotary.sin_LD[position].double()

    def turn(head):
        head = head.double()
        return head * cos + torch.cat((head[dim // 2 :], head[: dim // 2])) * sin

    out = torch.empty(heads, dim, dtype=torch.double)
    for head in range(heads):
        group = head // (heads // kv)
        past_k = keys[group, :position].double()
        past_v = values[group, :position].double()
        k = torch.cat((past_k, turn(qkv[row, heads + group]).to(qkv.dtype).double()[None]))
        v = torch.cat((past_v, qkv[row, heads + kv + group].double()[None]))
        weights = (k @ turn(qkv[row, head]) / dim**0.5).softmax(-1)
        out[head] = weights @ v
    return out


@pytest.mark.req("V3")
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(("heads", "kv", "dim"), [(9, 3, 64), (4, 4, 10), (8, 1, 32)])
def test_each_decoding_row_attends_over_its_own_slot(name, dtype, heads, kv, dim):
    g = torch.Generator().manual_seed(heads)
    context, slots, rows = 40, 5, 6
    rotary = rotary_tables(context, dim, dtype)
    qkv = torch.randn(rows, heads + 2 * kv, dim, generator=g).to(dtype)
    keys, values = torch.randn(2, slots, kv, context, dim, generator=g).to(dtype)
    positions = torch.tensor([0, 39, 7, 1, 20, 3])
    at = torch.tensor([4, 0, 9, 2, 1, 9])  # rows 2 and 5 are prompt rows: their slots are not used
    decode = torch.tensor([0, 1, 3, 4])
    before = keys.clone(), values.clone()
    expected = {
        row: by_hand(
            qkv, rotary, row, int(positions[row]), keys[at[row]], values[at[row]], heads, kv
        )
        for row in decode.tolist()
    }
    out = torch.full((rows, heads, dim), 7.0, dtype=dtype)
    implementation(name)(rotary, Rows(decode, positions, at))(qkv, keys, values, out)
    for row in range(rows):
        if row in expected:
            assert torch.allclose(
                out[row].double(), expected[row], atol=TOLERANCE[dtype], rtol=TOLERANCE[dtype]
            )
        else:
            assert torch.equal(out[row], torch.full((heads, dim), 7.0, dtype=dtype))
    for row in decode.tolist():  # nothing but the newest position was written
        slot, position = at[row], positions[row]
        assert torch.equal(values[slot, :, position], qkv[row, heads + kv :])
        for now, then in zip((keys, values), before, strict=True):
            now[slot, :, position] = then[slot, :, position]
    assert torch.equal(keys, before[0])
    assert torch.equal(values, before[1])


def test_an_unknown_implementation_is_refused_by_name():
    with pytest.raises(ValueError, match="reference, native"):
        implementation("cuda")
