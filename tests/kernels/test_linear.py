import pytest
import torch

from kernels.linear import implementation
from kernels.linear.native import Native, pack
from kernels.native import NativeUnavailable

TOLERANCE = {torch.float32: 2e-6, torch.bfloat16: 8e-3}


def product(name):
    if name != "native, no tiles":
        return implementation(name)
    try:
        return Native(tiles=False).prepare
    except NativeUnavailable as reason:
        pytest.skip(str(reason))


@pytest.mark.parametrize("name", ["reference", "native", "native, no tiles"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(("d", "k"), [(1, 32), (31, 64), (33, 576), (960, 96), (70, 67)])
@pytest.mark.parametrize("rows", [1, 15, 16, 17, 32, 49, 520])
def test_every_row_meets_the_whole_weight(name, dtype, d, k, rows):
    g = torch.Generator().manual_seed(d + rows)
    weight, x = (
        torch.randn(d, k, generator=g).to(dtype),
        torch.randn(rows, k, generator=g).to(dtype),
    )
    expected = x.double() @ weight.double().T
    y = product(name)(weight.clone())(x)
    assert y.dtype == dtype
    assert y.shape == (rows, d)
    within = TOLERANCE[dtype] * (x.double().abs() @ weight.double().abs().T)
    assert bool(((y.double() - expected).abs() <= within).all())


@pytest.mark.parametrize("name", ["native"])
def test_a_row_is_the_same_whatever_stands_beside_it(name):
    g = torch.Generator().manual_seed(3)
    weight = torch.randn(96, 64, generator=g).bfloat16()
    x = torch.randn(530, 64, generator=g).bfloat16()
    apply = implementation(name)(weight)
    together = apply(x)
    for rows in (1, 16, 40, 515):
        assert torch.equal(apply(x[:rows].contiguous()), together[:rows])


@pytest.mark.parametrize("name", ["native"])
def test_rows_that_do_not_fit_are_refused(name):
    apply = implementation(name)(torch.ones(32, 64).bfloat16())
    if not hasattr(apply, "holds"):
        pytest.skip("this processor has no matrix unit: oneDNN checks its rows itself")
    rows = torch.ones(4, 128).bfloat16()
    for wrong in (rows, rows[:, :64], rows[:, :64].float().contiguous()):
        with pytest.raises(ValueError, match="rows of 64 wanted"):
            apply(wrong)


def test_a_packed_weight_lies_in_strips_of_pairs():
    weight = torch.arange(40 * 64).view(40, 64).bfloat16()
    packed = pack(weight)
    assert packed.shape == (2, 2, 2, 16, 16, 2)
    for output, given in ((0, 0), (17, 5), (39, 63)):
        strip, half, column = output // 32, output % 32 // 16, output % 16
        place = packed[strip, given // 32, half, given % 32 // 2, column, given % 2]
        assert place == weight[output, given]
    assert not packed[1, :, 1].any()


def test_an_unknown_implementation_is_refused_by_name():
    with pytest.raises(ValueError, match="no linear implementation 'fast'"):
        implementation("fast")
