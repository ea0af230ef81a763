"""What a PPO step learns from: answers of the policy, rewarded, with their advantages."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from contracts.preference import PpoParameters
from services.training.adapters.ppo.networks import ACTOR, Networks
from services.training.adapters.ppo.objective import (
    entropy,
    gae,
    kl,
    masked_mean,
    token_rewards,
    whiten,
)
from services.training.adapters.ppo.reward import RewardScale, reward
from services.training.adapters.ppo.sampling import Answers
from services.training.policy_health import PolicyStep


@dataclass(frozen=True, slots=True, kw_only=True)
class Experience:
    """Answers and the fixed quantities of the two losses; `seen` is what health looks at."""

    answers: Answers
    log_probs_BT: Tensor
    values_BT: Tensor
    advantages_BT: Tensor
    returns_BT: Tensor
    seen: PolicyStep


@torch.no_grad()
def experience(
    networks: Networks, answers: Answers, scale: RewardScale, ppo: PpoParameters, *, beta: float
) -> Experience:
    """Reward `answers`, charge them their distance from the base, and estimate advantages."""
    mask_BT = answers.mask_BT
    score_B = reward(networks, answers, scale)
    values_BT = values(networks, answers).detach() * mask_BT
    networks.model.set_adapter(ACTOR)
    policy_BTV = log_softmax_of(networks, answers)
    with networks.model.disable_adapter():
        reference_BTV = log_softmax_of(networks, answers)
    log_probs_BT = chosen(policy_BTV, answers)
    rewards_BT = token_rewards(
        score_B, log_probs_BT, chosen(reference_BTV, answers), mask_BT, beta=beta
    )
    advantages_BT, returns_BT = gae(
        rewards_BT, values_BT, mask_BT, discount=ppo.discount, lam=ppo.gae_lambda
    )
    return Experience(
        answers=answers,
        log_probs_BT=log_probs_BT,
        values_BT=values_BT,
        advantages_BT=whiten(advantages_BT, mask_BT),
        returns_BT=returns_BT,
        seen=PolicyStep(
            reward=float(score_B.mean()),
            kl=float((kl(policy_BTV, reference_BTV) * mask_BT).sum(1).mean()),
            entropy=float(masked_mean(entropy(policy_BTV), mask_BT)),
            reference_entropy=float(masked_mean(entropy(reference_BTV), mask_BT)),
            answer_tokens=float(mask_BT.sum(1).mean()),
        ),
    )


def log_softmax_of(networks: Networks, answers: Answers) -> Tensor:
    """Log-probabilities_BTV of every token at every place of the answers, under what is active."""
    logits_BTV = networks.logits(answers.tokens_BS, answers.attention_BS, answers.width)
    return logits_BTV.log_softmax(-1)


def chosen(log_probs_BTV: Tensor, answers: Answers) -> Tensor:
    """Log-probabilities_BT of the tokens that were drawn."""
    drawn_BT = answers.tokens_BS[:, -answers.width :]
    return log_probs_BTV.gather(-1, drawn_BT.unsqueeze(-1)).squeeze(-1)


def values(networks: Networks, answers: Answers) -> Tensor:
    """The critic's value_BT of the state each token of the answers was drawn in."""
    scalar_BS = networks.judge("critic", answers.tokens_BS, answers.attention_BS)
    return scalar_BS[:, -answers.width - 1 : -1]
