"""The reward model: an adapter and a scalar head, by Bradley and Terry's loss on the pairs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from services.training.adapters.ppo.networks import REWARD, Networks
from services.training.adapters.ppo.objective import bradley_terry_loss
from services.training.adapters.ppo.sampling import Answers
from services.training.adapters.tokens import Pair
from services.training.bucketing import bucketed_order
from services.training.health import RunHealth

CALIBRATION_PAIRS = 256
SEPARATED = 1e-2
"""A loss at which the pairs are told apart: more steps would only stretch the scale."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RewardScale:
    """What makes the scores of the training answers mean 0 and standard deviation 1."""

    mean: float
    deviation: float


def fit_reward(
    networks: Networks,
    pairs: Sequence[Pair],
    *,
    steps: int,
    batch_size: int,
    learning_rate: float,
    seed: int,
    pad: int,
    each: Callable[[int, float], None],
) -> RewardScale:
    """Train the reward adapter and its head, `steps` at most; `each(step, loss)` follows each.

    Raises RunStopped for a loss or a gradient that no run survives.
    """
    parameters = networks.parameters(REWARD)
    optimizer = torch.optim.AdamW(parameters, lr=learning_rate, weight_decay=0.0)
    health, order, epoch = RunHealth(), list[int](), 0
    lengths = [len(p.prompt_ids) + len(p.chosen_ids) for p in pairs]
    for step in range(1, steps + 1):
        if not order:
            order, epoch = bucketed_order(lengths, batch_size, seed=seed, epoch=epoch), epoch + 1
        batch, order = [pairs[i] for i in order[:batch_size]], order[batch_size:]
        loss = bradley_terry_loss(*scores(networks, batch, pad))
        health.check_loss(step, loss.item())
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        norm = torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        health.check_gradient(step, norm.item())
        optimizer.step()
        each(step, loss.item())
        if loss.item() < SEPARATED:
            break
    with torch.no_grad():
        some = [
            torch.cat(scores(networks, pairs[start : start + batch_size], pad))
            for start in range(0, min(len(pairs), CALIBRATION_PAIRS), batch_size)
        ]
    every = torch.cat(some)
    deviation = float(every.std(correction=0))
    return RewardScale(mean=float(every.mean()), deviation=deviation if deviation > 0 else 1.0)


def scores(networks: Networks, pairs: Sequence[Pair], pad: int) -> tuple[Tensor, Tensor]:
    """The raw reward_B of the chosen and of the rejected answers."""
    rows = [p.prompt_ids + p.chosen_ids for p in pairs]
    rows += [p.prompt_ids + p.rejected_ids for p in pairs]
    width = max(map(len, rows))
    device = networks.device
    tokens_BS = torch.tensor([row + [pad] * (width - len(row)) for row in rows], device=device)
    mask_BS = torch.tensor(
        [[1] * len(row) + [0] * (width - len(row)) for row in rows], device=device
    )
    scalar_BS = networks.judge("reward", tokens_BS, mask_BS)
    last_B = mask_BS.sum(1) - 1
    chosen_B, rejected_B = scalar_BS[torch.arange(len(rows)), last_B].chunk(2)
    return chosen_B, rejected_B


@torch.no_grad()
def reward(networks: Networks, answers: Answers, scale: RewardScale) -> Tensor:
    """Score_B of sampled answers on the pairs' scale, less 1 for one that does not end.

    The reward model has only seen whole answers; what it says of a torso is no evidence.
    """
    scalar_BS = networks.judge("reward", answers.tokens_BS, answers.attention_BS)
    last_B = answers.tokens_BS.shape[1] - answers.width + answers.mask_BT.sum(1).long() - 1
    raw_B = scalar_BS[torch.arange(len(last_B)), last_B]
    return (raw_B - scale.mean) / scale.deviation - (~answers.ended_B).float()


@torch.no_grad()
def reward_accuracy(networks: Networks, pairs: Sequence[Pair], batch_size: int, pad: int) -> float:
    """The share of `pairs` (one at least) whose chosen answer is rewarded more."""
    right = 0
    for start in range(0, len(pairs), batch_size):
        chosen_B, rejected_B = scores(networks, pairs[start : start + batch_size], pad)
        right += int((chosen_B > rejected_B).sum())
    return right / len(pairs)
