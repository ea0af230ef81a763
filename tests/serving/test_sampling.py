import pytest
import torch

from services.serving.engine.port import Sampling
from services.serving.engine.sampling import draw, generator

LOGITS = torch.tensor([0.5, 3.0, -1.0, 2.0])
SMALLEST = 5e-324  # a number of the interface, and zero in float32


@pytest.mark.parametrize("given", [{"temperature": SMALLEST}, {"temperature": 1e-9, "seed": 1}])
def test_a_temperature_that_is_nearly_nothing_is_greedy(given) -> None:
    sampling = Sampling(**given)
    assert generator(sampling) is None
    assert draw(LOGITS, sampling, None) == 1


@pytest.mark.parametrize("top_k", [0, 2])
@pytest.mark.parametrize("top_p", [SMALLEST, 1e-30, 1e-3])
def test_the_smallest_nucleus_holds_the_likeliest_token(top_p, top_k) -> None:
    sampling = Sampling(temperature=1.5, top_p=top_p, top_k=top_k, seed=3)
    assert {draw(LOGITS, sampling, generator(sampling)) for _ in range(5)} == {1}


def test_a_cold_draw_has_the_likeliest_token_and_a_warm_one_others_too() -> None:
    cold, warm = Sampling(temperature=1e-4, seed=3), Sampling(temperature=2.0, seed=3)
    draws = generator(cold)
    assert {draw(LOGITS, cold, draws) for _ in range(20)} == {1}
    draws = generator(warm)
    assert len({draw(LOGITS, warm, draws) for _ in range(50)}) > 2
