"""PPO's formulas against values worked out by hand, and their laws."""

from __future__ import annotations

import math

import pytest
import torch

from services.training.adapters.ppo.objective import (
    bradley_terry_loss,
    entropy,
    gae,
    kl,
    policy_loss,
    token_rewards,
    value_loss,
    whiten,
)

pytestmark = [pytest.mark.slow, pytest.mark.req("T2")]


def row(*values: float) -> torch.Tensor:
    return torch.tensor([values], dtype=torch.float64)


def test_the_reward_models_loss_is_bradley_terrys():
    """-log sigmoid(2 - 1) and -log sigmoid(-1 - 1), their mean."""
    loss = bradley_terry_loss(torch.tensor([2.0, -1.0]), torch.tensor([1.0, 1.0]))
    assert loss.item() == pytest.approx((math.log1p(math.exp(-1)) + math.log1p(math.exp(2))) / 2)


def test_a_tokens_reward_is_its_distance_and_the_last_ones_the_score_too():
    """beta 0.5; log-ratios 0.2 and -0.4; the third token is padding."""
    rewards = token_rewards(
        torch.tensor([3.0], dtype=torch.float64),
        row(-1.0, -2.0, -9.0),
        row(-1.2, -1.6, 0.0),
        row(1, 1, 0),
        beta=0.5,
    )
    assert rewards[0].tolist() == pytest.approx([-0.1, 3.2, 0.0])


def test_advantages_and_returns_by_hand():
    """discount 0.9, lambda 0.5: delta_2 = 1 - 0.3; delta_1 = 0.9 * 0.3 - 0.4; delta_0 = 0.26."""
    advantages, returns = gae(
        row(0, 0, 1, 7), row(0.1, 0.4, 0.3, 5), row(1, 1, 1, 0), discount=0.9, lam=0.5
    )
    last = 0.7
    middle = -0.13 + 0.45 * last
    first = 0.26 + 0.45 * middle
    assert advantages[0].tolist() == pytest.approx([first, middle, last, 0])
    assert returns[0].tolist() == pytest.approx([first + 0.1, middle + 0.4, 1.0, 0])


def test_with_lambda_1_returns_are_the_discounted_rewards_to_come():
    rewards, values = torch.randn(3, 5).double(), torch.randn(3, 5).double()
    _, returns = gae(rewards, values, torch.ones(3, 5).double(), discount=0.8, lam=1.0)
    to_come = torch.zeros(3).double()
    for t in reversed(range(5)):
        to_come = rewards[:, t] + 0.8 * to_come
        assert torch.allclose(returns[:, t], to_come)


@pytest.mark.parametrize(
    ("ratio", "advantage", "objective", "clipped"),
    [
        pytest.param(1.5, 2.0, 2.4, 1.0, id="gain beyond the clip is not paid"),
        pytest.param(0.5, 2.0, 1.0, 0.0, id="loss of a good token is paid in full"),
        pytest.param(0.5, -2.0, -1.6, 1.0, id="loss of a bad token beyond the clip is not paid"),
        pytest.param(1.5, -2.0, -3.0, 0.0, id="gain of a bad token is paid in full"),
        pytest.param(1.1, 2.0, 2.2, 0.0, id="inside the clip"),
    ],
)
def test_the_clipped_objective_by_hand(ratio, advantage, objective, clipped):
    loss, share = policy_loss(
        row(math.log(ratio) - 1, 5), row(-1, 0), row(advantage, 99), row(1, 0), clip=0.2
    )
    assert loss.item() == pytest.approx(-objective)
    assert float(share) == clipped


def test_where_the_policy_has_not_moved_its_gradient_is_that_of_reinforce():
    log_probs = row(-1.0, -2.0).requires_grad_()
    loss, _ = policy_loss(log_probs, log_probs.detach(), row(3, -1), row(1, 1), clip=0.2)
    loss.backward()
    assert log_probs.grad[0].tolist() == pytest.approx([-1.5, 0.5])


def test_a_values_move_beyond_the_clip_earns_nothing():
    """Old 0, new 1, return 1: the squared error stays that of 0.2."""
    loss = value_loss(row(1, 9), row(0, 0), row(1, 0), row(1, 0), clip=0.2)
    assert loss.item() == pytest.approx(0.5 * 0.8**2)
    away = value_loss(row(-1), row(0), row(1), row(1), clip=0.2)
    assert float(away) == pytest.approx(0.5 * 2**2)


def test_whitened_advantages_ignore_padding():
    white = whiten(row(1, 3, 100), row(1, 1, 0))
    assert white[0].tolist() == pytest.approx([-1, 1, 0], abs=1e-6)


def test_kl_and_entropy_by_hand():
    policy, reference = row(0.5, 0.5).log().unsqueeze(0), row(0.25, 0.75).log().unsqueeze(0)
    by_hand = 0.5 * math.log(2) + 0.5 * math.log(2 / 3)
    assert float(kl(policy, reference)) == pytest.approx(by_hand)
    assert float(kl(policy, policy)) == 0
    assert float(entropy(policy)) == pytest.approx(math.log(2))
