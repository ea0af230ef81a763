"""The formulas of reward modelling and PPO. Pure; shapes are suffixes (`B` answers, `T` tokens).

Bradley and Terry, 1952; Schulman et al., 2016 (GAE, arXiv:1506.02438) and 2017 (PPO,
arXiv:1707.06347); Ouyang et al., 2022 (arXiv:2203.02155) put them together. `mask_BT` is 1 on the
answer's tokens, the end of turn included, and 0 after it.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812  (the field's spelling)
from torch import Tensor


def bradley_terry_loss(chosen_B: Tensor, rejected_B: Tensor) -> Tensor:
    """-log sigmoid(r(chosen) - r(rejected)), the mean over pairs (Ouyang et al., equation 1)."""
    return -F.logsigmoid(chosen_B - rejected_B).mean()


def token_rewards(
    score_B: Tensor, log_probs_BT: Tensor, reference_BT: Tensor, mask_BT: Tensor, *, beta: float
) -> Tensor:
    """Rewards_BT: -beta (log pi - log pi_ref) at every token, and the score at the last one.

    Their sum is r(x, y) - beta log(pi(y|x) / pi_ref(y|x)), whose mean over answers of pi is the
    objective r - beta KL(pi || pi_ref).
    """
    rewards_BT = -beta * (log_probs_BT - reference_BT) * mask_BT
    last_B = mask_BT.sum(1).long() - 1
    rewards_BT[torch.arange(len(score_B)), last_B] += score_B
    return rewards_BT


def gae(
    rewards_BT: Tensor, values_BT: Tensor, mask_BT: Tensor, *, discount: float, lam: float
) -> tuple[Tensor, Tensor]:
    """Advantages_BT and returns_BT (Schulman et al., 2016, equations 11 and 16).

        delta_t = r_t + discount V_(t+1) - V_t        A_t = delta_t + discount lam A_(t+1)

    V after the last token is 0. Returns are A + V.
    """
    advantages_BT = torch.zeros_like(rewards_BT)
    advantage_B = torch.zeros_like(rewards_BT[:, 0])
    next_B = torch.zeros_like(advantage_B)
    for t in reversed(range(rewards_BT.shape[1])):
        delta_B = rewards_BT[:, t] + discount * next_B - values_BT[:, t]
        advantage_B = (delta_B + discount * lam * advantage_B) * mask_BT[:, t]
        next_B = values_BT[:, t] * mask_BT[:, t]
        advantages_BT[:, t] = advantage_B
    return advantages_BT, (advantages_BT + values_BT) * mask_BT


def policy_loss(
    log_probs_BT: Tensor, old_BT: Tensor, advantages_BT: Tensor, mask_BT: Tensor, *, clip: float
) -> tuple[Tensor, Tensor]:
    """-min(ratio A, clipped ratio A) per token (Schulman et al., 2017, equation 7).

    ratio = pi / pi_old. Also the share of tokens where the clipped term is the lower.
    """
    ratio_BT = (log_probs_BT - old_BT).exp()
    free_BT = ratio_BT * advantages_BT
    clipped_BT = ratio_BT.clamp(1 - clip, 1 + clip) * advantages_BT
    share = masked_mean((clipped_BT < free_BT).float(), mask_BT)
    return -masked_mean(torch.minimum(free_BT, clipped_BT), mask_BT), share.detach()


def value_loss(
    values_BT: Tensor, old_BT: Tensor, returns_BT: Tensor, mask_BT: Tensor, *, clip: float
) -> Tensor:
    """Half the squared error, no value moving more than `clip` from `old_BT` to its profit."""
    held_BT = old_BT + (values_BT - old_BT).clamp(-clip, clip)
    worse_BT = torch.maximum((values_BT - returns_BT) ** 2, (held_BT - returns_BT) ** 2)
    return 0.5 * masked_mean(worse_BT, mask_BT)


def whiten(values_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """Mean 0 and standard deviation 1 over the masked entries; 0 elsewhere."""
    centred_BT = values_BT - masked_mean(values_BT, mask_BT)
    deviation = masked_mean(centred_BT**2, mask_BT).sqrt()
    return centred_BT / (deviation + 1e-8) * mask_BT


def entropy(log_probs_BTV: Tensor) -> Tensor:
    """Entropy_BT in nats of each next-token distribution."""
    return -(log_probs_BTV.exp() * log_probs_BTV).sum(-1)


def kl(log_probs_BTV: Tensor, reference_BTV: Tensor) -> Tensor:
    """KL(pi || pi_ref)_BT in nats of each next-token distribution, over the whole vocabulary."""
    return (log_probs_BTV.exp() * (log_probs_BTV - reference_BTV)).sum(-1)


def masked_mean(values_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """The mean over the masked entries."""
    return (values_BT * mask_BT).sum() / mask_BT.sum().clamp(min=1)
