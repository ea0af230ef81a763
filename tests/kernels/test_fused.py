import pytest
import torch

from kernels.fused import implementation

TOLERANCE = {torch.float32: 2e-6, torch.bfloat16: 1.6e-2}
NAMES = ["reference", "native"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(("rows", "width"), [(1, 1), (3, 67), (33, 576)])
@pytest.mark.parametrize("with_delta", [True, False])
def test_the_sum_is_kept_and_its_norm_returned(name, dtype, rows, width, with_delta):
    g = torch.Generator().manual_seed(rows)
    x, delta = torch.randn(2, rows, width, generator=g).to(dtype)
    weight = torch.randn(width, generator=g).to(dtype)
    total = (x + delta) if with_delta else x.clone()
    wide = total.double()
    expected = wide / (wide.pow(2).mean(-1, keepdim=True) + 1e-5).sqrt() * weight.double()
    out = implementation(name).add_rms_norm(x, delta if with_delta else None, weight, 1e-5)
    assert torch.equal(x, total)
    tolerance = TOLERANCE[dtype]
    assert torch.allclose(out.double(), expected, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(("rows", "width"), [(1, 1), (5, 67), (32, 1536)])
def test_the_gate_is_the_first_half(name, dtype, rows, width):
    gate_up = torch.randn(rows, 2 * width, generator=torch.Generator().manual_seed(1)).to(dtype)
    gate, up = gate_up.double().chunk(2, -1)
    out = implementation(name).silu_mul(gate_up)
    tolerance = TOLERANCE[dtype]
    expected = gate * gate.sigmoid() * up
    assert torch.allclose(out.double(), expected, atol=tolerance, rtol=tolerance)


def test_an_unknown_implementation_is_refused_by_name():
    with pytest.raises(ValueError, match="reference, native"):
        implementation("cuda")
