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


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(("rows", "width"), [(1, 1), (5, 67), (3, 49152)])
def test_logits_are_summed_up_and_the_first_of_equals_wins(name, dtype, rows, width):
    logits = (torch.randn(rows, width, generator=torch.Generator().manual_seed(2)) * 9).to(dtype)
    first = torch.arange(rows) % width
    logits[torch.arange(rows), first] = logits[:, -1] = 60.0
    best, value, mass = implementation(name).summarize(logits)
    assert best == first.tolist()
    assert value == [60.0] * rows
    assert mass == pytest.approx(logits.double().logsumexp(-1).tolist(), rel=2e-6)


@pytest.mark.parametrize("name", NAMES)
def test_gates_far_from_zero_stay_finite(name):
    gates = torch.tensor([-200.0, -89.0, -20.0, 0.0, 20.0, 89.0, 200.0, -1e-30]).repeat(4)[None]
    out = implementation(name).silu_mul(torch.cat((gates, torch.ones_like(gates)), -1))
    wide = gates.double()
    assert torch.allclose(out.double(), wide * wide.sigmoid(), atol=1e-6, rtol=1e-5)


def test_an_unknown_implementation_is_refused_by_name():
    with pytest.raises(ValueError, match="reference, native"):
        implementation("cuda")
