import itertools
from dataclasses import replace

import pytest
import torch

from kernels.lora import (
    Block,
    LowRank,
    Segment,
    SegmentPlan,
    implementation,
    quantized,
    scale,
    sgmv_,
)
from kernels.lora.native import LONGEST, Native

NAMES = ["reference", "native", "triton"]
TOLERANCE = {torch.float32: 2e-5, torch.bfloat16: 6e-2}


def popularity(name: str, rows: int) -> list[int | None]:
    match name:
        case "distinct":
            return list(range(rows))
        case "identical":
            return [0] * rows
        case "uniform":
            return sorted(i % 4 for i in range(rows))
        case "zipf":
            return sorted(min(i.bit_length(), 5) for i in range(rows))
        case _:
            return [None] * (rows // 2) + [1] * (rows - rows // 2)


def naive(y, x, rows, weights):
    out = y.double().clone()
    for i, adapter in enumerate(rows):
        w = weights.get(adapter)
        if w is not None:
            delta = (w.alpha / w.rank) * (x[i].double() @ w.a.T.double())
            out[i] += delta @ w.blocks[0].b.T.double()
    return out


@pytest.mark.req("V3")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("kind", ["distinct", "identical", "uniform", "zipf", "half without"])
@pytest.mark.parametrize("rows", [1, 2, 7, 33])
@pytest.mark.parametrize(("k", "d"), [(24, 40), (67, 301)])
@pytest.mark.parametrize("name", NAMES)
def test_every_segment_gets_its_own_adapter_at_its_own_rank(name, k, d, rows, kind, dtype):
    g = torch.Generator().manual_seed(rows)
    row_adapters = popularity(kind, rows)
    weights = {
        key: LowRank.single(
            (torch.randn(1 + key % 17, k, generator=g) * 0.2).to(dtype),
            (torch.randn(d, 1 + key % 17, generator=g) * 0.2).to(dtype),
            alpha=3.0 + key,
        )
        for key in set(row_adapters)
        if key is not None
    }
    x = torch.randn(rows, k, generator=g).to(dtype)
    y = torch.randn(rows, d, generator=g).to(dtype)
    expected = naive(y, x, row_adapters, weights)
    plan = SegmentPlan.of(row_adapters)
    out = sgmv_(y, x, plan, [weights.get(s.adapter) for s in plan.segments], name=name)
    assert out is y
    assert torch.allclose(y.double(), expected, atol=TOLERANCE[dtype], rtol=TOLERANCE[dtype])


@pytest.mark.req("V3")
@pytest.mark.parametrize("name", NAMES)
def test_rows_without_an_adapter_are_untouched_bit_for_bit(name):
    y = torch.randn(6, 8)
    before = y.clone()
    low_rank = LowRank.single(torch.randn(2, 4), torch.randn(8, 2), alpha=4)
    plan = SegmentPlan((Segment(None, 0, 4), Segment("a", 4, 4), Segment("b", 4, 6)), 6)
    sgmv_(y, torch.randn(6, 4), plan, [None, low_rank, low_rank], name=name)
    assert torch.equal(y[:4], before[:4])
    assert not torch.equal(y[4:], before[4:])


@pytest.mark.req("V3")
@pytest.mark.parametrize("name", NAMES)
def test_a_fused_linear_equals_its_parts(name):
    x = torch.randn(5, 6)
    a1, b1 = torch.randn(2, 6), torch.randn(4, 2)
    a2, b2 = torch.randn(3, 6), torch.randn(7, 3)
    fused = LowRank(torch.cat([a1, a2]), (Block(0, 0, b1), Block(4, 2, b2)), 8.0, 2.0)
    plan = SegmentPlan.of(["one"] * 5)
    y = sgmv_(torch.zeros(5, 11), x, plan, [fused], name=name)
    assert torch.allclose(y[:, :4], 4 * x @ a1.T @ b1.T, atol=1e-4)
    assert torch.allclose(y[:, 4:], 4 * x @ a2.T @ b2.T, atol=1e-4)


def restored(weights):
    """What quantized `weights` stand for: the factors, put into A."""
    return LowRank(
        weights.a.float() * weights.factors[:, None],
        tuple(Block(b.column, b.row, b.b.float()) for b in weights.blocks),
        weights.alpha,
        weights.rank,
    )


@pytest.mark.req("V3")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("kind", ["distinct", "identical", "zipf", "half without"])
@pytest.mark.parametrize(("k", "d"), [(24, 40), (67, 1301)])
@pytest.mark.parametrize("name", ["reference", "native"])
def test_quantized_weights_add_what_their_integers_stand_for(name, k, d, kind, dtype):
    g = torch.Generator().manual_seed(5)
    row_adapters = popularity(kind, 19)
    weights = {
        key: quantized(
            LowRank.single(
                torch.randn(1 + key % 17, k, generator=g) * 0.2,
                torch.randn(d, 1 + key % 17, generator=g) * 0.2,
                alpha=3.0 + key,
            )
        )
        for key in set(row_adapters)
        if key is not None
    }
    assert all(w.a.dtype == torch.int8 for w in weights.values())
    x = torch.randn(19, k, generator=g).to(dtype)
    y = torch.randn(19, d, generator=g).to(dtype)
    expected = naive(y, x, row_adapters, {key: restored(w) for key, w in weights.items()})
    plan = SegmentPlan.of(row_adapters)
    out = sgmv_(y, x, plan, [weights.get(s.adapter) for s in plan.segments], name=name)
    assert torch.allclose(out.double(), expected, atol=TOLERANCE[dtype], rtol=TOLERANCE[dtype])


@pytest.mark.req("V3")
@pytest.mark.parametrize("name", ["native"])
@pytest.mark.parametrize(
    "how",
    [{}, {"tiles": False}, {"longest": dict.fromkeys(LONGEST, 100)}],
    ids=["tiles", "no tiles", "the longest by torch"],
)
@pytest.mark.parametrize("stored", ["as the rows", "int8"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(("k", "widths"), [(64, (96, 32)), (67, (33, 301))], ids=str)
def test_prompts_and_decoding_rows_of_fused_linears_share_a_batch(
    k, widths, dtype, stored, how, name
):
    g = torch.Generator().manual_seed(3)

    def adapter(rank):
        a = torch.randn(len(widths) * rank, k, generator=g) * 0.2
        blocks, column = [], 0
        for n, width in enumerate(widths):
            b = torch.randn(width, rank, generator=g) * 0.2
            blocks.append(Block(column, n * rank, b))
            column += width
        whole = LowRank(a, tuple(blocks), 4.0 + rank, float(rank))
        if stored == "int8":
            return quantized(whole)
        blocks = tuple(replace(block, b=block.b.to(dtype)) for block in blocks)
        return replace(whole, a=a.to(dtype), blocks=blocks)

    lengths = [70, 3, 17, 5, 130]
    weights = [adapter(20), adapter(8), adapter(1), None, adapter(33)]
    ends = list(itertools.accumulate(lengths))
    segments = [Segment(n, end - lengths[n], end) for n, end in enumerate(ends)]
    plan = SegmentPlan(tuple(segments), ends[-1])
    # rows of a wider matrix, as a fused linear's output may be
    x = torch.randn(ends[-1], k + 5, generator=g).to(dtype)[:, :k]
    y = torch.randn(ends[-1], sum(widths), generator=g).to(dtype)
    expected = y.double()
    for segment, low_rank in zip(segments, weights, strict=True):
        if low_rank is not None:
            used = restored(low_rank) if stored == "int8" else low_rank
            rows = slice(segment.start, segment.stop)
            for block in used.blocks:
                ranks = slice(block.row, block.row + block.b.shape[1])
                delta = x[rows].double() @ used.a[ranks].double().T @ block.b.double().T
                columns = slice(block.column, block.column + block.b.shape[0])
                expected[rows, columns] += used.alpha / used.rank * delta
    before = y.clone()
    Native(**how).prepare(plan, weights)(y, x)
    assert torch.equal(y[90:95], before[90:95])
    assert torch.allclose(y.double(), expected, atol=TOLERANCE[dtype], rtol=TOLERANCE[dtype])


@pytest.mark.req("V3")
def test_a_quantized_weight_is_off_by_half_a_step_of_its_row_at_most():
    a, b1, b2 = torch.randn(6, 50) * 3, torch.randn(30, 2), torch.randn(20, 4) * 0.01
    a[1] = 0
    original = LowRank(a, (Block(0, 0, b1), Block(30, 2, b2)), 8.0, 2.0)
    back = restored(quantized(original))
    for (row, column, b), block in zip([(0, 0, b1), (2, 30, b2)], back.blocks, strict=True):
        assert (block.row, block.column) == (row, column)
        ranks = a[row : row + b.shape[1]]
        product = block.b @ back.a[row : row + b.shape[1]]
        half_b, half_a = b.abs().amax(0) / 254, ranks.abs().amax(1) / 254
        off = half_b @ ranks.abs() + (b.abs() @ half_a + half_b @ half_a)[:, None]
        assert ((product - b @ ranks).abs() <= off * 1.001 + 1e-6).all()


def test_weights_stored_differently_cannot_share_a_batch():
    plain = LowRank.single(torch.randn(2, 4), torch.randn(8, 2), alpha=4)
    with pytest.raises(ValueError, match="stored alike"):
        sgmv_(
            torch.zeros(2, 8),
            torch.randn(2, 4),
            SegmentPlan.of([0, 1]),
            [plain, quantized(plain)],
            name="native",
        )


def test_triton_refuses_quantized_weights():
    small = quantized(LowRank.single(torch.randn(2, 4), torch.randn(8, 2), alpha=4))
    with pytest.raises(ValueError, match="CPU kernels only"):
        sgmv_(torch.zeros(1, 8), torch.randn(1, 4), SegmentPlan.of([0]), [small], name="triton")


@pytest.mark.req("V3")
def test_scale_is_alpha_over_rank():
    assert scale(LowRank.single(torch.zeros(16, 3), torch.zeros(5, 16), alpha=32)) == 2.0


def test_scattered_rows_of_one_adapter_are_refused():
    with pytest.raises(ValueError, match="sort the batch"):
        SegmentPlan.of(["a", "b", "a"])


def test_a_plan_of_another_batch_is_refused():
    with pytest.raises(ValueError, match="do not fit"):
        sgmv_(torch.zeros(2, 3), torch.zeros(2, 3), SegmentPlan.of([None]), [None])


def test_an_unknown_implementation_is_refused_by_name():
    with pytest.raises(ValueError, match="reference"):
        implementation("cuda")
