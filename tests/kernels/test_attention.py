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


@pytest.mark.req("V2", "V3")
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("per_page", [1, 7, 16])
@pytest.mark.parametrize(("heads", "kv", "dim"), [(9, 3, 64), (4, 4, 10), (8, 1, 32)])
def test_each_decoding_row_attends_over_its_own_pages(name, dtype, per_page, heads, kv, dim):
    g = torch.Generator().manual_seed(heads)
    context, slots, rows = 40, 5, 6
    rotary = rotary_tables(context, dim, dtype)
    qkv = torch.randn(rows, heads + 2 * kv, dim, generator=g).to(dtype)
    positions = torch.tensor([0, 39, 7, 1, 20, 3])
    at = torch.tensor([4, 0, 9, 2, 1, 9])  # rows 2 and 5 are prompt rows: their slots are not used
    decode = torch.tensor([0, 1, 3, 4])
    most = -(-context // per_page)
    pages = torch.randn(slots * most + 3, 2, kv, per_page, dim, generator=g).to(dtype)
    table = torch.randperm(len(pages), generator=g)[: slots * most].view(slots, most).int()

    def places(row):  # (page, position in it) of every position up to the row's own
        steps = torch.arange(int(positions[row]) + 1)
        return table[at[row], steps // per_page].long(), steps % per_page

    past = {
        row: [pages[p, half, :, o].transpose(0, 1).clone() for half in (0, 1)]
        for row in decode.tolist()
        for p, o in [places(row)]
    }
    expected = {
        row: by_hand(qkv, rotary, row, int(positions[row]), keys, values, heads, kv)
        for row, (keys, values) in past.items()
    }
    seen = torch.zeros(pages.shape[0], per_page, dtype=torch.bool)
    for row in decode.tolist():
        seen[places(row)] = True
    pages.transpose(2, 3)[~seen[:, None].expand(-1, 2, -1)] = float("nan")  # not to be looked at
    before = pages.clone()
    out = torch.full((rows, heads, dim), 7.0, dtype=dtype)
    implementation(name)(rotary, Rows(decode, positions, at))(qkv, pages, table, out)
    for row in range(rows):
        if row in expected:
            assert torch.allclose(
                out[row].double(), expected[row], atol=TOLERANCE[dtype], rtol=TOLERANCE[dtype]
            )
        else:
            assert torch.equal(out[row], torch.full((heads, dim), 7.0, dtype=dtype))
    for row in decode.tolist():  # nothing but the newest position was written
        page, offset = (part[-1] for part in places(row))
        assert torch.equal(pages[page, 1, :, offset], qkv[row, heads + kv :])
        pages[page, :, :, offset] = before[page, :, :, offset]
    assert torch.equal(pages.nan_to_num(9), before.nan_to_num(9))


def test_an_unknown_implementation_is_refused_by_name():
    with pytest.raises(ValueError, match="reference, native"):
        implementation("cuda")


@pytest.mark.req("V2", "V3")
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("order", [[0, 1, 2, 3, 4], [4, 2, 0, 3, 1]], ids=["in order", "shuffled"])
def test_rows_of_one_sequence_see_each_other_up_to_themselves(name, dtype, order):
    g = torch.Generator().manual_seed(3)
    heads, kv, dim, per_page = 6, 2, 32, 4
    rotary = rotary_tables(40, dim, dtype)
    qkv = torch.randn(5, heads + 2 * kv, dim, generator=g).to(dtype)
    positions, at = torch.arange(5) + 6, torch.zeros(5, dtype=torch.long)
    pages = torch.randn(10, 2, kv, per_page, dim, generator=g).to(dtype)
    table = torch.randperm(10, generator=g)[None].int()
    attend = implementation(name)
    alone_pages, alone = pages.clone(), torch.empty(5, heads, dim, dtype=dtype)
    for row in range(5):
        rows = Rows(torch.tensor([row]), positions, at)
        attend(rotary, rows)(qkv, alone_pages, table, alone)
    together = torch.empty_like(alone)
    attend(rotary, Rows(torch.tensor(order), positions, at))(qkv, pages, table, together)
    assert torch.allclose(together, alone, atol=TOLERANCE[dtype])
    assert torch.equal(pages, alone_pages)
